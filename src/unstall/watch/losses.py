"""What is noted of the losses: the latest, the lowest, the first, and those of every epoch."""

import math
from statistics import fmean

import torch
from torch import Tensor

from unstall.watch.signals import Signals, over, turning_point
from unstall.watch.targets import TargetCounts

LATEST = 50
"""Batches whose mean is the loss of the moment."""


class LossHistory:
    """Losses and labels of a run. To note some costs a list append; all stay on their device until `flush()`."""

    KEPT = (
        *("batch_size", "first_losses", "recent", "previous", "lowest", "epoch_losses"),
        *("training_losses", "validation_losses", "validation_epochs", "non_finite_step", "_batches"),
    )

    def __init__(self) -> None:
        self.batch_size: int | None = None
        self.targets = TargetCounts()
        self.first_losses: list[float] = []
        self.recent: list[float] = []
        self.previous: list[float] = []
        self.lowest: float | None = None
        self.epoch_losses: list[float] = []
        self.training_losses: list[float] = []
        self.validation_losses: list[float] = []
        self.validation_epochs: list[int] = []
        self.non_finite_step: int | None = None
        self._batches = 0
        self._pending: list[Tensor] = []

    def after_batch(self, loss: Tensor, targets: Tensor | None) -> None:
        """Note a batch's mean loss, a scalar on any device, and its targets."""
        self._pending.append(loss.detach())
        if targets is None:
            return
        self.targets.after_batch(targets)
        if targets.ndim:
            self.batch_size = max(len(targets), self.batch_size or 0)

    def flush(self) -> None:
        """Bring what was noted since the last call to the host: the one synchronisation."""
        if self._pending:
            # One copy for all; under mixed precision losses may differ in type.
            losses: list[float] = torch.stack([loss.float().reshape(()) for loss in self._pending]).tolist()
            self._pending = []
            for loss in losses:
                self._note(loss)
        self.targets.flush()

    def end_epoch(self) -> None:
        """Close a training epoch: its mean loss is the one that the validation loss is compared with."""
        self.flush()
        if self.epoch_losses:
            self.training_losses.append(sum(self.epoch_losses) / len(self.epoch_losses))
            self.epoch_losses = []

    def validated(self, loss: float, epoch: int) -> None:
        """Note the validation loss of an epoch, counted from 0."""
        self.validation_losses.append(loss)
        self.validation_epochs.append(epoch)

    def read(self) -> Signals:
        """Return the signals of the losses and labels; none before the first batch. Synchronises."""
        self.flush()
        if not self.recent:
            return Signals()
        baseline = self.targets.baseline
        initial, loss = self.first_losses[0], sum(self.recent) / len(self.recent)
        # Numbers whose mean is far from zero cost much more at first than in the best constant prediction: that says
        # nothing of the start, and being above it nothing of the rate.
        classes = baseline if self.targets.kind in (None, "classes") else None
        reference = classes or max(initial, baseline or 0.0)
        early = self.first_losses[15:25]
        training = self.training_losses[-1] if self.training_losses else None
        validation = self.validation_losses[-1] if self.validation_losses else None
        turned = turning_point(self.validation_losses)
        return Signals(
            initial_loss=initial,
            loss=loss,
            baseline=baseline,
            initial_ratio=over(initial, classes),
            loss_ratio=over(loss, reference),
            blow_up=over(sum(early) / 10, max(initial, baseline or 0.0)) if len(early) == 10 else None,
            rebound=over(loss, self.lowest),
            noise=over(float(torch.tensor(self.recent).std()), loss) if len(self.recent) > 1 else None,
            non_finite_step=self.non_finite_step,
            batch_size=self.batch_size,
            training_loss=training,
            validation_loss=validation,
            generalisation_gap=validation - training if validation is not None and training is not None else None,
            turned_epoch=None if turned is None else self.validation_epochs[turned] + 1,
            rise=over(validation, min(self.validation_losses)) if validation is not None else None,
        )

    def falls_by(self) -> float | None:
        """Return by which share the latest losses are below those just before them; None if there are too few."""
        losses = [*self.previous, *self.recent]
        half = len(losses) // 2
        if half < 20 or not fmean(losses[:half]) > 0:
            return None
        return 1 - fmean(losses[half:]) / fmean(losses[:half])

    def realised_gain(self, predicted_gain: float | None) -> float | None:
        """Return what the mean loss fell by, from one window to the next, over what the steps should have gained."""
        if not predicted_gain or not self.previous or not (before := sum(self.previous) / len(self.previous)):
            return None
        loss = sum(self.recent) / len(self.recent)
        return over(before - loss, predicted_gain * loss * len(self.recent))

    def _note(self, loss: float) -> None:
        self._batches += 1
        if not math.isfinite(loss) and self.non_finite_step is None:
            self.non_finite_step = self._batches
        if len(self.first_losses) < 25:
            self.first_losses.append(loss)
        if len(self.recent) == LATEST:
            self.previous = [*self.previous, self.recent[0]][-LATEST:]
        self.recent = [*self.recent, loss][-LATEST:]
        if self._batches % LATEST == 0:
            mean = sum(self.recent) / LATEST
            self.lowest = mean if self.lowest is None else min(self.lowest, mean)
        self.epoch_losses.append(loss)
