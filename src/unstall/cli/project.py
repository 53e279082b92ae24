"""What a project brings to the command line: its base config, its own commands, its former names.

[tool.unstall]                       # pyproject.toml, in the working folder or above it
config = "configs/base.yaml"         # what every command starts from, on top of this package's base.yaml
classes = ["mine"]                   # modules and packages whose classes a run that somebody sent may name

[project.entry-points."unstall.commands"]
demo = "mine.demo:main"              # `unstall demo ...` calls it with the words that follow

[project.entry-points."unstall.renamed"]
"mine.net.Net" = "mine.network:Net"  # runs made under the former name load; a config is told the present one
"""

import re
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from unstall.cli.places import run_around
from unstall.cli.signature import is_signed, signed
from unstall.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BASE_CONFIG = Path(__file__).with_name("base.yaml")
"""The base of every config: what a run keeps and shows."""

RENAMED = {
    "unstall.callbacks.Checkpoints": "unstall.Checkpoints",
    "unstall.callbacks.Curves": "unstall.Curves",
    "unstall.callbacks.History": "unstall.History",
    "unstall.callbacks.RandomState": "unstall.RandomState",
    "unstall.monitor.Diagnosis": "unstall.Diagnosis",
    "unstall.outcomes.Mistakes": "unstall.Mistakes",
    "unstall.outcomes.Predictions": "unstall.Predictions",
    "unstall.run.RunLogger": "unstall.RunLogger",
    "unstall.trainer.NoProfiler": "unstall.NoProfiler",
    "unstall.trainer.ProgressBar": "unstall.ProgressBar",
}
"""What this package's classes were called before it had rooms."""

CLASS_PATH = re.compile(r"(?<![\w.])[A-Za-z_]\w*(?:\.\w+)+")


def base_configs() -> list[str]:
    """Return the files that every command starts from: this package's, then that of the project we are in.

    Raises:
        UsageError: if the project's pyproject.toml is damaged or names a file that is not there.
    """
    file, settings = _settings()
    if "config" not in settings:
        return [str(BASE_CONFIG)]
    config = file.parent / str(settings["config"])
    if not config.is_file():
        raise UsageError(f"{file}: tool.unstall.config={settings['config']}: no such file; name one that is")
    return [str(BASE_CONFIG), str(config)]


def listed_classes() -> set[str]:
    """Return the modules and packages whose classes the project lets a received run name.

    Raises:
        UsageError: if the project's pyproject.toml is damaged or lists something else.
    """
    file, settings = _settings()
    listed = settings.get("classes", [])
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise UsageError(f'{file}: tool.unstall.classes={listed}: give modules or packages, such as ["mine"]')
    return set(listed)


def _settings() -> tuple[Path, dict[str, Any]]:
    """The pyproject.toml of the project we are in and its [tool.unstall]; one within a run's folder came with it."""
    here = Path.cwd()
    for file in (folder / "pyproject.toml" for folder in (here, *here.parents)):
        if not file.is_file() or run_around(file):
            continue
        try:
            settings = tomllib.loads(file.read_text()).get("tool", {}).get("unstall")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{file}: not TOML, {error}") from None
        if settings is not None:
            return file, settings
    return here, {}


def without_base(args: list[str]) -> list[str]:
    """Return the words without the project's base config, if they begin with it: every command starts from it as it is.

    Given as a config of one's own, it would hold for whatever class is named after it.
    """
    words, file = args[1:], ""
    if words[:1] in (["-c"], ["--config"]) and len(words) > 1:
        file, words = words[1], words[2:]
    elif words and words[0].partition("=")[0] in ("-c", "--config"):
        file, words = words[0].partition("=")[2], words[1:]
    try:
        return [*args[:1], *words] if file and Path(file).samefile(base_configs()[-1]) else args
    except (OSError, ValueError):  # no file but the settings themselves
        return args


def commands() -> dict[str, Callable[[], Callable[[list[str]], None]]]:
    """Return how to load each command that an installed project has registered."""
    found = entry_points(group="unstall.commands")
    # This distribution brings a command as an example: another project's of the same name takes its place.
    ours = sorted(found, key=lambda entry: entry.dist is None or entry.dist.name != "unstall")
    return {entry.name: entry.load for entry in ours}


def renamed() -> dict[str, str]:
    """Return former class paths with the present ones, of this package and of installed projects."""
    return {
        **RENAMED,
        **{entry.name: entry.value.replace(":", ".") for entry in entry_points(group="unstall.renamed")},
    }


def with_present_names(text: str) -> str:
    """Return the config of a run with the present names of its classes."""
    names = renamed()
    present = CLASS_PATH.sub(lambda path: names.get(path[0], path[0]), text)
    return signed(present) if present != text and is_signed(text) else present


def former_name_in(text: str) -> tuple[str, str] | None:
    """Return the first former class path in a text with the present one; None if there is none."""
    present = renamed()
    found = (path for path in CLASS_PATH.findall(text) if path in present)
    return next(((path, present[path]) for path in found), None)
