"""Which of several trials went best, and whether by enough to matter. Arithmetic only: nothing is trained here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstall.race import Outcome
from unstall.signals import find_targets

HELPS, MATTERS = 0.8, 0.05
"""A change helps if it takes a fifth off the error, and a twentieth of what can be had: five points of accuracy, or,
where no accuracy is logged, that share of the best constant prediction's loss. `benchmarks/diagnosis.py` calls a run
stalled that falls five points short."""

AT_CHANCE = 0.95
"""Share of the loss of the best constant prediction above which nothing was learned."""

TIE = 1.03
"""Losses that differ by less are equal: such a lead is noise (`benchmarks/diagnosis.py forks`)."""

ACCURACY = "accuracy", "acc"
"""How the name of a logged accuracy ends, after a slash or an underscore."""


@dataclass(frozen=True)
class Score:
    """What a trial came to on the held-out samples.

    Args:
        loss: Mean loss; infinite if it diverged.
        accuracy: Share of right answers; None if the module's `training_step` logs none, or if it diverged.
    """

    loss: float
    accuracy: float | None = None

    @classmethod
    def of(cls, outcome: Outcome) -> "Score":
        """Read the score off a race's outcome; of several accuracies, the first that was logged."""
        logged = outcome.held_out_metrics.items() if outcome.finite else ()
        found = (value for name, value in logged if name.lower().replace("/", "_").split("_")[-1] in ACCURACY)
        return cls(outcome.held_out_loss, next(found, None))


@dataclass(frozen=True)
class Judge:
    """Compares scores: by accuracy, if it is known and above chance, else by loss.

    Accuracy is what most runs are made for, and a loss says little of it where a network is sure of its mistakes: once
    the training samples are learned by heart, the held-out loss grows while the accuracy stays.

    Args:
        reference: Loss of the best constant prediction.
        chance: Accuracy of the same; None if the targets are not classes.
        samples: Number of held-out samples.
    """

    reference: float
    chance: float | None = None
    samples: int = 0

    @classmethod
    def over(cls, held_out: Sequence[object], reference: float) -> "Judge":
        """Return the judge of trials that are held to these batches."""
        targets = [target for batch in held_out if (target := find_targets(batch)) is not None and target.ndim == 1]
        if len(targets) < len(held_out) or any(target.is_floating_point() for target in targets):
            return cls(reference)
        _, counts = torch.unique(torch.cat(targets), return_counts=True)
        return cls(reference, float(counts.max() / counts.sum()), int(counts.sum()))

    def learned(self, score: Score) -> bool:
        """Return whether a trial did better than the best constant prediction."""
        return score.loss <= AT_CHANCE * self.reference or self._by_accuracy([score])

    def best(self, scores: Sequence[Score]) -> int:
        """Return the index of the lowest loss among all scores whose accuracy is as good as the highest.

        As good: within one standard error (binomial), the rule of Breiman et al., "Classification and Regression
        Trees", 1984.
        """
        return min(self._candidates(scores), key=lambda i: scores[i].loss)

    def safest(self, scores: Sequence[Score]) -> int:
        """Return the index of the last score that is as good as the best one.

        Given with rates going down, that is the one furthest from the edge where training breaks.
        """
        least = scores[self.best(scores)].loss
        return max(i for i in self._candidates(scores) if scores[i].loss <= max(TIE * least, least))

    def helps(self, before: Score, after: Score) -> bool:
        """Return whether the difference is one that matters."""
        errors, whole = self._errors(before, after)
        return errors[1] < HELPS * errors[0] and errors[0] - errors[1] > MATTERS * whole

    def worse(self, score: Score, other: Score) -> bool:
        """Return whether one score is behind the other by more than a tenth."""
        (one, another), _ = self._errors(score, other)
        return one > 1.1 * another

    def ratio(self, before: Score, after: Score) -> float:
        """Return the error after a change over the one before, as `helps` compares them."""
        errors, _ = self._errors(before, after)
        return errors[1] / errors[0] if errors[0] else 1.0

    def _candidates(self, scores: Sequence[Score]) -> list[int]:
        if not self._by_accuracy(scores):
            return list(range(len(scores)))
        highest = max(score.accuracy or 0.0 for score in scores)
        enough = highest - math.sqrt(highest * (1 - highest) / self.samples)
        return [i for i, score in enumerate(scores) if (score.accuracy or 0.0) >= enough]

    def _by_accuracy(self, scores: Sequence[Score]) -> bool:
        known = [score.accuracy for score in scores if score.accuracy is not None]
        return self.chance is not None and max(known, default=0.0) > self.chance + MATTERS

    def _errors(self, before: Score, after: Score) -> tuple[tuple[float, float], float]:
        """Return two errors, and what can be had: shares of wrong answers, or losses."""
        if before.accuracy is not None and after.accuracy is not None and self._by_accuracy([before, after]):
            return (1 - before.accuracy, 1 - after.accuracy), 1.0
        return (before.loss, after.loss), self.reference
