"""Going on from a run: what its checkpoint and its config put before the words that were typed."""

from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

import yaml

from unstall.cli.checks import EVALUATIONS, check_checkpoint, check_name
from unstall.cli.parser import flat, options, without
from unstall.cli.project import base_configs, with_present_names
from unstall.errors import UsageError
from unstall.runs import (
    BEST,
    CONFIG,
    LAST,
    PLACES,
    Lock,
    epochs_in,
    expanded,
    find_and_load,
    locate,
    newest_checkpoint,
    newest_run,
    rank,
    such_as,
)


@dataclass(frozen=True)
class TakenUp:
    """A command line that stands on a run.

    Args:
        args: The words, after those of the run's own config.
        checkpoint: What is gone on from; None if the run has none, or none is asked for.
        run_name: The name of the run that goes on; None for a new one.
        step: The optimizer step from which on TensorBoard forgets what that run has logged; None: nothing.
        lock: Of its folder, for a training.
    """

    args: list[str]
    checkpoint: dict[str, Any] | None = None
    run_name: str | None = None
    step: int | None = None
    lock: Lock | None = None


def with_newest_runs(args: list[str]) -> tuple[list[str], list[str]]:
    """Put the folder of its newest run where an experiment is named as a run; and say so, a line each.

    Args:
        args: The words of a command: `diagnose lr_too_high`, `test --ckpt_path=logs/mine`.
    """
    words, notes = list(args), []
    for index, word in enumerate(args):
        option, equals, value = word.partition("=")
        if not equals or option not in ("--ckpt_path", "--run"):
            follows = index > 0 and args[index - 1] in ("--ckpt_path", "--run")
            if not follows and not (index == 1 and args[0] == "diagnose" and not word.startswith("-")):
                continue
            option, equals, value = "", "", word
        run = _newest_of(value, logs_in(args), trained=args[0] in ("validate", "test", "predict"))
        if run is not None:
            words[index] = f"{option}{equals}{run}"
            notes.append(f"{value}: its newest run, {run}")
    return words, notes


def _newest_of(name: str, logs: Path, trained: bool) -> Path | None:
    """The newest run of an experiment that is given by its folder or its name; None if it is a run or nothing."""
    place = expanded(name)
    if place.is_file() or (place / CONFIG).is_file() or (place / LAST).is_file() or place.name in ("", ".."):
        return None
    for folder in (place.parent, *([logs] if len(place.parts) == 1 else [])):
        run = newest_run(folder, escape(place.name), trained=trained) or newest_run(folder, escape(place.name))
        if run is not None:
            return run
    return None


def logs_in(args: list[str]) -> Path:
    """Return the folder of all experiments that a command line names, or else the project's base config."""
    found = [yaml.safe_load(Path(file).read_text()) for file in base_configs()]
    base = next((str(config["logs_dir"]) for config in reversed(found) if config and "logs_dir" in config), "logs")
    return expanded(next(reversed(options(args, "--logs_dir")), base))


def go_on(args: list[str]) -> tuple[list[str], str | None, TakenUp, list[str]]:
    """Find what a command line goes on from.

    Args:
        args: The words, as they were typed.

    Returns:
        The words, in which an experiment is its newest run; the run or checkpoint among them, if any; the words as they
        stand on it; and what to tell of it.

    Raises:
        UsageError: if there is no such run or checkpoint, or none where one is needed.
    """
    for word in (*options(args, "--ckpt_path", "--run"), *(args[1:2] if args[:1] == ["diagnose"] else ())):
        check_name("ckpt_path", word)
    args, newest = with_newest_runs(args)
    path = next(reversed(options(args, "--ckpt_path")), None)
    if path is None and args[:1] and args[0] in EVALUATIONS and not {"--help", "-h", "--print_config"} & set(args):
        raise UsageError(
            f"ckpt_path: {args[0]} needs a checkpoint, a trained run or its experiment; give --ckpt_path"
            f"{such_as(newest_checkpoint(logs_in(args)))}"
        )
    taken = TakenUp(args)
    if args[:1] == ["diagnose"] and not {"--help", "-h"} & set(args):
        taken = take_up_for_diagnosis(args)
    elif path is not None:
        taken = take_up(args, path)
    return args, path, taken, newest


def take_up(args: list[str], path: str) -> TakenUp:
    """Put a run's config before the words of `fit`, `validate`, `test` or `predict` with `--ckpt_path`.

    Raises:
        UsageError: if there is no such run or checkpoint, or if another process trains in its folder.
    """
    place = locate(path)
    run, rest = place.run, without(args[1:], "--ckpt_path")
    file, checkpoint = find_and_load(place, LAST if args[0] == "fit" else BEST)
    if file is not None and checkpoint is not None:
        check_checkpoint(file, checkpoint, to_go_on=args[0] == "fit")
    elif args[0] != "fit":
        raise UsageError(f"ckpt_path={path}: this run has no checkpoint yet; let it train for an epoch first")
    lock = Lock(run.folder) if run is not None and args[0] == "fit" and rank() == 0 else None
    taken, name = [], None
    if run is not None:
        folder = run.folder.absolute()
        logs_dir = run.folder.parent.parent
        taken, name = [f"--logs_dir={logs_dir}", f"--experiment={folder.parent.name}"], folder.name
    if checkpoint is None:
        assert run is not None
        if rank() == 0:
            print(f"{run.folder} has no checkpoint yet: it starts again")
        words = [args[0], f"--config={run.folder / CONFIG}", *taken, *rest]
        return TakenUp(words, run_name=name, step=0, lock=lock)
    config = [f"--config={with_present_names(checkpoint['config'])}"] if "config" in checkpoint else []
    words = [args[0], *config, *taken, *rest, f"--ckpt_path={file}"]
    return TakenUp(words, checkpoint, name, step=checkpoint.get("global_step", 0), lock=lock)


def take_up_for_diagnosis(args: list[str]) -> TakenUp:
    """Put a run's config before the words of `diagnose RUN`.

    Raises:
        UsageError: if no run is named, or if there is none.
    """
    path = next(reversed(options(args, "--run")), next(iter(args[1:2]), "-"))
    if path.startswith("-"):
        raise UsageError(f"run: diagnose needs a run; give its folder or experiment{such_as(newest_run())}")
    folder = folder_of(path)
    file, checkpoint = find_and_load(locate(path, "run"), LAST)
    words = [word for word in without(args[1:], "--run") if word != path]
    if file is not None and checkpoint is not None:
        check_checkpoint(file, checkpoint)
    run = folder if file in (None, folder / LAST) else file
    return TakenUp([args[0], f"--config={folder / CONFIG}", f"--run={run}", *words], checkpoint)


def with_run_configs(taken: TakenUp) -> TakenUp:
    """Hand over, as text and with the present names of classes, each config that lies in a run's folder."""
    args = list(taken.args)
    for index, word in enumerate(args):
        option, equals, value = word.partition("=")
        if index and args[index - 1] in ("-c", "--config"):
            option, equals, value = "", "", word
        elif option not in ("-c", "--config") or not equals:
            continue
        try:
            text = Path(value).read_text() if (Path(value).parent / CONFIG).is_file() else ""
        except (OSError, UnicodeDecodeError):  # the settings themselves, no file, or none of text: said later
            continue
        present = with_present_names(text)
        if present != text:
            args[index] = f"{option}{equals}{present}"
    return replace(taken, args=args)


def folder_of(run: str | Path) -> Path:
    """The folder of a run that is given by itself or by one of its checkpoints.

    Raises:
        UsageError: if it holds no config.
    """
    place = locate(run, "run")
    if place.run is None or not (place.run.folder / CONFIG).is_file():
        raise UsageError(f"run={run}: no {CONFIG} there; give a run's folder{such_as(newest_run())}")
    return place.run.folder


def check_agreement(stage: str, path: str, checkpoint: dict[str, Any], config: str, max_epochs: int | None) -> None:
    """Refuse settings that contradict what a checkpoint was trained with, and a training that is already over.

    Args:
        stage: The subcommand.
        path: The checkpoint as it was typed.
        checkpoint: What it holds.
        config: The resolved config, as YAML.
        max_epochs: Of the resolved config.

    Raises:
        UsageError: names the setting, both values and what to do.
    """
    if "config" not in checkpoint:
        return
    theirs = flat(yaml.safe_load(with_present_names(checkpoint["config"])))
    ours = flat(yaml.safe_load(config))
    binding = ("model.", "data.", "seed_everything") if stage == "fit" else ("model.",)
    for key in sorted(ours.keys() | theirs.keys()):
        values = ours.get(key), theirs.get(key)
        same = values[0] == values[1] or all(value != value for value in values)  # two that are not a number
        if key.startswith(binding) and key.rpartition(".")[2] not in PLACES and not same:
            raise UsageError(
                f"{key.replace('.init_args', '')}={ours.get(key)} contradicts {theirs.get(key)}, with which "
                f"{path} was trained; leave it out, or start a new run without --ckpt_path"
            )
    done, steps = epochs_in(checkpoint), checkpoint.get("global_step", 0)
    limits = ("max_epochs", max_epochs, done), ("max_steps", ours.get("trainer.max_steps"), steps)
    for name, limit, reached in limits:
        if stage == "fit" and limit is not None and 0 <= limit <= reached:
            raise UsageError(
                f"trainer.{name}={limit}: {path} has been trained for {reached} {name[4:]}; "
                f"to go on give more, such as --trainer.{name}={2 * reached}"
            )
