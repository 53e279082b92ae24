"""Going on from a run: what its checkpoint and its config put before the words that were typed."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from unstall.cli.checks import check_checkpoint
from unstall.cli.parser import flat, options, without
from unstall.cli.project import with_present_names
from unstall.errors import UsageError
from unstall.runs import BEST, CONFIG, LAST, PLACES, find_checkpoint, load_checkpoint, run_of


@dataclass(frozen=True)
class TakenUp:
    """A command line that stands on a run.

    Args:
        args: The words, after those of the run's own config.
        checkpoint: What is gone on from; None if the run has none, or none is asked for.
        run_name: The name of the run that goes on; None for a new one.
    """

    args: list[str]
    checkpoint: dict[str, Any] | None = None
    run_name: str | None = None


def take_up(args: list[str], path: str) -> TakenUp:
    """Put a run's config before the words of `fit`, `validate`, `test` or `predict` with `--ckpt_path`.

    Raises:
        UsageError: if there is no such run or checkpoint.
    """
    file = find_checkpoint(path, LAST if args[0] == "fit" else BEST)
    if file is None:
        if args[0] != "fit":
            raise UsageError(f"ckpt_path={path}: this run has no checkpoint yet; let it train for an epoch first")
        words = [args[0], f"--config={path}/{CONFIG}", *without(args[1:], "--ckpt_path")]
        return TakenUp(words, run_name=Path(path).resolve().name)
    checkpoint, run = check_checkpoint(file, load_checkpoint(file)), run_of(file)
    taken = [f"--config={with_present_names(checkpoint['config'])}"] if "config" in checkpoint else []
    if run is not None:
        taken += [f"--logs_dir={run.folder.parent.parent}", f"--experiment={run.folder.resolve().parent.name}"]
    words = [args[0], *taken, *without(args[1:], "--ckpt_path"), f"--ckpt_path={file}"]
    return TakenUp(words, checkpoint, None if run is None else run.folder.resolve().name)


def take_up_for_diagnosis(args: list[str]) -> TakenUp:
    """Put a run's config before the words of `diagnose RUN`.

    Raises:
        UsageError: if no run is named, or if there is none.
    """
    path = next(reversed(options(args, "--run")), next(iter(args[1:2]), "-"))
    if path.startswith("-"):
        raise UsageError("run: diagnose needs a run; give its folder, logs/<experiment>/<run>")
    folder, file = folder_of(path), find_checkpoint(path, LAST)
    words = [word for word in without(args[1:], "--run") if word != path]
    checkpoint = check_checkpoint(file, load_checkpoint(file)) if file is not None else None
    return TakenUp([args[0], f"--config={folder / CONFIG}", f"--run={path}", *words], checkpoint)


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
    place = Path(run)
    folder = place.parent.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise UsageError(f"run={run}: no {CONFIG} there; give a run folder, logs/<experiment>/<run>")
    return folder


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
        if key.startswith(binding) and key.rpartition(".")[2] not in PLACES and ours.get(key) != theirs.get(key):
            raise UsageError(
                f"{key.replace('.init_args', '')}={ours.get(key)} contradicts {theirs.get(key)}, with which "
                f"{path} was trained; leave it out, or start a new run without --ckpt_path"
            )
    done = checkpoint["epoch"] + 1
    if stage == "fit" and max_epochs is not None and 0 <= max_epochs <= done:
        raise UsageError(
            f"trainer.max_epochs={max_epochs}: {path} has been trained for {done} epochs; "
            f"to go on give more, such as --trainer.max_epochs={2 * done}"
        )
