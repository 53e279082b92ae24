"""A row per epoch: `metrics.csv`, and the same at a glance."""

import csv
import io
import math
import os
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from unstall.data import find_targets, samples_in
from unstall.errors import UsageError
from unstall.runs.files import write
from unstall.runs.folder import log_dir
from unstall.runs.glance import draw_over_epochs, forget_epochs, points_of
from unstall.runs.hyperparameters import hyperparameters_of
from unstall.runs.metrics import stage_of

METRICS = "metrics.csv"
LEVELS = "prior_loss", "constant_loss", "chance_accuracy"
"""What a network that looks at no input can reach."""

PENDING = 100
"""Batches whose labels wait to be counted together: counting makes the host wait for a device."""


class History(Callback):
    """Keeps one row per epoch in ``metrics.csv``, and draws the same numbers over the epochs in TensorBoard.

    Runs with different batch sizes take different numbers of steps for the same work; under ``at_a_glance/`` their
    curves can be compared. ``prior_loss`` (the entropy of the training labels, nats) and ``chance_accuracy`` (the
    share of the commonest label) are what a network that looks at no input can reach. Of numbers that is
    ``constant_loss``, in the unit of the loss, if another callback has an attribute of this name that knows it.
    """

    def __init__(self) -> None:
        self.samples_seen = 0
        self._counts = torch.zeros(0, dtype=torch.long)
        self._pending: list[Tensor] = []
        self.rows: list[dict[str, float]] = []
        self._measured: dict[str, Any] = {}
        self._learning_rate: Any = None

    @property
    def class_counts(self) -> Tensor:
        """How often each label came in the first epoch, int64 by label. Synchronises."""
        self._count()
        return self._counts

    def state_dict(self) -> dict[str, Any]:
        """Plain values, so that the checkpoint loads with ``weights_only=True``."""
        return {"samples_seen": self.samples_seen, "class_counts": self.class_counts.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the checkpoint was written."""
        self.samples_seen = state_dict["samples_seen"]
        self._counts, self._pending = torch.tensor(state_dict["class_counts"], dtype=torch.long), []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the rows of a run that goes on, up to the epoch it goes on from."""
        folder = log_dir(trainer)
        rows = [] if folder is None else read_metrics(folder / METRICS)
        self.rows = [row for row in rows if row["epoch"] < trainer.current_epoch]
        self._learning_rate = None
        forget_epochs(trainer)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the rate of the step: after the epoch's last one, a schedule has moved on."""
        self._learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples, and in the first epoch the classes."""
        self.samples_seen += samples_in(batch) * trainer.world_size
        if trainer.current_epoch:
            return
        targets = find_targets(batch)
        if targets is not None and targets.ndim == 1 and _are_whole(targets):
            self._pending.append(targets.detach().clone())  # it may be a view of the whole batch
            if len(self._pending) == PENDING:
                self._count()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and write the table beside the old one, then rename."""
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "samples_seen": self.samples_seen,
            "seed": int(os.environ.get("PL_GLOBAL_SEED", 0)),
        }
        hyperparameters = hyperparameters_of(trainer, pl_module)
        row |= {name: hyperparameters[name] for name in ("batch_size", "learning_rate") if name in hyperparameters}
        row |= self._levels(trainer)
        # What was not measured in this epoch, as with `check_val_every_n_epoch`, is still there, the same object.
        measured = dict(trainer.callback_metrics)
        row |= {name: float(value) for name, value in measured.items() if value is not self._measured.get(name)}
        self._measured = measured
        self.rows.append(row)
        rate = None if self._learning_rate is None else float(self._learning_rate)
        draw_over_epochs(trainer, points_of(row, rate))
        levels = {f"reference/{name}": row[name] for name in LEVELS if name in row}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics(levels, step=trainer.global_step - 1)
        folder = log_dir(trainer)
        if trainer.is_global_zero and folder is not None:
            write_metrics(folder / METRICS, self.rows)

    def _count(self) -> None:
        if not self._pending:
            return
        labels = torch.cat(self._pending).cpu().long()
        self._pending = []
        # By custom, a negative one is a sample that the loss leaves out.
        counts = torch.bincount(labels[labels >= 0], minlength=len(self._counts))
        counts[: len(self._counts)] += self._counts
        self._counts = counts

    def _levels(self, trainer: pl.Trainer) -> dict[str, float]:
        """What of `LEVELS` is known."""
        callbacks = vars(trainer)["callbacks"]  # Lightning sets them without declaring them
        constant = next((value for each in callbacks if (value := getattr(each, "constant_loss", None))), None)
        total = int(self.class_counts.sum())
        shares = self.class_counts[self.class_counts > 0].double() / max(total, 1)
        prior = float(-(shares * shares.log()).sum())
        # Whole numbers need be no labels: then the loss compares them as numbers.
        if constant is not None and not (total and math.isclose(prior, constant, rel_tol=0.01)):
            return {"constant_loss": constant}
        return {"prior_loss": prior, "chance_accuracy": float(shares.max())} if total else {}


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Read a run's ``metrics.csv``: a row per epoch; none if there is no such file.

    Raises:
        UsageError: if it is damaged: no text, or not a number in every column, or a row without its epoch.
    """
    if not file.is_file():
        return []
    try:
        with file.open(newline="") as stream:
            rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]
        numbers = [
            {str(name): int(value) if value.isdecimal() else float(value) for name, value in row.items()}
            for row in rows
        ]
    except (ValueError, AttributeError, csv.Error) as error:  # a row of more columns than there are names has a list
        raise UsageError(f"{file}: damaged, {error}; delete it, or put a sound one in its place") from None
    if not all("epoch" in row for row in numbers):
        raise UsageError(f"{file}: damaged, a row has no epoch; delete it, or put a sound one in its place")
    return numbers


def last_metrics(file: Path) -> dict[str, float]:
    """Return what was logged last under each of a run's names of metrics, from its ``metrics.csv``."""
    return {name: value for row in read_metrics(file) for name, value in row.items() if stage_of(name)}


def write_metrics(file: Path, rows: list[dict[str, float]]) -> None:
    """Write rows with a common header, beside the old file, then rename."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write(file, text.getvalue())


def _are_whole(targets: Tensor) -> bool:
    return not targets.is_floating_point() and not targets.is_complex()
