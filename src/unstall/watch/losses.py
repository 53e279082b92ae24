"""What is noted of the losses and the labels: the latest, the lowest, the first, and those of every epoch."""

import math
from statistics import fmean

import torch
from torch import Tensor

from unstall.watch.signals import Signals, entropy, over, turning_point

LABELS_COUNTED = 100_000
"""Labels counted for the class prior: its entropy is then off by (classes - 1) / 200,000 nats (Miller, 1955)."""


WITHIN, LABELS_WITHIN = 200, 16
"""Batches whose labels are looked at one by one, and how many labels each needs for that."""

LATEST = 50
"""Batches whose mean is the loss of the moment."""


class LossHistory:
    """Losses and labels of a run. To note some costs a list append; all stay on their device until `flush()`."""

    KEPT = (
        *("batch_size", "class_counts", "first_losses", "recent", "previous", "lowest", "epoch_losses"),
        *("training_losses", "validation_losses", "validation_epochs", "non_finite_step", "_labels", "_batches"),
    )
    NEW = ("moments",)
    """Kept since later: not in every checkpoint."""

    def __init__(self) -> None:
        self.batch_size: int | None = None
        self.kind: str | None = None
        self.class_weights: tuple[float, ...] = ()
        self.class_counts: list[int] | None = []
        self.moments: list[list[float]] = []
        self.first_losses: list[float] = []
        self.recent: list[float] = []
        self.previous: list[float] = []
        self.lowest: float | None = None
        self.epoch_losses: list[float] = []
        self.training_losses: list[float] = []
        self.validation_losses: list[float] = []
        self.validation_epochs: list[int] = []
        self.non_finite_step: int | None = None
        self._batches = self._labels = 0
        self._pending: list[Tensor] = []
        self._pending_targets: list[Tensor] = []
        self._pending_moments: list[Tensor] = []
        self._within: list[float] = []
        self._drawn: list[int] = []

    def after_batch(self, loss: Tensor, targets: Tensor | None) -> None:
        """Note a batch's mean loss, a scalar on any device, and its targets.

        Integer targets are counted as labels, unless `kind` says that the loss compares numbers (`Reference.kind`).
        """
        self._pending.append(loss.detach())
        if targets is None:
            return
        if self.kind in ("binary", "squares"):
            if self._labels < LABELS_COUNTED and targets.ndim:
                columns = targets.detach().reshape(len(targets), -1).double()
                counts = columns.new_full(columns.shape[1:], len(columns))
                self._pending_moments.append(torch.stack([counts, columns.sum(0), columns.square().sum(0)]))
                self._labels += targets.numel()
        elif self.class_counts is not None and self._labels < LABELS_COUNTED:
            if targets.is_floating_point() or targets.is_complex():
                self.class_counts = None
            else:
                self._pending_targets.append(targets.detach())
                self._labels += targets.numel()
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
        if self._pending_targets:
            for targets in self._pending_targets[: WITHIN - len(self._within)]:
                if targets.ndim == 1 and len(targets) >= LABELS_WITHIN and not (targets < 0).any():
                    self._within.append(entropy(torch.bincount(targets.cpu()).tolist()))
                    self._drawn.append(len(targets))
            labels = torch.cat([targets.reshape(-1) for targets in self._pending_targets]).cpu().long()
            self._pending_targets = []
            known = self.class_counts or []
            counts = torch.bincount(labels[labels >= 0], minlength=len(known))
            counts[: len(known)] += torch.tensor(known, dtype=torch.long)
            self.class_counts = counts.tolist()
        if self._pending_moments:
            moments = torch.stack(self._pending_moments).sum(0).cpu()
            self._pending_moments = []
            self.moments = (moments + torch.tensor(self.moments).double() if self.moments else moments).tolist()

    def label_spread(self) -> float | None:
        """Return the mean entropy of labels within a batch over that of as many drawn at random from all of them.

        The entropy of n labels drawn from k classes is lower than theirs by about (k - 1) / 2n (Miller, 1955).
        """
        if len(self._within) < 8 or not self.class_counts:
            return None
        excess = (sum(count > 0 for count in self.class_counts) - 1) / 2
        expected = fmean(max(0.0, entropy(self.class_counts) - excess / drawn) for drawn in self._drawn)
        return over(fmean(self._within), expected)

    @property
    def baseline(self) -> float | None:
        """The loss of the best constant prediction; None if there is none, or if it is not known."""
        if not self.moments:
            weights = self.class_weights or [1.0] * len(self.class_counts or ())
            counts = [count * weight for count, weight in zip(self.class_counts or (), weights, strict=False)]
            return entropy(counts) if sum(counts) else None
        columns = list(zip(*self.moments, strict=True))
        if self.kind == "binary":
            return fmean(entropy([ones, max(0.0, count - ones)]) for count, ones, _ in columns)
        return fmean(max(0.0, squares / count - (total / count) ** 2) for count, total, squares in columns)

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
        baseline = self.baseline
        initial, loss = self.first_losses[0], sum(self.recent) / len(self.recent)
        # Numbers whose mean is far from zero cost much more at first than in the best constant prediction: that says
        # nothing of the start, and being above it nothing of the rate.
        classes = baseline if self.kind in (None, "classes") else None
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
