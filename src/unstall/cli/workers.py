"""The processes of a sweep, side by side: each makes trials until none is left."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.accelerators import CPUAccelerator

from unstall.errors import UsageError

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from unstall.sweep import Plan, Shared, Watch

LONGEST_END = 30
"""Seconds that a process has to end its batch."""


def train(words: list[str], settings: dict[str, Any], watch: Watch) -> None:
    """Make one trial: `fit` with these settings, in a run's folder of its own, in silence.

    Args:
        words: Of `fit`.
        settings: By dotted name.
        watch: The callback that reports.
    """
    from unstall.cli.commands import CLI
    from unstall.sweep import words as as_words

    class Trial(CLI):
        def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
            self.config_init.fit.trainer.enable_progress_bar = False  # not in the run's config
            trainer = super().instantiate_trainer(**kwargs)
            vars(trainer)["callbacks"].append(watch)
            return trainer

        def before_fit(self) -> None:
            super().before_fit()
            watch.trial.set_user_attr("run", str(self.folder))

    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        Trial([*words, *as_words(settings)])


def make_trials(plan: Plan, words: list[str], wanted: Callable[[], bool] = lambda: True) -> None:
    """Make trials of a study until none is left.

    Raises:
        UsageError: if the database is locked, full or gone, or if no trial can be judged.
    """
    from unstall.sweep import open_study, work

    with open_study(plan) as shared:
        work(shared, lambda settings, watch: train(words, settings, watch), wanted)


def _process(plan: Plan, words: list[str], threads: int) -> None:
    """What a process of its own does."""
    from unstall.cli.ending import ENDING
    from unstall.cli.entry import fail, prepare

    parent = multiprocessing.parent_process()
    assert parent is not None
    torch.set_num_threads(threads)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere), ENDING.awaited(["sweep"]):
            prepare()
            make_trials(plan, words, parent.is_alive)
    except UsageError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'the disk'}: {error.strerror}; make room, the same command goes on")


def search(plan: Plan, words: list[str], workers: int, shared: Shared) -> None:
    """Make all trials, in this process or in several, and show how far they are.

    Raises:
        UsageError: see `make_trials`.
        SystemExit: with 2, after a process has said what is wrong.
    """
    from rich.console import Console

    from unstall.sweep import progress

    with progress(shared, Console(stderr=True)):
        if workers == 1:
            make_trials(plan, words)
            return
        context = multiprocessing.get_context("spawn")
        threads = max(1, cores() // workers)
        processes: list[BaseProcess] = [
            context.Process(target=_process, args=(plan, words, threads), daemon=True) for _ in range(workers)
        ]
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join()
        finally:
            for process in processes:
                if process.is_alive():
                    process.terminate()
            for process in processes:
                if process.pid is not None:
                    process.join(LONGEST_END)
                    process.kill()
                    process.join()
    codes = [process.exitcode for process in processes]
    if 2 in codes:
        raise SystemExit(2)
    if all(codes):
        raise UsageError(f"workers={workers}: all were ended (exit codes {codes}); the same command goes on")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def usual_workers(trainer: pl.Trainer) -> int:
    """Return how many processes fill the cores; one where something else does the work."""
    return max(1, cores() // torch.get_num_threads()) if isinstance(trainer.accelerator, CPUAccelerator) else 1
