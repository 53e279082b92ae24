"""Reading the command line: its words, its config files, and what is wrong with them in one line."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser
from pytorch_lightning.loggers import Logger

from unstall.cli.classes import without_foreign_arguments
from unstall.cli.loggers import HERE
from unstall.cli.project import former_name_in
from unstall.cli.reading import load
from unstall.errors import UsageError

UNLOADABLE = "Unable to serialize instance"
"""What jsonargparse writes in place of a value that has no text, and warns of."""


class Parser(LightningArgumentParser):
    """Says what is wrong in one line, with the nearest valid name; its base config is for the classes that it names."""

    classes_given: Mapping[str, str] = MappingProxyType({})
    """What a command line puts in the place of the base's classes."""

    def get_defaults(self, *arguments: Any, **options: Any) -> Namespace:
        """Return the defaults, without what the base config holds for classes that are replaced."""
        return without_foreign_arguments(super().get_defaults(*arguments, **options), self.classes_given)

    def add_class_arguments(self, theclass: type, *arguments: Any, **options: Any) -> list[str]:
        """Add a class's arguments; a logger need not be told where to write, its run has a folder."""
        added: list[str] = super().add_class_arguments(theclass, *arguments, **options)
        if isinstance(theclass, type) and issubclass(theclass, Logger):
            for action in self._actions:
                if action.dest == "save_dir" and action.required:
                    action.required = False
                    self.set_defaults(save_dir=HERE)
        return added

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise, where argparse would print the usage of some five hundred options."""
        if not self.exit_on_error:  # jsonargparse is trying one of several types, and may succeed with the next
            super().error(message, ex)
        raise usage_error_in(ex) or UsageError(self.in_one_line(message)) from None

    def in_one_line(self, message: str) -> str:
        """Find the argument, the value and the reason in jsonargparse's nested report, and leave out the nesting."""
        former = former_name_in(message)
        if former is not None:
            return f"{former[0]}: is called {former[1]} now; write that in its place"
        path = ".".join(re.findall(r'[Pp]arser key "([^"]+)"', message))
        unknown = re.search(r"unrecognized arguments: (?:--)?([^\s=]+)|(?:option|Option) '([^']+)'", message)
        if unknown:
            name = ".".join(filter(None, (path, unknown[1] or unknown[2])))
            return f"{name}: no such setting{self._nearest(name)}"
        value = re.search(r"NestedArg\(key='[^']*', val='?(.*?)'?\)", message) or re.search(
            r"(?:Got value|Given value): (?!Namespace)(.+?)(?:\. Got value.*)?$", message, re.MULTILINE
        )
        reasons = re.findall(
            r"(?:module '\S+' has no attribute|No module named|File does not exist|does not correspond to a sub).*",
            message,
        )
        reasons += [
            f"expected {kind}"
            for kind in re.findall(r"Expected an? (?!path|<class 'NoneType'>)(.+?)(?:\. Got.*|: .*)?$", message, re.M)
        ]
        if not path or not reasons:
            return " ".join(message.split())
        reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>|typing\.", r"\1", " or ".join(dict.fromkeys(reasons)))
        reason = reason.replace("dot import path string", "a name or class path such as torch.optim.Adam")
        shown = f"={value[1]}" if value and "Namespace(" not in value[1] else ""
        return f"{path}{shown}: {reason}"

    def _nearest(self, name: str) -> str:
        for action in self._actions:
            if isinstance(action.choices, dict):  # the parser of the commands: they have the settings
                nearest: str = action.choices["fit"]._nearest(name)
                return nearest
        known = {option.lstrip("-") for action in self._actions for option in action.option_strings}
        known |= {key.replace(".init_args", "") for key in flat(yaml.safe_load(self.dump(self.get_defaults())))}
        leaves = {key.rpartition(".")[2]: key for key in known}
        matches = difflib.get_close_matches(name, known, n=1) or [
            leaves[leaf] for leaf in difflib.get_close_matches(name.rpartition(".")[2], leaves, n=1)
        ]
        return f"; the nearest one is --{matches[0]}" if matches else "; `unstall fit --help` lists them"


def usage_error_in(error: BaseException | None) -> UsageError | None:
    """The ``UsageError`` that was raised first in a chain of exceptions, if there is one."""
    while error is not None and not isinstance(error, UsageError):
        error = error.__cause__ or error.__context__
    return error


def check_config(file: str) -> None:
    """Refuse a config file that is not a mapping of settings.

    Raises:
        UsageError: names the file, which jsonargparse's own message does not.
    """
    try:
        text = Path(file).read_text()
    except OSError:  # not there, which jsonargparse says well; or the settings themselves in place of a file
        return
    except UnicodeDecodeError as error:
        raise UsageError(f"config={file}: not YAML, {error}") from None
    content = load(text, f"config={file}")
    if not isinstance(content, dict):
        raise UsageError(f"config={file}: holds no settings; give lines such as `experiment: mine`")


def options(args: list[str], *names: str) -> list[str]:
    """The values given to an option, in order, under any of its names."""
    values = []
    for index, word in enumerate(args):
        if word in names:
            values += args[index + 1 : index + 2] or [""]
        elif word.partition("=")[0] in names:
            values.append(word.partition("=")[2])
    return values


def without(args: list[str], name: str) -> list[str]:
    """The command line without an option and its value."""
    kept = []
    skip = False
    for word in args:
        if not skip and word != name and not word.startswith(f"{name}="):
            kept.append(word)
        skip = word == name
    return kept


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Every setting of a nested config under its dotted name."""
    if not isinstance(config, dict):
        return {prefix: config}
    leaves: dict[str, Any] = {}
    for key, value in config.items():
        leaves |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return leaves
