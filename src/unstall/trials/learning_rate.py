"""The rate of an optimizer: what it was made with, and what it is given in its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch

from unstall.errors import UsageError


class LearningRate(pl.Callback):
    """Trains with this rate, whatever the module's own code says: for a module without a setting for it.

    All parameter groups and schedules are scaled, as if the optimizer had been made with the rate. A run that goes on
    from a checkpoint keeps the rate of the checkpoint.

    Args:
        learning_rate: Of the first parameter group that has one; of a schedule with a peak, the peak.

    Raises:
        UsageError: if it is not positive, or if the module has several optimizers.
    """

    def __init__(self, learning_rate: float) -> None:
        if not learning_rate > 0:
            raise UsageError(f"learning_rate={learning_rate}: give a positive rate")
        self.learning_rate = learning_rate

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set it, before anybody writes down with which rate the run starts."""
        if len(trainer.optimizers) != 1:
            name = type(pl_module).__name__
            raise UsageError(
                f"unstall.LearningRate: model={name} has {len(trainer.optimizers)} optimizers, each with a rate of its "
                "own; leave the callback out"
            )
        schedulers = [schedule.scheduler for schedule in trainer.lr_scheduler_configs]
        set_learning_rate(trainer.optimizers[0], schedulers, self.learning_rate)


def learning_rate_of(groups: Iterable[Mapping[str, Any]], schedulers: Iterable[Mapping[str, Any]] = ()) -> float:
    """Return the rate of the first parameter group that has one, before any schedule.

    A group at rate 0 is frozen: no other rate has a ratio to its.
    A schedule that rises to a peak, as `OneCycleLR` and `CyclicLR` do, sets all rates itself: then it is the peak.

    Args:
        groups: Of the optimizer, or of its state.
        schedulers: The attributes of each, or its state.

    Raises:
        UsageError: if none has one.
    """
    rates = [group.get("max_lr", group.get("initial_lr", group["lr"])) for group in groups]
    for scheduler in schedulers:
        rates = scheduler.get("max_lrs", rates)
    if not any(rates):
        raise UsageError("lr=0 of every parameter group: nothing learns; give a positive rate")
    return float(next(filter(None, rates)))


def set_learning_rate(optimizer: torch.optim.Optimizer, schedulers: Iterable[Any], learning_rate: float) -> None:
    """Scale all groups and schedules, as if the optimizer had been made with this rate.

    Raises:
        UsageError: if every configured rate is 0.
    """
    schedulers = list(schedulers)
    factor = learning_rate / learning_rate_of(optimizer.param_groups, map(vars, schedulers))
    for group in optimizer.param_groups:
        for key in ("lr", "initial_lr", "max_lr", "min_lr"):  # the last two are `OneCycleLR`'s
            if key in group:
                group[key] = group[key] * factor
    for scheduler in schedulers:
        _scale(scheduler, factor)


def _scale(scheduler: Any, factor: float) -> None:
    for name in ("base_lrs", "max_lrs", "base_values"):  # the last in timm, whose schedules are no torch's
        if hasattr(scheduler, name):
            setattr(scheduler, name, [rate * factor for rate in getattr(scheduler, name)])
    for part in getattr(scheduler, "_schedulers", ()):  # SequentialLR and ChainedScheduler hold others
        _scale(part, factor)
