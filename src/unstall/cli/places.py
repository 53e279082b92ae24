"""Where things lie: what is in a run's folder, and which settings of a config are places."""

from pathlib import Path, PureWindowsPath
from typing import Any

from unstall.cli.reading import read_again
from unstall.runs import BEST, CONFIG, HPARAMS, LAST, METRICS, PLACES

SETTINGS = ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer")
"""What a run's config holds: every command can read it."""
FOLDERS = {"logs_dir", "default_root_dir", "dirpath", "save_dir", "root_dir", "log_dir", "cache_dir", "root", *PLACES}
"""Settings that name a folder, here and in Lightning's loggers, callbacks and torchvision's data sets."""
FOLDERS -= {"num_workers"}
PARTS = {"dir", "dirs", "directory", "folder", "folders", "path", "paths", "file", "files"}
"""By which the name of a setting ends that is a place: `save_path`, `weights_file`."""


def run_around(place: Path) -> Path | None:
    """Return the run's folder that a file or folder is, or lies in; None if it lies in none."""
    resolved = place.resolve()
    return next((folder for folder in (resolved, *resolved.parents) if _is_run(folder)), None)


def link_out_of(folder: Path) -> Path | None:
    """Return a link in a folder that leads out of it, so that what is written there is not; None if there is none."""
    here = folder.resolve()
    links = (file for file in here.rglob("*") if file.is_symlink() and not file.resolve().is_relative_to(here))
    return next(links, None)


def without_places(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a config that somebody sent without what it says of places, and what was left out, by dotted name.

    A place is what is called one, and every text that leads out of the working folder: an absolute path, `..`, `~`,
    a URL; and a text that holds such settings. What is no setting of a run (`ckpt_path`, `weights_only`) is for whoever
    types the command, and left out too.
    """
    left_out: dict[str, Any] = {}
    kept = {}
    for key, value in config.items():
        if str(key).partition(".")[0].rstrip("+") in SETTINGS:
            kept[key] = value
        else:
            left_out[str(key)] = value
    sifted: dict[str, Any] = _sift(kept, "", left_out)
    return sifted, left_out


def _sift(value: Any, name: str, left_out: dict[str, Any], depth: int = 0) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_sift(inner, f"{name}[{index}]", left_out, depth) for index, inner in enumerate(value))
    if not isinstance(value, dict):
        return value
    kept: dict[Any, Any] = {}
    for key, inner in value.items():
        below = f"{name}.{key}" if name else str(key)
        if _is_place(str(key), inner) or _leads_away(inner, depth):
            left_out[below] = inner
        else:
            kept[key] = _sift(inner, below, left_out, depth)
    return kept


def _is_place(key: str, value: Any) -> bool:
    last = key.rpartition(".")[2].rstrip("+")
    named = last not in ("class_path", "_class_path") and last.lower().rpartition("_")[2] in PARTS
    return (last in FOLDERS and value is not None) or (named and isinstance(value, str | list | tuple))


def _leads_away(value: Any, depth: int) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return any(_leads_away(inner, depth) for inner in value)
    if not isinstance(value, str):
        return False
    path = PureWindowsPath(value)  # which also parts at /
    if value.startswith(("~", "/")) or (path.drive and path.root) or ".." in path.parts or "://" in value:
        return True
    read, within = read_again(value, depth), dict[str, Any]()
    if read == value:
        return False
    _sift({"": read}, "", within, depth + 1)
    return bool(within)


def _is_run(folder: Path) -> bool:
    signs = (LAST, BEST, Path(HPARAMS), Path(METRICS))
    return (folder / CONFIG).is_file() and any((folder / sign).is_file() for sign in signs)
