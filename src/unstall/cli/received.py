"""What came with a run may choose among classes that are known here, and nothing else: which may it name?

Known are this package, what it is built on, what the project registers or lists, the classes of its base config, and
those that are typed or in a `-c` file. A config that was written here is known by its signature. Whatever lies in a
run's folder or in that of the logs is never imported.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from unstall.cli.classes import loaded
from unstall.cli.going_on import TakenUp
from unstall.cli.names import Name, is_safe_to_call, is_under, names_in, texts_in
from unstall.cli.parser import flat, options, without
from unstall.cli.places import link_out_of, run_around, without_places
from unstall.cli.project import base_configs, listed_classes, with_present_names
from unstall.cli.reading import load
from unstall.cli.signature import is_signed
from unstall.errors import UsageError
from unstall.runs import CONFIG, expanded

KNOWN = {"unstall", "torch", "torchvision", "pytorch_lightning", "lightning", "lightning_fabric", "torchmetrics"}
FUNCTIONS = {
    *("torch.nn.functional", "torch.nn.init", "torchvision.models", "torchvision.transforms"),
    "torchmetrics.functional",
}
"""Whose functions may be named as well: they compute, or build a network. Of all else, classes only."""


@dataclass
class Known:
    """What may be named: all within some modules and packages, and single names."""

    prefixes: set[str]
    modules: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    logs: list[Path] = field(default_factory=list)

    def add(self, config: Any) -> None:
        """Take up what a config of one's own names, unless it lies where nothing is imported from."""
        for name in names_in(config).values():
            self.check_place(name)
            self.modules.add(name.module)
            self.names.add(name.name)
        if isinstance(config, dict) and isinstance(config.get("logs_dir"), str):
            self.add_logs(config["logs_dir"])

    def add_logs(self, folder: str) -> None:
        """Take up a folder of runs; not one around the working folder, which is where one's own code lies."""
        resolved = expanded(folder).resolve()
        if not Path.cwd().resolve().is_relative_to(resolved):
            self.logs.append(resolved)

    def check_place(self, name: Name) -> None:
        """Refuse a name whose import would run what lies among runs.

        Raises:
            UsageError: whoever named it.
        """
        if is_under(name.module, KNOWN):
            return
        for file in name.files:
            if run_around(file) or any(file.is_relative_to(folder) for folder in self.logs):
                raise UsageError(
                    f"{name.name}: lies in {file}, in a folder of runs, from which nothing is ever imported; move code "
                    "that is your own into your project"
                )

    def allows(self, name: Name) -> bool:
        """Whether somebody else's file may name it. Imports the module, if that is known."""
        if name.name in self.names:
            return True
        within = self.prefixes | self.modules
        if not is_under(name.module, self.prefixes) and name.module not in self.modules:
            return False
        return is_safe_to_call(name, within, FUNCTIONS, KNOWN)


def admit(typed: list[str], taken: TakenUp) -> tuple[TakenUp, list[str]]:
    """Check every class that a run brings, before any is imported, and leave out what it says of places.

    Args:
        typed: The words of the command.
        taken: Those words, after what the run put before them.

    Returns:
        The words to be parsed, and what a user should be told.

    Raises:
        UsageError: lists what is not known, and asks for `--trust`; or names what is never imported.
    """
    known = _known(typed)
    received: dict[str, Any] = {}
    notes: list[str] = []
    args, checkpoint = list(taken.args), taken.checkpoint
    given = options(typed, "--config", "-c")
    for index, start, value in _configs(args):
        text = _text_of(value)
        if text is None:  # not there: the parser says so
            continue
        named = value if "\n" not in value and len(value) < 255 else f"the config of {_subject(typed)}"
        config = load(text, f"config={named}")
        from_a_run = value not in given or (_is_file(value) and run_around(Path(value)) is not None)
        out_of_its_run = (
            value not in given and checkpoint is not None and taken.run_name is None and typed[0] != "diagnose"
        )
        if not isinstance(config, dict):
            continue
        if is_signed(text) or not from_a_run:
            known.add(config)
            if not out_of_its_run:
                continue
            kept = {key: config[key] for key in config if key != "logs_dir"}
        else:
            kept, left_out = without_places(config)
            received[named] = kept
            notes += _notes(named, left_out)
        if kept != config:
            args[index] = start + yaml.safe_dump(kept, sort_keys=False)
            if checkpoint is not None and with_present_names(checkpoint.get("config", "")) == text:
                checkpoint = checkpoint | {"config": yaml.safe_dump(kept, sort_keys=False)}
    if checkpoint is not None and "config" not in checkpoint and checkpoint.get("hyper_parameters"):
        named = f"the hyper-parameters of {_subject(typed)}"
        sifted, left_out = without_places({"model": dict(checkpoint["hyper_parameters"])})
        received[named] = sifted["model"]
        checkpoint = checkpoint | {"hyper_parameters": sifted["model"]}
        notes += _notes(named, left_out)
    trusted, run = "--trust" in typed, _run_of(_subject(typed))
    for named, config in received.items():
        _check(named, config, known, trusted)
    link = link_out_of(run) if received and run is not None and not trusted else None
    if link is not None:
        raise UsageError(f"{link}: leads out of the run, which was not written here; remove it, or add --trust")
    return replace(taken, args=args, checkpoint=checkpoint), notes


def model_of(checkpoint: dict[str, Any] | None, config: dict[str, Any]) -> dict[str, Any] | None:
    """Return what a plain checkpoint's hyper-parameters say of its model, as a config does; None for any other.

    Args:
        checkpoint: With hyper-parameters as Lightning saves them: with the class, if a command line built it.
        config: What was asked for. The class of its model gets what it takes, as from `load_from_checkpoint`.
    """
    if checkpoint is None or "config" in checkpoint or not config.get("ckpt_path"):
        return None
    hyperparameters, given = checkpoint.get("hyper_parameters") or {}, config["model"]
    arguments = {key: value for key, value in hyperparameters.items() if key not in ("_instantiator", "_class_path")}
    if "_class_path" in hyperparameters:
        return {"class_path": hyperparameters["_class_path"], "dict_kwargs": arguments}
    taken = signature(loaded(given["class_path"])).parameters
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values()):
        arguments = {key: value for key, value in arguments.items() if key in taken}
    return {**given, "init_args": given.get("init_args", {}) | arguments}


def disagreement(path: str, checkpoint: dict[str, Any], hyperparameters: dict[str, Any]) -> list[str]:
    """Say where a checkpoint's hyper-parameters are not those of the module that its config has built.

    Args:
        path: The checkpoint, as it was typed.
        checkpoint: What it holds.
        hyperparameters: Of the module: compared with what the same constructor has made of the config.
    """
    if "config" not in checkpoint:  # then they are all that is known of it
        return []
    theirs = flat(checkpoint.get("hyper_parameters") or {})
    ours = flat(dict(hyperparameters))
    differing = [key for key in theirs if not key.startswith("_") and str(theirs[key]) != str(ours.get(key))]
    return [
        f"{path}: its hyper-parameters say {key}={theirs[key]} and its config {ours.get(key)}; the config is followed"
        for key in differing
    ]


def _known(typed: list[str]) -> Known:
    registered = [*entry_points(group="unstall.commands"), *entry_points(group="unstall.renamed")]
    known = Known(KNOWN | {entry.value.partition(".")[0].partition(":")[0] for entry in registered} | listed_classes())
    for folder in ("logs", *options(typed, "--logs_dir")):
        known.add_logs(folder)
    run = _run_of(_subject(typed))
    if run is not None and (run_around(run) or not Path.cwd().is_relative_to(run)):
        known.logs.append(run)
    for file in base_configs():
        known.add(load(Path(file).read_text(), f"config={file}"))
    words = typed[2:] if typed[:1] == ["diagnose"] else typed[1:]
    for name in ("--config", "-c", "--ckpt_path", "--run", "--logs_dir"):
        words = without(words, name)
    known.add([word.partition("=")[2] if word.startswith("-") else word for word in words])
    return known


def _check(named: str, config: Any, known: Known, trusted: bool) -> None:
    names = names_in(config).values()
    for name in names:
        known.check_place(name)
    if trusted:
        return
    strange = [name.name for name in names if not known.allows(name)]
    strange += [text for text in texts_in(config) if _is_file(text) and isinstance(_read(text), dict)]
    if strange:
        raise UsageError(
            f"{named}: it names {', '.join(dict.fromkeys(strange))}, which nothing here does, and to load that would "
            "run it; if you know where it comes from, add --trust, or list it: classes in [tool.unstall] of "
            "pyproject.toml"
        )


def _configs(args: list[str]) -> Iterator[tuple[int, str, str]]:
    """Each config among the words: where its value stands, what comes before it there, and the value."""
    for index, word in enumerate(args):
        option, equals, value = word.partition("=")
        if index and args[index - 1] in ("-c", "--config"):
            yield index, "", word
        elif option in ("-c", "--config") and equals:
            yield index, f"{option}=", value


def _text_of(value: str) -> str | None:
    if not _is_file(value):
        return value if any(sign in value for sign in ":{\n") else None
    try:
        return Path(value).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"config={value}: cannot be read ({error}); give a text file in UTF-8") from None


def _read(file: str) -> Any:
    try:
        return load(Path(file).read_text(), file)
    except (OSError, ValueError):  # no text, or none that a config could be made of
        return None


def _is_file(value: str) -> bool:
    try:
        return Path(value).is_file()
    except (OSError, ValueError):  # too long for a name, or no name at all
        return False


def _subject(typed: list[str]) -> str:
    """The run or checkpoint that a command names, as it was typed."""
    named = options(typed, "--ckpt_path") or options(typed, "--run")
    if not named and typed[:1] == ["diagnose"]:
        named = typed[1:2]
    return named[-1] if named else "the run"


def _run_of(subject: str) -> Path | None:
    place = expanded(subject)
    folder = place.parent.parent if _is_file(str(place)) else place
    return folder.resolve() if (folder / CONFIG).is_file() else None


def _notes(named: str, left_out: dict[str, Any]) -> list[str]:
    base: dict[str, Any] = {}
    for file in base_configs():
        base |= flat(yaml.safe_load(Path(file).read_text()))
    told = [
        f"{name.replace('.init_args', '')}={value}"
        for name, value in left_out.items()
        if name != "logs_dir" and base.get(name) != value
    ]
    return [f"{named}: not followed, because it was not written here: {', '.join(told)}"] if told else []
