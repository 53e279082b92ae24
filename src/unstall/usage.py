"""What the program says without loading anything: its commands, its version, and that a word is none of them."""

import ast
import difflib
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path

COMMANDS = {
    "fit": "train, and say what came of it",
    "validate": "evaluate a trained run on the validation data",
    "test": "evaluate a trained run on the test data",
    "predict": "write a trained run's predictions",
    "lr_find": "find the learning rate that trains best; --fit=true goes on with it",
    "sweep": "search over any settings, and draw what depends on what",
    "diagnose": "say why a run stalled, and try what mends it",
}
"""Those of `unstall.cli.CLI`, to which a test holds them."""


def answer(words: list[str]) -> tuple[str, int] | None:
    """Return what is said at once, with the exit code; None where a command has to be loaded.

    Args:
        words: The command line without the program's name.
    """
    first = words[0] if words else ""
    if first in ("-h", "--help"):
        return usage(), 0
    if first == "--version":
        return f"unstall {installed_version()}", 0
    if first.startswith("-") or first in COMMANDS:
        return None
    own = [entry.name for entry in _own()]
    if first in own:
        return None
    nearest = difflib.get_close_matches(first, [*COMMANDS, *own], n=1)
    remedy = f"the nearest one is {nearest[0]}" if nearest else f"give one of {', '.join([*COMMANDS, *own])}"
    said = f"{first}: no such command" if first else "no command"
    return f"unstall: error: {said}; {remedy} (`unstall --help` says what they do)", 2


def usage() -> str:
    """Return the help of the program as a whole."""
    listed = {**COMMANDS, **{entry.name: _first_line(entry) for entry in _own()}}
    lines = [f"  {name:10} {does}" for name, does in listed.items()]
    return "\n".join(
        [
            "usage: unstall COMMAND [-c CONFIG ...] [--SETTING=VALUE ...]",
            "",
            *lines,
            "",
            "  unstall COMMAND --help    all settings of a command",
            "  unstall --version         which version this is",
        ]
    )


def installed_version() -> str:
    """Return the version of this distribution."""
    try:
        return version("unstall")
    except PackageNotFoundError:  # the instruments in the tree of a project of another name
        return "of no distribution: it lies in the project's own source"


def _own() -> list[EntryPoint]:
    """The commands that installed projects have registered, each name once."""
    return list({entry.name: entry for entry in entry_points(group="unstall.commands")}.values())


def _first_line(entry: EntryPoint) -> str:
    """The first line of what a command says of itself, read from its source: importing it could take seconds."""
    top, *rest = entry.module.split(".")
    try:
        spec = find_spec(top)
        places = (spec.submodule_search_locations if spec is not None else None) or []
        files = [Path(place, *rest).with_suffix(".py") for place in places] if rest else []
        files += [Path(spec.origin)] if spec is not None and spec.origin and not rest else []
        tree = ast.parse(next(file for file in files if file.is_file()).read_text())
        function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == entry.attr)
        words = (ast.get_docstring(function) or "").partition("\n")[0]
    except (StopIteration, OSError, ValueError, SyntaxError, ImportError):
        words = ""
    return words or f"of {entry.module}"
