"""Which of several trials went best, and whether by enough to matter. Arithmetic only: nothing is trained here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unstall.data import find_targets
from unstall.runs import quantity_of
from unstall.trials.batches import classes_in
from unstall.trials.variants import Outcome

HELPS, MATTERS = 0.8, 0.05
"""A change helps if it takes a fifth off the error, and that matters: five points of accuracy, or a twentieth of the
best constant prediction's loss. What it mends was a stall if, where accuracy is known, those are five points of it:
`benchmarks/diagnosis.py` calls a run stalled that falls five points short."""


AT_CHANCE = 0.95
"""Share of the loss of the best constant prediction above which nothing was learned."""


TIE = 1.03
"""Losses that differ by less are equal: such a lead is noise (`benchmarks/diagnosis.py forks`)."""


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
        found = (value for name, value in logged if quantity_of(name) == "accuracy")
        return cls(outcome.held_out_loss, next(found, None))


@dataclass(frozen=True)
class Judge:
    """Compares scores: by accuracy, if it is known and well above chance, else by loss.

    Accuracy is what most runs are made for, and a loss says little of it where a network is sure of its mistakes: once
    the training samples are learned by heart, the held-out loss grows while the accuracy stays.

    Args:
        reference: Loss of the best constant prediction.
        chance: Accuracy of the same; None if the targets are not classes.
        samples: Number of held-out samples.
        down_to_zero: Whether zero is the least that the loss can be. Shares of another loss mean nothing: a contrastive
            one has a floor, the logarithm of a density has none. Of such a loss it is progress that counts, from the
            reference to the better of the two that are compared.
    """

    reference: float
    chance: float | None = None
    samples: int = 0
    down_to_zero: bool = True

    @classmethod
    def over(cls, held_out: Sequence[object], reference: float, *, down_to_zero: bool = True) -> "Judge":
        """Return the judge of trials that are held to these batches."""
        targets = [target for batch in held_out if (target := find_targets(batch)) is not None]
        classes = [found for target in targets if (found := classes_in(target)) is not None]
        if not classes or len(classes) < len(held_out):
            return cls(reference, down_to_zero=down_to_zero)
        _, counts = torch.unique(torch.cat(classes), return_counts=True)
        return cls(reference, float(counts.max() / counts.sum()), int(counts.sum()), down_to_zero)

    def learned(self, score: Score) -> bool:
        """Return whether a trial did better than the best constant prediction."""
        share = AT_CHANCE if self.reference > 0 else 2 - AT_CHANCE
        return score.loss <= share * self.reference or self._by_accuracy([score])

    def best(self, scores: Sequence[Score]) -> int:
        """Return the index of the lowest loss among all scores whose accuracy is as good as the highest.

        As good: within one standard error (binomial), the rule of Breiman et al., "Classification and Regression
        Trees", 1984.
        """
        return min(self._candidates(scores), key=lambda i: scores[i].loss)

    def better_of(self, *scores: Score) -> Score:
        """Return the best of a few scores."""
        return scores[self.best(scores)]

    def safest(self, scores: Sequence[Score]) -> int:
        """Return the index of the last score that is as good as the best one.

        Given with rates going down, that is the one furthest from the edge where training breaks.
        """
        least = scores[self.best(scores)].loss
        tie = least if self.down_to_zero else self.reference - least
        highest = least + max(0.0, (TIE - 1) * tie) if math.isfinite(tie) else least
        return max(i for i in self._candidates(scores) if scores[i].loss <= highest)

    def helps(self, before: Score, after: Score) -> bool:
        """Return whether the difference is one that matters."""
        gains = before.loss - after.loss > MATTERS * abs(self.reference)
        if before.accuracy is not None and after.accuracy is not None:
            gains |= after.accuracy - before.accuracy > MATTERS
        return gains and self.ratio(before, after) < HELPS

    def mends(self, before: Score, after: Score) -> bool:
        """Return whether the difference is one between a stall and a healthy run."""
        accuracies = self._accuracies(before, after)
        room = before.accuracy is None or before.accuracy < 1 - MATTERS
        gains = accuracies is None or accuracies[1] - accuracies[0] > MATTERS
        return self.helps(before, after) and room and gains

    def progress(self, before: Score, after: Score) -> float:
        """Return how far the run had come already: its share of the way from the best constant prediction.

        The way is that to the better of the two, by accuracy if it decides, else by loss.
        """
        accuracies = self._accuracies(before, after)
        if accuracies is not None and self.chance is not None:
            gone, way = (accuracy - self.chance for accuracy in (accuracies[0], max(accuracies)))
        else:
            gone, way = (self.reference - loss for loss in (before.loss, min(before.loss, after.loss)))
        return gone / way if way > 0 and math.isfinite(gone) else 0.0

    def worse(self, score: Score, other: Score) -> bool:
        """Return whether one score is behind the other by more than a tenth, and by more than a standard error."""
        accuracies = self._accuracies(score, other)
        if accuracies is not None and accuracies[1] - accuracies[0] <= self._standard_error(accuracies[1]):
            return False
        return self.ratio(other, score) > 1.1

    def ratio(self, before: Score, after: Score) -> float:
        """Return the error after a change over the one before: the share of wrong answers, or the loss.

        Of a loss that does not end at zero, 1 less the share of all progress that the change brings.
        """
        accuracies = self._accuracies(before, after)
        if accuracies is None and not self.down_to_zero:
            return self._without_progress(before.loss, after.loss)
        errors = (before.loss, after.loss) if accuracies is None else (1 - accuracies[0], 1 - accuracies[1])
        return errors[1] / errors[0] if errors[0] else 1.0

    def _without_progress(self, before: float, after: float) -> float:
        if not math.isfinite(before) or not math.isfinite(after):
            return 1.0 if before == after else 0.0 if math.isfinite(after) else math.inf
        progress = max(self.reference - min(before, after), MATTERS * abs(self.reference))
        return max(0.0, 1 - (before - after) / progress) if progress else 1.0

    def _accuracies(self, before: Score, after: Score) -> tuple[float, float] | None:
        """Return both accuracies if they decide between the two, else None: their losses do."""
        if before.accuracy is None or after.accuracy is None or not self._by_accuracy([before, after]):
            return None
        return before.accuracy, after.accuracy

    def _candidates(self, scores: Sequence[Score]) -> list[int]:
        if not self._by_accuracy(scores):
            return list(range(len(scores)))
        highest = max(score.accuracy or 0.0 for score in scores)
        enough = highest - self._standard_error(highest)
        return [i for i, score in enumerate(scores) if (score.accuracy or 0.0) >= enough]

    def _standard_error(self, accuracy: float) -> float:
        """Return that of an accuracy on the held-out samples (binomial)."""
        return math.sqrt(accuracy * (1 - accuracy) / max(1, self.samples))

    def _by_accuracy(self, scores: Sequence[Score]) -> bool:
        """Return whether any accuracy takes a fifth off the error of the best constant prediction."""
        highest = max((score.accuracy for score in scores if score.accuracy is not None), default=0.0)
        return self.chance is not None and 1 - highest < HELPS * (1 - self.chance)
