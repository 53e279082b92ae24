"""From numbers to a cause, with its evidence and a remedy.

A verdict from signals alone is a suspicion; `forks` puts it to the test.
"""

import math
from dataclasses import dataclass

from unstall.causes import Fault
from unstall.watch.causes import EARLIEST, STALLS, Cause, describe
from unstall.watch.signals import Signals


@dataclass(frozen=True)
class Condition:
    """A signal compared with a threshold.

    Args:
        signal: A field of `Signals`.
        above: Whether the signal must be above the threshold, or below it.
        threshold: Where the line is.
        width: Factors of two that count as one step away from the threshold; less for signals that cannot go far.
    """

    signal: str
    above: bool
    threshold: float
    width: float = 1.0

    def margin(self, signals: Signals) -> float | None:
        """Return by how many factors of two (over `width`) the signal fulfils (or, negative, misses) the condition."""
        value = getattr(signals, self.signal)
        if value is None:
            return None
        if math.isnan(value):
            return math.inf if self.above else -math.inf
        factor = math.log2(max(value, 1e-30) / self.threshold) / self.width
        return factor if self.above else -factor


@dataclass(frozen=True)
class Rule:
    """A cause, and conditions that must all hold `after` so many steps; one that was not measured counts as missed."""

    cause: Cause
    conditions: tuple[Condition, ...]
    after: int = EARLIEST

    def margin(self, signals: Signals) -> float:
        """Return the smallest margin of the conditions."""
        if signals.step < self.after:
            return -math.inf
        margins = [condition.margin(signals) for condition in self.conditions]
        return min(-math.inf if margin is None else margin for margin in margins)


@dataclass(frozen=True)
class Evidence:
    """A measured value beside its threshold."""

    signal: str
    value: float
    threshold: float


SPEAK = 0.85
"""How sure the signals must be of a stall before it is said. What share of stalls that leaves, and of healthy runs that
are accused, is in docs/diagnosis.md (`benchmarks/diagnosis_report.py`)."""


@dataclass(frozen=True)
class Verdict:
    """What the signals say.

    Args:
        cause: The most likely cause, or UNSURE; or a fault that one batch showed.
        confidence: From 0.5 at a threshold to 0.95 far from all: about the share of right verdicts there
            (`benchmarks/diagnosis_report.py`).
        runner_up: The next most likely cause; for UNSURE the first two are in `candidates`.
        evidence: The values that decided, beside their thresholds.
        sentence: One sentence for a human.
        remedy: What to do, as a clause.
        step: When.
        candidates: The causes between which an UNSURE verdict cannot decide.
    """

    cause: Cause | Fault
    confidence: float
    runner_up: Cause | Fault | None
    evidence: tuple[Evidence, ...]
    sentence: str
    remedy: str
    step: int
    candidates: tuple[Cause, ...] = ()

    @property
    def stalled(self) -> bool:
        """Whether something stands in the way of training itself."""
        return self.cause in STALLS or isinstance(self.cause, Fault)

    @property
    def sure(self) -> bool:
        """Whether it is sure enough to be said of a run, where a false alarm costs more than a miss."""
        return self.confidence >= SPEAK


def _above(signal: str, threshold: float, width: float = 1.0) -> Condition:
    return Condition(signal, True, threshold, width)


def _below(signal: str, threshold: float) -> Condition:
    return Condition(signal, False, threshold)


RULES: tuple[Rule, ...] = (
    Rule(Cause.NON_FINITE, (_above("non_finite_step", 0.5),), after=0),
    Rule(
        Cause.DEAD_AT_START,
        (_above("dead_at_start", 0.9, 0.1), _above("loss_ratio", 0.9, 0.1), _below("gradient_ratio", 1e-12)),
        after=25,
    ),
    Rule(Cause.TOO_HIGH, (_above("move", 2.5), _above("loss_ratio", 0.3))),
    Rule(Cause.TOO_HIGH, (_above("blow_up", 2), _above("loss_ratio", 0.3)), after=25),
    Rule(Cause.TOO_HIGH, (_above("loss_ratio", 1.1, 0.1), _above("move", 0.5))),
    Rule(
        Cause.TOO_LOW,
        (
            _above("straightness", 0.58, 0.3),
            _below("predicted_gain", 0.2),
            _above("loss_ratio", 0.2),
            _below("move", 1),
        ),
    ),
    Rule(Cause.TOO_LOW, (_above("straightness", 0.45, 0.3), _above("loss_ratio", 0.8, 0.1), _below("move", 0.05))),
    Rule(Cause.BAD_SCALE, (_above("initial_ratio", 2), _above("loss_ratio", 0.2))),
    Rule(Cause.DEAD_FROM_RATE, (_above("dead", 0.9, 0.1), _above("loss_ratio", 0.3))),
    Rule(  # a ratio of zero is no gradient that got small on its way
        Cause.VANISHING,
        (_below("gradient_ratio", 1e-3), _above("gradient_ratio", 1e-13), _above("loss_ratio", 0.9, 0.1)),
    ),
    Rule(Cause.NOTHING_TO_LEARN, (_above("loss_ratio", 0.95, 0.05), _below("straightness", 0.5))),
    Rule(Cause.OVERFITTING, (_above("rise", 1.05), _above("validation_ratio", 2))),
    Rule(Cause.OVERFITTING, (_above("validation_ratio", 20), _below("loss_ratio", 0.02))),
)
"""In order: the first rule whose conditions all hold names the cause."""


UNSURE_BELOW = 0.1
"""Margin (factors of two) below which the next candidate is named as well."""


def name_cause(signals: Signals) -> Verdict:
    """Name the cause that explains the signals.

    Args:
        signals: What was measured; the more steps, the surer.
    """
    margins: dict[Cause, tuple[float, Rule]] = {}
    for rule in RULES:
        margin = rule.margin(signals)
        if rule.cause not in margins or margin > margins[rule.cause][0]:
            margins[rule.cause] = margin, rule
    fulfilled = [cause for cause, (margin, _) in margins.items() if margin >= 0]
    near = [cause for cause, (margin, _) in margins.items() if 0 > margin > -UNSURE_BELOW and cause in STALLS]
    cause = fulfilled[0] if fulfilled else Cause.HEALTHY
    margin = margins[cause][0] if fulfilled else min((-margins[cause][0] for cause in near), default=1.0)
    first = margins[cause][1] if fulfilled else None
    others = [other for other in [*fulfilled[1:], *near] if other != cause]
    runner_up = others[0] if others else (Cause.HEALTHY if first else None)
    evidence = _evidence(first, signals) if first else _evidence_of_health(signals)
    if margin < UNSURE_BELOW and runner_up is not None and (first is None or first.cause in STALLS):
        candidates: tuple[Cause, ...] = (cause, runner_up)
        cause = Cause.UNSURE
    else:
        candidates = ()
    confidence = 0.95 - 0.45 * 2 ** -(2 * min(margin, 20))
    if cause == Cause.HEALTHY and signals.step < EARLIEST:
        confidence = 0.5
    sentence, remedy = describe(cause, signals, candidates)
    return Verdict(cause, round(confidence, 3), runner_up, evidence, sentence, remedy, signals.step, candidates)


def hopeless(signals: Signals, verdict: Verdict, steps_left: float) -> bool:
    """Return whether the steps that are left will not save the run.

    A run that goes straight ahead might still arrive: it is hopeless only if all steps left, each as good as the
    latest, gain less than a tenth of the loss.
    """
    if verdict.cause == Cause.TOO_LOW:
        return (signals.predicted_gain or 0.0) * steps_left < 0.1
    at_chance = signals.loss_ratio is None or not signals.loss_ratio < 0.97
    return verdict.cause == Cause.NON_FINITE or (verdict.stalled and at_chance)


def _evidence(rule: Rule, signals: Signals) -> tuple[Evidence, ...]:
    return tuple(Evidence(c.signal, float(getattr(signals, c.signal)), c.threshold) for c in rule.conditions)


def _evidence_of_health(signals: Signals) -> tuple[Evidence, ...]:
    """Return, for each cause, the condition that it misses by most."""
    missed = {}
    for rule in RULES:
        margins = [(margin, c) for c in rule.conditions if (margin := c.margin(signals)) is not None]
        if margins:
            worst = min(margins, key=lambda pair: pair[0])[1]
            missed[worst.signal] = Evidence(worst.signal, float(getattr(signals, worst.signal)), worst.threshold)
    return tuple(missed.values())
