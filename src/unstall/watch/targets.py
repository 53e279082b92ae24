"""What is noted of the targets: the loss of the best constant prediction, and whether labels come in order."""

from statistics import fmean

import torch
from torch import Tensor

from unstall.watch.signals import entropy, over

LABELS_COUNTED = 100_000
"""Labels counted for the class prior: its entropy is then off by (classes - 1) / 200,000 nats (Miller, 1955)."""

WITHIN, LABELS_WITHIN = 200, 16
"""Batches whose labels are looked at one by one, and how many labels each needs for that."""


class TargetCounts:
    """Targets of a run: labels are counted, of numbers the moments are kept. All stay on their device until `flush()`.

    `kind` and `class_weights` are those of the loss's `Reference`; None counts integers as labels.
    """

    KEPT = ("class_counts", "_labels")
    NEW = ("moments",)
    """Kept since later: not in every checkpoint."""

    def __init__(self) -> None:
        self.kind: str | None = None
        self.class_weights: tuple[float, ...] = ()
        self.class_counts: list[int] | None = []
        self.moments: list[list[float]] = []
        self._labels = 0
        self._pending: list[Tensor] = []
        self._pending_moments: list[Tensor] = []
        self._within: list[float] = []
        self._drawn: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether enough targets were noted."""
        return self._labels >= LABELS_COUNTED

    def after_batch(self, targets: Tensor) -> None:
        """Note the targets of a batch."""
        if self.complete:
            return
        if self.kind in ("binary", "squares"):
            if targets.ndim:
                columns = targets.detach().reshape(len(targets), -1).double()
                counts = columns.new_full(columns.shape[1:], len(columns))
                self._pending_moments.append(torch.stack([counts, columns.sum(0), columns.square().sum(0)]))
                self._labels += targets.numel()
        elif targets.is_floating_point() or targets.is_complex():
            self.class_counts = None
        elif self.class_counts is not None:
            self._pending.append(targets.detach())
            self._labels += targets.numel()

    def flush(self) -> None:
        """Bring what was noted since the last call to the host."""
        if self._pending:
            for targets in self._pending[: WITHIN - len(self._within)]:
                if targets.ndim == 1 and len(targets) >= LABELS_WITHIN and not (targets < 0).any():
                    self._within.append(entropy(torch.bincount(targets.cpu()).tolist()))
                    self._drawn.append(len(targets))
            labels = torch.cat([targets.reshape(-1) for targets in self._pending]).cpu().long()
            self._pending = []
            known = self.class_counts or []
            counts = torch.bincount(labels[labels >= 0], minlength=len(known))
            counts[: len(known)] += torch.tensor(known, dtype=torch.long)
            self.class_counts = counts.tolist()
        if self._pending_moments:
            moments = torch.stack(self._pending_moments).sum(0).cpu()
            self._pending_moments = []
            self.moments = (
                moments + torch.tensor(self.moments, dtype=torch.float64) if self.moments else moments
            ).tolist()

    @property
    def commonest(self) -> float | None:
        """Share of the commonest label; None if the loss weights them, or if only one is seen and no loss takes it.

        Of many columns of zeros and ones, that of the zeros or of the ones in all of them.
        """
        if self.kind == "binary" and self.moments:
            ones, count = sum(self.moments[1]), sum(self.moments[0])
            return max(ones, count - ones) / count
        counts = self.class_counts or []
        known = (len(counts) > 1 or self.kind == "classes") and sum(counts) > 0 and not self.class_weights
        return max(counts) / sum(counts) if known else None

    def label_spread(self) -> float | None:
        """Return the mean entropy of labels within a batch over that of as many drawn at random from all of them.

        The entropy of n labels drawn from k classes is lower than theirs by about (k - 1) / 2n (Miller, 1955).
        """
        if len(self._within) < 8 or not self.class_counts:
            return None
        excess = (sum(count > 0 for count in self.class_counts) - 1) / 2
        whole = entropy(self.class_counts)
        expected = fmean(max(0.0, whole - excess / drawn) for drawn in self._drawn)
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
