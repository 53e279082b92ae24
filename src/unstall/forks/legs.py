"""One module at several learning rates, none trained further than it is asked for, and never over the same steps twice.

What is gone on with ends where it would have ended without the pause: weights, optimizer and schedules go on, as do
the batches and the random numbers, such as dropout's, and the trainer says the same step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from torch import nn

from unstall.trials import Outcome, Score, Variant

LARGEST = 2**26
"""Bytes of weights of which a dozen states are kept, each with an optimizer's two moments: 2.4 GB at most. A larger
module is trained from its start instead."""

Rate = float | None
"""A learning rate; None: the configured one."""

Measure = Callable[[Mapping[str, Any]], float | None]
"""Says how good weights are: a share of right answers, or of the variance explained; None if that is not seen."""


@dataclass(frozen=True)
class Legs:
    """What became of a module at each learning rate, after how many steps.

    Args:
        race: Trains variants from one step to another, and returns their outcomes there; where their states
            are missing, they are trained from their start again.
        known: Outcomes by learning rate and number of steps.
        measured: How good they are, where that was asked for.
    """

    race: Callable[[Sequence[Variant], int, int], list[Outcome]]
    known: dict[tuple[Rate, int], Outcome] = field(default_factory=dict)
    measured: dict[tuple[Rate, int], float | None] = field(default_factory=dict)

    def at(self, rates: Sequence[Rate], steps: int) -> list[Outcome]:
        """Return what becomes of the module at each rate in so many steps from its start, with all of their losses."""
        waiting: dict[int, list[Rate]] = {}
        for rate in dict.fromkeys(rates):
            if (rate, steps) not in self.known:
                waiting.setdefault(self._reached(rate, steps), []).append(rate)
        for first, together in waiting.items():
            self._train(together, first, steps)
        return [self.known[rate, steps] for rate in rates]

    def scores(self, rates: Sequence[Rate], steps: int) -> list[Score]:
        """Return what the outcomes come to on the held-out batches."""
        return [Score.of(outcome) for outcome in self.at(rates, steps)]

    def best_measured(
        self, rates: Sequence[Rate], lengths: Sequence[int], measure: Measure
    ) -> list[tuple[Rate, Score]]:
        """Return how good the module is at the last of these numbers of steps; not where that is not seen.

        Of more than two rates, the two that are best at the end of each length but the last go on; of equally good
        ones, those with the lower loss.

        Args:
            rates: Learning rates.
            lengths: Optimizer steps since the start, ascending.
            measure: Of a state dict; called once for each of them.
        """
        for steps in lengths[:-1]:
            if len(rates) > 2:
                found = self._measured(rates, steps, measure)
                rates = [rate for rate, _ in sorted(found, key=lambda each: _order(each[1]))[:2]]
        return self._measured(rates, lengths[-1], measure)

    def _measured(self, rates: Sequence[Rate], steps: int, measure: Measure) -> list[tuple[Rate, Score]]:
        found = []
        for rate, outcome in zip(rates, self.at(rates, steps), strict=True):
            if (rate, steps) not in self.measured:
                self.measured[rate, steps] = None if outcome.state is None else measure(outcome.state.weights)
            quality = self.measured[rate, steps]
            if quality is not None:
                late = outcome.losses[-max(1, len(outcome.losses) // 4) :]
                found.append((rate, Score(fmean(late) if late else math.inf, quality)))
        return found

    def trained(self, steps: int) -> list[Rate]:
        """Return the rates that have made so many steps."""
        return [rate for rate, end in self.known if end == steps]

    def _reached(self, rate: Rate, steps: int) -> int:
        """Return the last step from which a rate can go on: where its state was kept, or where it diverged."""
        known = self.known.items()
        return max(
            (end for (other, end), outcome in known if other == rate and end < steps and _ready(outcome)), default=0
        )

    def _train(self, rates: Sequence[Rate], first: int, steps: int) -> None:
        before = {rate: self.known[rate, first] for rate in rates} if first else {}
        self.known.update({(rate, steps): outcome for rate, outcome in before.items() if not outcome.finite})
        going = [rate for rate in rates if (rate, steps) not in self.known]
        if not going:
            return
        try:
            starts = {rate: outcome.state for rate, outcome in before.items()}
            outcomes = self.race([Variant(rate, start=starts.get(rate)) for rate in going], first, steps)
        except Exception:
            if not first:
                raise
            before = {}  # what it makes meanwhile, such as a buffer, does not load: the whole way, then
            outcomes = self.race([Variant(rate) for rate in going], 0, steps)
        for rate, outcome in zip(going, outcomes, strict=True):
            earlier = before[rate].losses if rate in before else []
            self.known[rate, steps] = replace(outcome, losses=[*earlier, *outcome.losses])
            if rate in before:
                self.known[rate, first] = replace(before[rate], state=None)  # nobody goes on from there again


def small(module: nn.Module) -> bool:
    """Return whether many states of a module can be kept."""
    return sum(weight.nbytes for weight in module.parameters()) <= LARGEST


def looks(module: nn.Module, short: int, steps: int) -> list[int]:
    """Return after how many steps rates are compared: a short trial and the whole, which is all of a large module."""
    return [short, steps] if short < steps and small(module) else [steps]


def _order(score: Score) -> tuple[float, float]:
    return -(score.accuracy or 0.0), score.loss


def _ready(outcome: Outcome) -> bool:
    return outcome.state is not None or not outcome.finite
