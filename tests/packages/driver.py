"""Takes a package's module through everything, as it is: fits at many rates, the search, the diagnosis of two stalls.

A case is a Python module of this folder with `PACKAGE` (the distribution's name), `EPOCHS`, `module()` and `data()`,
which returns what `Trainer.fit` takes; and `SEEDS`, where a loss wavers so much from fit to fit that one says little
of a rate: how many are averaged. Nothing in it knows of Unstall.
"""

from __future__ import annotations

import math
import os
import platform
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

import unstall

DECADES = [10.0**k for k in range(-6, 1)]
"""The grid; it goes on to beyond the pick and the best."""

GOOD = 0.95
"""Share of the progress of the grid's best rate, from where the lowest leaves the loss, that is as good."""

STALLED = 0.5
"""Share of it below which a fit has stalled."""

HIGH, LOW = 1e3, 1e-4
"""How far from the pick the rates of the stalls are."""

NAMES_THE_RATE = {
    "too_high": (unstall.Cause.TOO_HIGH, unstall.Cause.NON_FINITE, unstall.Cause.DEAD_FROM_RATE),
    "too_low": (unstall.Cause.TOO_LOW,),
}
"""What is right to say of each stall."""


class Losses(pl.Callback):
    """The training loss of each step, as `training_step` returned it."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs
        self.values.append(float(loss))

    @property
    def late(self) -> float:
        """The mean of the last quarter; infinite if any is not finite."""
        finite = bool(self.values) and all(map(math.isfinite, self.values))
        return fmean(self.values[len(self.values) * 3 // 4 :]) if finite else math.inf


@dataclass(frozen=True)
class Fits:
    """Fits of one case, each from the same weights on the same batches."""

    case: ModuleType
    seed: int
    folder: Path

    def trainer(self, rate: float | None = None, *callbacks: pl.Callback, **arguments: Any) -> pl.Trainer:
        """Return the trainer of the case, at another rate than its own if one is given."""
        given = [] if rate is None else [unstall.LearningRate(rate)]
        return pl.Trainer(
            accelerator="cpu",
            max_epochs=self.case.EPOCHS,
            callbacks=[*callbacks, *given],
            default_root_dir=self.folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{"logger": False, **arguments},
        )

    def made(self) -> tuple[pl.LightningModule, Any]:
        """Return the module and the data."""
        pl.seed_everything(self.seed, verbose=False)
        return self.case.module(), self.case.data()

    def fit(self, trainer: pl.Trainer) -> None:
        """Train as whoever wrote the package would."""
        module, data = self.made()
        if isinstance(data, pl.LightningDataModule):
            trainer.fit(module, datamodule=data)
        else:
            trainer.fit(module, *data)

    def reached(self, rate: float) -> float:
        """Return the late loss of fits at a rate, the mean over the seeds of the case."""
        return fmean(replace(self, seed=self.seed + i)._reached(rate) for i in range(seeds_of(self.case)))

    def _reached(self, rate: float) -> float:
        """Return that of one; infinite if the module gives up."""
        losses = Losses()
        try:
            self.fit(self.trainer(rate, losses))
        except (ValueError, RuntimeError):  # as a distribution does whose parameters are NaN
            if not losses.values or math.isfinite(losses.values[-1]):
                raise
        return losses.late


def seeds_of(case: ModuleType) -> int:
    """Return how many fits a rate of a case is judged by."""
    return int(getattr(case, "SEEDS", 1))


def examine(case: ModuleType, seed: int, folder: Path) -> dict[str, Any]:
    """Return the row of a case: what each instrument made of it, and whether that was right."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Lightning, torch and the packages: they are as they are
        fits = Fits(case, seed, folder)
        module, data = fits.made()
        row: dict[str, Any] = {
            "package": case.PACKAGE,
            "version": version(case.PACKAGE),
            "module": type(module).__name__,
            "seed": seed,
            "fits": seeds_of(case),
            "machine": f"{os.cpu_count()}-core {platform.machine()} CPU, torch {version('torch')}",
        }
        watch, losses = unstall.Diagnosis(), Losses()
        logged = TensorBoardLogger(folder, name="fit")
        fits.fit(fits.trainer(None, losses, watch, unstall.History(), unstall.Curves(), logger=logged))
        row |= {"steps": len(losses.values), "fit": str(watch.verdict.cause.value) if watch.verdict else None}

        search = unstall.find_learning_rate(module, data, fits.trainer())
        grid = {rate: fits.reached(rate) for rate in DECADES}
        while max(grid) < 5 * search.learning_rate or min(grid, key=lambda rate: grid[rate]) == max(grid):
            grid[10 * max(grid)] = fits.reached(10 * max(grid))
        start, best = grid[DECADES[0]], min(grid, key=lambda rate: grid[rate])

        def progress(rate: float) -> float:
            loss = grid[rate] if rate in grid else fits.reached(rate)
            return round(max(-1.0, (start - loss) / (start - grid[best])), 3)  # no worse than this is told apart

        row |= {"pick": search.learning_rate, "best": best, "progress": progress(search.learning_rate)}
        finite = {rate: round(loss, 4) if math.isfinite(loss) else None for rate, loss in grid.items()}
        row["losses"] = {f"{rate:.0e}": loss for rate, loss in finite.items()}
        for stall, factor in ("too_high", HIGH), ("too_low", LOW):
            row[stall] = diagnosed(fits, stall, float(f"{factor * search.learning_rate:.1e}"), progress)
    return row


def diagnosed(fits: Fits, stall: str, rate: float, progress: Callable[[float], float]) -> dict[str, Any]:
    """Return what is said of fits at a rate that stalls, and what the fix comes to in a whole fit."""
    came_to = progress(rate)
    module, data = fits.made()
    report = unstall.diagnose(module, data, fits.trainer(rate))
    fixed = None if report.fix is None else report.fix.learning_rate
    said = report.verdict.cause
    return {
        "rate": rate,
        "progress": came_to,
        "stalls": came_to < STALLED,
        "cause": str(getattr(said, "value", said)),
        "right": said in NAMES_THE_RATE[stall],
        "sentence": report.verdict.sentence,
        "fix": None if report.fix is None else report.fix.change,
        "mended": None if fixed is None else progress(fixed),
    }
