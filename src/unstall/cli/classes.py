"""Which classes were asked for, and what a base config holds for others in their place.

jsonargparse carries arguments over from one class to another that has them by the same name: right for two layers of
one's own, wrong for a base that was not written for that class (`batch_size: 128` would become one's own default).
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

import yaml
from jsonargparse import Namespace

from unstall.cli.project import base_configs


def classes_given(args: list[str]) -> dict[str, str]:
    """Return the class that each setting is given last, by the config files and words of a command line.

    Args:
        args: The words.

    Returns:
        `{"model": "mine.Module", "model.optimizer": "AdamW"}`: dotted names without `init_args`. A value that names no
        class is among them, where the command line alone does not tell.
    """
    given: dict[str, str] = {}
    for index, word in enumerate(args):
        option, equals, value = word.partition("=")
        if not equals:
            value = args[index + 1] if index + 1 < len(args) else ""
        if option in ("-c", "--config"):
            given |= dict(_classes_in(_settings(value)))
        elif option.startswith("--") and value:
            name = ".".join(part for part in option[2:].split(".") if part not in ("init_args", "class_path"))
            inner = dict(_classes_in(_settings(value), (name,)))
            given |= inner or {name: value}
    return given


def without_foreign_arguments(defaults: Namespace, given: Mapping[str, str]) -> Namespace:
    """Return defaults in which no class that was replaced has left arguments to the one in its place."""
    for name, path in given.items():
        *above, last = name.split(".")
        place: Any = defaults
        for part in above:
            place = place.get(part) if isinstance(place, Namespace) else None
            if isinstance(place, Namespace) and "class_path" in place:
                place = place.get("init_args")
        found = place.get(last) if isinstance(place, Namespace) else None
        if isinstance(found, Namespace) and "class_path" in found and _is_other_class(path, found.class_path):
            if above:
                # A config in between may give arguments that are to be carried over.
                found["init_args"] = Namespace()  # type: ignore[no-untyped-call]
            else:
                place[last] = None
    return defaults


def why_not_loaded(named: Mapping[str, str]) -> str | None:
    """Return why the module of a class cannot be imported although it is there, in one line; None if all can be.

    Args:
        named: The class of each setting, as `classes_given` returns them. They are imported.
    """
    for name, path in named.items():
        module = path.rpartition(".")[0]
        if not module or not all(part.isidentifier() for part in path.split(".")):
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever a module of theirs raises
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is not None and f"{module}.".startswith(f"{missing}."):
                continue  # there is no such module, as the parser says
            what = getattr(error, "msg", error)  # of a SyntaxError, without the place
            remedy = f"install {missing}, or leave out its import" if missing else "mend it"
            return f"{name}={path}: {_place_of(error)}: {type(error).__name__}: {what}; {remedy}"
    return None


def classes_of_base() -> dict[str, str]:
    """Return the class of each setting in the base configs."""
    return {name: path for file in base_configs() for name, path in _classes_in(_settings(file))}


def _place_of(error: Exception) -> str:
    """File and line of the last step of theirs, or of anybody's, before an import failed."""
    if isinstance(error, SyntaxError) and error.filename:
        file, line = error.filename, error.lineno or 1
    else:
        frames = [frame for frame in extract_tb(error.__traceback__)[1:] if not frame.filename.startswith("<")]
        theirs = [frame for frame in frames if not set(Path(frame.filename).parts) & {"site-packages", "importlib"}]
        file, line = next(((frame.filename, frame.lineno or 1) for frame in reversed(theirs or frames)), ("?", 1))
    place = Path(file)
    return f"{place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place}, line {line}"


def _settings(text: str) -> Any:
    """What a config file holds, or the text itself if it is no file: the settings may stand in its place."""
    try:
        if Path(text).is_file():
            text = Path(text).read_text()
        return yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):  # the parser says what is wrong with it
        return None


def _classes_in(settings: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    if isinstance(settings, str) and path:
        yield ".".join(path), settings
    if not isinstance(settings, Mapping):
        return
    if isinstance(settings.get("class_path"), str):
        yield ".".join(path), settings["class_path"]
    for name, value in settings.items():
        if name != "class_path":
            yield from _classes_in(value, path if name == "init_args" else (*path, str(name)))


def _is_other_class(path: str, base: str) -> bool:
    """Whether a path names another class than the base's, which may be given by its last name, or by another module."""
    if "." not in path:
        return path != base.rpartition(".")[2]
    named = loaded(path)
    return named is not None and named is not loaded(base)  # what cannot be loaded is for the parser to name


def loaded(path: str) -> Any:
    """Return what a class path names; None if it cannot be imported."""
    module, _, name = path.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name, None)
    except Exception:  # whatever a module of theirs raises
        return None
