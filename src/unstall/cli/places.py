"""Where things lie: what is in a run's folder, and which settings of a config are places."""

from pathlib import Path, PureWindowsPath
from typing import Any

from unstall.runs import BEST, CONFIG, HPARAMS, LAST, METRICS, PLACES

SETTINGS = ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer")
"""What a run's config holds: every command can read it."""
FOLDERS = {"logs_dir", "default_root_dir", "dirpath", "save_dir", "root_dir", "log_dir", "cache_dir", "root", *PLACES}
"""Settings that name a folder, here and in Lightning's loggers, callbacks and torchvision's data sets."""
FOLDERS -= {"num_workers"}


def run_around(place: Path) -> Path | None:
    """Return the run's folder that a file or folder is, or lies in; None if it lies in none."""
    resolved = place.resolve()
    return next((folder for folder in (resolved, *resolved.parents) if _is_run(folder)), None)


def without_places(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a config that somebody sent without what it says of places, and what was left out, by dotted name.

    A place is what is called one, and every text that leads out of the working folder: an absolute path, `..`, `~`,
    a URL. What is no setting of a run (`ckpt_path`, `weights_only`) is for whoever types the command, and left out too.
    """
    left_out: dict[str, Any] = {}
    kept = {}
    for key, value in config.items():
        if str(key).partition(".")[0].rstrip("+") in SETTINGS:
            kept[key] = value
        else:
            left_out[str(key)] = value
    return _sift(kept, "", left_out), left_out


def _sift(config: dict[Any, Any], prefix: str, left_out: dict[str, Any]) -> dict[Any, Any]:
    kept: dict[Any, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        last = str(key).rpartition(".")[2].rstrip("+")
        if (last in FOLDERS and value is not None) or _leads_away(value):
            left_out[name] = value
        elif isinstance(value, dict):
            kept[key] = _sift(value, f"{name}.", left_out)
        elif isinstance(value, list):
            kept[key] = [
                _sift(inner, f"{name}[{index}].", left_out) if isinstance(inner, dict) else inner
                for index, inner in enumerate(value)
            ]
        else:
            kept[key] = value
    return kept


def _leads_away(value: Any) -> bool:
    if isinstance(value, list):
        return any(_leads_away(inner) for inner in value)
    if not isinstance(value, str):
        return False
    path = PureWindowsPath(value)  # which also parts at /
    return value.startswith(("~", "/")) or bool(path.drive and path.root) or ".." in path.parts or "://" in value


def _is_run(folder: Path) -> bool:
    signs = (LAST, BEST, Path(HPARAMS), Path(METRICS))
    return (folder / CONFIG).is_file() and any((folder / sign).is_file() for sign in signs)
