"""One trial while it trains: what it reports, and what ends it early."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from unstall.errors import UsageError
from unstall.runs import logged_as
from unstall.watch import Diagnosis

if TYPE_CHECKING:
    from optuna.trial import Trial


class UnmeasuredError(UsageError):
    """No trial can be judged: what is to be optimized is not logged."""


class Watch(Callback):
    """Reports a trial's validations, and stops it where its diagnosis or Optuna's pruner gives it up.

    Args:
        trial: Optuna's.
        metric: What is optimized.
        maximize: Whether more of it is better.
        by_diagnosis: Whether a verdict that is certain and hopeless ends the trial.

    Raises:
        UnmeasuredError: if the metric is not logged.
    """

    def __init__(self, trial: Trial, metric: str, maximize: bool, by_diagnosis: bool) -> None:
        self.trial, self.metric, self.maximize, self.by_diagnosis = trial, metric, maximize, by_diagnosis
        self.best: float | None = None
        self.pruned = False
        self.diagnosis: Diagnosis | None = None
        self.steps = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Have the diagnosis stop what is hopeless."""
        callbacks = vars(trainer)["callbacks"]  # Lightning sets them without declaring them
        self.diagnosis = next((callback for callback in callbacks if isinstance(callback, Diagnosis)), None)
        if self.diagnosis is not None and self.by_diagnosis:
            self.diagnosis.stop_hopeless = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report; ask whether to go on."""
        if trainer.sanity_checking:
            return
        name = logged_as(self.metric, trainer.callback_metrics)
        if name is None:
            logged = ", ".join(trainer.callback_metrics) or "nothing"
            raise UnmeasuredError(f"metric={self.metric}: is not logged, but {logged}; give one of these with --metric")
        value = float(trainer.callback_metrics[name])
        if not math.isfinite(value):
            return
        if self.best is None or (value > self.best if self.maximize else value < self.best):
            self.best = value
        self.trial.report(value, trainer.current_epoch)
        if trainer.strategy.reduce_boolean_decision(self.trial.should_prune(), all=False):
            self.pruned = trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note how far it went."""
        self.steps = trainer.global_step

    @property
    def given_up(self) -> str | None:
        """Why it was ended early or cannot be compared; None for a trial that counts."""
        if self.diagnosis is not None and self.diagnosis.stopped:
            return "diagnosis"
        if self.pruned:
            return "pruner"
        return "not finite" if self.best is None else None

    def note(self) -> None:
        """Keep with the trial what is known of it."""
        self.trial.set_user_attr("steps", self.steps)
        if self.given_up is not None:
            self.trial.set_user_attr("given_up", self.given_up)
        verdict = None if self.diagnosis is None else self.diagnosis.verdict
        if verdict is not None and verdict.stalled:
            self.trial.set_user_attr("cause", verdict.cause.value)
            self.trial.set_user_attr("sentence", verdict.sentence)
        if self.best is not None:
            self.trial.set_user_attr("best", self.best)
