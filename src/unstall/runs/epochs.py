"""One line an epoch: what was measured in it, whatever its names."""

import re
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from unstall.runs.metrics import quantity_of, stage_of

MOST = 8
"""Metrics in a line; all of them are in `metrics.csv`."""


class EpochLines(Callback):
    """Prints a line after every epoch: losses, accuracies and whatever else the module logged in it.

    A module that logs no training metric gets the mean of the losses that its `training_step` returned.
    """

    def __init__(self) -> None:
        self._measured: dict[str, Any] = {}
        self._total: Tensor | None = None
        self._batches = 0
        self._logs_training = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the epoch's mean."""
        self._total, self._batches = None, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Add the loss, which stays on its device, for a module that logs none."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if self._logs_training or not isinstance(loss, Tensor):
            return
        loss = loss.detach().float().reshape(()) * trainer.accumulate_grad_batches  # Lightning has divided by it
        self._total = loss if self._total is None else self._total + loss
        self._batches += 1

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print the line."""
        metrics = dict(trainer.callback_metrics)  # on every rank: some are computed together
        # What was not measured in this epoch is still there, the same object.
        new = {name: float(value) for name, value in metrics.items() if value is not self._measured.get(name)}
        self._measured = metrics
        stages = {stage_of(name) or quantity_of(name) for name in new}
        self._logs_training = bool({"train", "loss"} & stages)
        if not self._logs_training and self._total is not None:
            new = {"train/loss": float(self._total / self._batches), **new}
        if not trainer.is_global_zero:
            return
        epochs = trainer.max_epochs
        number = str(trainer.current_epoch + 1)
        if epochs is not None and epochs > 0:
            number = f"{number:>{len(str(epochs))}}/{epochs}"
        pl_module.print(f"epoch {number}  {in_words(new)}")


def ordered(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return metrics in the order of reading: training, validation, others; in each the loss, then the accuracy.

    Of one that was logged for steps and epochs, only that of the epoch.
    """
    stages, quantities = ("train", "val", None), ("loss", "accuracy", None)
    once = [name for name in metrics if not (name.endswith(("_step", "_epoch")) and name.rpartition("_")[0] in metrics)]
    once.sort(key=lambda name: (stages.index(stage_of(name)), quantities.index(quantity_of(name))))
    return {name: metrics[name] for name in once}


def number(value: float) -> str:
    """Return a metric with four digits."""
    return f"{float(value):#.4g}".removesuffix(".") if abs(value) < 1e4 else f"{float(value):.4g}"


def in_words(metrics: Mapping[str, float], most: int = MOST) -> str:
    """Return `train loss 0.2921 accuracy 0.9134  val loss 0.1466 auroc 0.9`: what names of one stage share, once.

    Args:
        metrics: By any names.
        most: How many are shown; how many are not is said.
    """
    parts: list[str] = []
    current = None
    for name, value in list(ordered(metrics).items())[:most]:
        stage = stage_of(name)
        rest = re.sub(r"^(train|training|val|valid|validation)[/_]", "", name) if stage else name
        if rest == name:
            parts.append(f" {name} {number(value)}")
        else:
            parts.append(f"{rest} {number(value)}" if stage == current else f" {stage} {rest} {number(value)}")
        current = stage if rest != name else None
    left = len(ordered(metrics)) - most
    return " ".join([*parts, *([f" and {left} more"] if left > 0 else [])]).strip()
