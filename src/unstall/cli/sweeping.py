"""`unstall sweep`: many fits, each an ordinary run, made by processes side by side that share one study."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

from unstall.cli.display import program
from unstall.cli.parser import flat, without
from unstall.cli.parser import options as options_of
from unstall.cli.reading import load
from unstall.cli.workers import search, usual_workers
from unstall.errors import UsageError
from unstall.runs import CONFIG, PLACES, RunLogger, png, quantity_of, write

if TYPE_CHECKING:
    from unstall.sweep import Plan, Shared

FOLDER = "sweep"
"""Beside the runs of an experiment: what the sweep knows of them."""
STUDY, BEST, PICTURE = "study.db", "best.yaml", "sweep.png"
NOT_COMPARED = {*PLACES, "default_root_dir", "enable_progress_bar", "accelerator", "devices"}
"""Settings by which two studies may differ: where, and with what, but not what."""
USUAL_TRIALS = 30


@dataclass(frozen=True)
class Options:
    """What was asked for; see `Trainer.sweep`."""

    space: Any
    method: str
    trials: int | None
    metric: str | None
    mode: str | None
    prune: str
    workers: int | None
    storage: str | None


@dataclass(frozen=True)
class Trials:
    """How trials are made.

    Args:
        words: Of `fit`, with which each begins.
        config: What those come to, resolved.
        check: Refuses words that are not as the parser has them.
    """

    words: list[str]
    config: dict[str, Any]
    check: Callable[[list[str]], Any]


def words_of_fit(args: list[str]) -> list[str]:
    """Return the words of `fit` with which every trial begins: those of `sweep` without what is its own.

    A config file that holds the space stands there as text, without it.
    """
    own = [field.name for field in fields(Options)]
    kept = args[1:]
    for name in own:
        kept = without(kept, f"--{name}")
    for index, word in enumerate(kept):
        option, equals, value = word.partition("=")
        if index and kept[index - 1] in ("-c", "--config"):
            start, value = "", word
        elif option in ("-c", "--config") and equals:
            start = f"{option}="
        else:
            continue
        if not _is_text(value) and os.path.isfile(value):  # noqa: PTH113 # of a long text, `Path` raises an error
            config = load(Path(value).read_text(), f"config={value}")
            if isinstance(config, dict) and set(own) & set(config):
                left = {name: inner for name, inner in config.items() if name not in own}
                kept[index] = start + yaml.safe_dump(left, sort_keys=False)
    return ["fit", *kept]


def plan_of(options: Options, trainer: pl.Trainer, config: dict[str, Any], folder: Path, seed: int) -> Plan:
    """Return the study that was asked for.

    Args:
        options: What was asked for.
        trainer: Of the base config: its checkpoints say what is optimized, if nothing else does.
        config: The resolved base config.
        folder: Where what the sweep knows is kept.
        seed: Of what is chosen by chance.

    Raises:
        UsageError: names what is missing or out of range.
    """
    from unstall.sweep import METHODS, PRUNERS, Plan, Space

    for name, value, known in ("method", options.method, METHODS), ("prune", options.prune, PRUNERS):
        if value not in known:
            raise UsageError(f"{name}={value}: is not known; choose one of {', '.join(known)}")
    for name, number in ("trials", options.trials), ("workers", options.workers):
        if number is not None and number < 1:
            raise UsageError(f"{name}={number}: give at least 1")
    grid = options.method == "grid"
    if grid and options.trials is not None:
        raise UsageError(
            f"trials={options.trials}: a grid has as many as its space; leave it out, or choose a --method"
        )
    Space(options.space, grid)
    metric, maximize = goal(options, trainer)
    trials = None if grid else options.trials or USUAL_TRIALS
    base = {name: value for name, value in flat(config).items() if name.rpartition(".")[2] not in NOT_COMPARED}
    base = {name: value for name, value in base.items() if name not in ("experiment", "logs_dir")}
    plain = yaml.safe_load(yaml.safe_dump({"base": base, "space": options.space}))  # what a database gives back
    storage = options.storage or f"sqlite:///{(folder / STUDY).absolute()}"
    epochs = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else None
    return Plan(
        name=config["experiment"],
        storage=storage,
        space=plain["space"],
        base=plain["base"],
        method=options.method,
        trials=trials,
        metric=metric,
        maximize=maximize,
        pruner=options.prune,
        epochs=epochs,
        seed=seed,
    )


def goal(options: Options, trainer: pl.Trainer) -> tuple[str, bool]:
    """Return what is optimized, and whether more of it is better: as was asked for, else as the checkpoints have it.

    Raises:
        UsageError: if neither says so.
    """
    if options.mode not in (None, "min", "max"):
        raise UsageError(f"mode={options.mode}: give min or max")
    monitors = [
        (callback.monitor, callback.mode)
        for callback in vars(trainer)["callbacks"]
        if isinstance(callback, ModelCheckpoint) and callback.monitor
    ]
    if options.metric is None:
        if not monitors:
            raise UsageError("metric: no checkpoint says what to optimize; give it, such as --metric=val/loss")
        metric, mode = monitors[0]
        return metric, (options.mode or mode) == "max"
    usual = {"loss": "min", "accuracy": "max"}.get(quantity_of(options.metric) or "")
    found = options.mode or dict(monitors).get(options.metric) or usual
    if found is None:
        raise UsageError(
            f"mode: is {options.metric} to be as low or as high as possible? give --mode=min or --mode=max"
        )
    return options.metric, found == "max"


def sweep(options: Options, trainer: pl.Trainer, trials: Trials) -> None:
    """Search, and keep what was found: `best.yaml`, `sweep.png`.

    Args:
        options: What was asked for.
        trainer: Of the base config.
        trials: How each is made.

    Raises:
        UsageError: for a space that cannot be searched, or a database that cannot be used.
    """
    from unstall.data import global_seed
    from unstall.sweep import Space, open_study
    from unstall.sweep import words as as_words

    logger = trainer.logger
    if not isinstance(logger, RunLogger):
        raise UsageError("trainer.logger: a sweep's trials are told apart by their folders; leave the logger out")
    folder = Path(logger.log_dir)
    words = trials.words
    plan = plan_of(options, trainer, trials.config, folder, global_seed() or 0)
    for _, settings in Space(plan.space, plan.method == "grid").probes():
        trials.check([*words, *as_words(settings)])
    if options.storage is None:  # it lies in the folder
        folder.mkdir(parents=True, exist_ok=True)
    with open_study(plan) as shared:
        folder.mkdir(parents=True, exist_ok=True)
        shared.fill()
        if shared.is_running():
            search(plan, words, options.workers or usual_workers(trainer), shared)
        _conclude(shared, folder, words, logger)


def _conclude(shared: Shared, folder: Path, words: list[str], logger: RunLogger) -> None:
    """Say what was found, draw it, and write the best trial's settings."""
    from rich.console import Console

    from unstall.sweep import best_settings, draw, overlay, table

    Console().print(table(shared))
    picture = draw(shared)
    if picture is not None:
        write(folder / PICTURE, png(picture))
        logger.experiment.add_figure("sweep", picture, close=False)
        logger.experiment.flush()
        print(f"the picture:        {folder / PICTURE}")
    found = best_settings(shared)
    if found is None:
        raise UsageError(f"space: no trial of {folder} could be judged; see what became of them above")
    trial, settings = found
    run = Path(trial.user_attrs["run"])
    if (run / CONFIG).is_file():  # not where another machine keeps it
        best = overlay(yaml.safe_load((run / CONFIG).read_text()), {*common_settings(words), *settings})
        heading = f"# Found by unstall sweep: {shared.plan.metric} {trial.value:.4g}, in {run}.\n"
        write(folder / BEST, heading + yaml.safe_dump(best, sort_keys=False))
        print(f"to train with it:   {program()} {shlex.join([*files_and_options(words), f'--config={folder / BEST}'])}")


def common_settings(words: list[str]) -> set[str]:
    """Return the names of what the file with the space, which stands there as text, says beside it."""
    from unstall.sweep import setting_name

    texts = [text for text in options_of(words, "-c", "--config") if _is_text(text)]
    return {setting_name(name.rstrip("+")) for text in texts for name in flat(yaml.safe_load(text))}


def files_and_options(words: list[str]) -> list[str]:
    """Return the words that were typed: all but the text of a file with the space."""
    kept: list[str] = []
    for word in words:
        if not _is_text(word):
            kept.append(word)
        elif kept[-1] in ("-c", "--config"):
            kept.pop()
    return kept


def _is_text(word: str) -> bool:
    return "\n" in word
