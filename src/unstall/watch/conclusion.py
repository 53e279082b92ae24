"""What is said of a run in the end: what one batch showed, and what only time could tell."""

from collections.abc import Sequence
from dataclasses import replace

from unstall.causes import Fault, Finding
from unstall.watch.causes import EARLIEST, Cause
from unstall.watch.rules import Verdict
from unstall.watch.signals import Signals

LEARNED = 0.5
"""Share of the loss of the best constant prediction below which a run has learned so much that what is put together
wrong in it does not keep it down."""

POOR = 0.8
"""The same above which a suspicious fault is named although no symptom shows."""

AT_CHANCE = 0.95
"""The same above which nothing was learned, as for `Judge.learned`."""

OF_LIMITS = Cause.HEALTHY, Cause.UNSURE, Cause.NOTHING_TO_LEARN, Cause.BELOW_BASELINE, Cause.LOW_CAPACITY
"""What a network looks like that is one linear map: that limits what it comes to, and not the way there."""

CERTAIN, LIKELY = 0.97, 0.6
"""How sure a fault is that is wrong by construction, and one that is only suspicious beside a stall. On the reported
stalls and programs of `benchmarks/stalls.py` no repaired one showed a certain fault."""


def conclude(verdict: Verdict, signals: Signals, findings: Sequence[Finding]) -> Verdict:
    """Return the verdict on a run of which one batch and the signals are known.

    A certain fault is the cause of whatever stalls; a suspicious one is likelier than a symptom. "Healthy" is said only
    of a run that is better than the best constant prediction, if one is known.

    Args:
        verdict: What the signals say.
        signals: What was measured.
        findings: What one batch showed, the certain faults first.
    """
    if verdict.cause == Cause.TOO_HIGH:  # a loss that has overshot comes down for a while, and stays where it began
        findings = [finding for finding in findings if finding.fault.mend != "longer"]
    if verdict.cause not in OF_LIMITS:
        findings = [finding for finding in findings if finding.fault.mend != "activation"]
    apart = next((finding for finding in findings if finding.fault.mend == "modes"), None)
    if apart is not None and not (verdict.stalled and verdict.sure):  # evaluation does not show what was learned
        verdict = replace(verdict, cause=apart.fault, confidence=CERTAIN, runner_up=None, candidates=())
        return replace(verdict, sentence=apart.where, remedy=apart.change)
    ratio = signals.loss / signals.baseline if signals.baseline and signals.loss is not None else None
    learned = ratio is not None and 0 <= ratio < LEARNED
    unknown = verdict.cause == Cause.UNSURE and ratio is None
    poor = verdict.stalled or unknown or (ratio is not None and not 0 <= ratio < POOR)
    first = findings[0] if findings else None
    early = verdict.cause == Cause.HEALTHY and signals.step < EARLIEST
    if first is not None and not learned and (first.fault.certain or poor or early):
        return replace(
            verdict,
            cause=first.fault,
            confidence=CERTAIN if first.fault.certain else LIKELY,
            runner_up=verdict.cause if verdict.stalled else None,
            sentence=first.where,
            remedy=first.change,
            candidates=(),
        )
    if first is not None and first.fault.certain and verdict.cause == Cause.HEALTHY:
        sentence = f"It learns, and yet: {first.where[0].lower()}{first.where[1:]}"
        return replace(verdict, cause=Cause.UNSURE, runner_up=first.fault, sentence=sentence, remedy=first.change)
    if verdict.stalled and not verdict.sure:
        sentence = f"Not sure, perhaps: {verdict.sentence[0].lower()}{verdict.sentence[1:]}"
        remedy = "`diagnose` can tell"
        return replace(verdict, cause=Cause.UNSURE, runner_up=verdict.cause, sentence=sentence, remedy=remedy)
    if verdict.cause != Cause.HEALTHY:
        return verdict
    if early:
        return replace(verdict, cause=Cause.UNSURE)
    if ratio is None:
        sentence = "Nothing wrong shows, but nothing is known that the loss could be compared with"
    elif 0 <= ratio < AT_CHANCE:
        return verdict
    else:
        sentence = f"The loss is no better than that of the best constant prediction ({signals.baseline:.3g})"
    unsure = replace(verdict, cause=Cause.UNSURE, confidence=0.5, runner_up=None, sentence=sentence)
    return replace(unsure, remedy="`diagnose` tries what could help")


def by_hand(finding: Finding, step: int) -> Verdict:
    """Return the verdict on a run whose module steps its optimizer itself, with a certain fault."""
    return Verdict(finding.fault, CERTAIN, None, (), finding.where, finding.change, step)


def on_few_batches(verdict: Verdict, signals: Signals, batches: float) -> Verdict:
    """Return what is said of a run that sees the same few batches again and again: no verdict but on a certain fault.

    Args:
        verdict: What would be said of any other run.
        signals: What was measured.
        batches: Lightning's `overfit_batches`: how many, or which share of them.
    """
    if isinstance(verdict.cause, Fault) and verdict.confidence >= CERTAIN:
        return verdict
    few = "one batch" if batches == 1 else f"{batches} batches" if batches > 1 else f"{batches:.0%} of the batches"
    course = ""
    if signals.initial_loss is not None and signals.loss is not None:
        course = f": its loss went from {signals.initial_loss:.4g} to {signals.loss:.4g}"
    sentence = f"Only {few}, again and again{course}; no verdict, it shows whether so few can be learned by heart"
    unsure = replace(verdict, cause=Cause.UNSURE, confidence=0.5, runner_up=None, sentence=sentence, remedy="")
    return replace(unsure, candidates=(), evidence=())
