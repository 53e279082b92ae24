"""Mended copies, trained and measured beside the run: which of its faults is the cause, and what else has to change."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import reduce

from unstall.causes import TRIED_FAULTS, Fault, Finding
from unstall.find import merged
from unstall.forks.changes import overlay_of
from unstall.forks.legs import Legs, Measure, looks
from unstall.forks.mended import mend, mend_together, prolonged, shuffled
from unstall.forks.subject import Subject
from unstall.forks.targets import Task, quality
from unstall.forks.tried import Fork, Mended
from unstall.trials import Outcome, Score, Variant
from unstall.watch import Cause

ROOM = 0.9
"""Share of right answers, or of the variance explained, from which on nothing more is looked for."""

GAIN = 0.05
"""Share of right answers, or of the variance explained, by which a mended copy must be better: five points, as for a
stall (`Judge.mends`)."""

USUAL_RATES = 1e-3, 1e-2, 1e-1

COMPANIONS = ("inputs",), ("inputs", "optimizer")
"""What is mended along with the last layer's output where that alone leaves much to gain: faults come in company."""


def try_findings(
    subject: Subject,
    findings: Sequence[Finding],
    task: Task,
    before: Score,
    steps: int | None = None,
    rates: tuple[float, ...] = (),
    shown: Collection[str] = (),
) -> tuple[Finding, Fork] | None:
    """Mend each fault in turn, train and measure; return the one that brings most, if that is enough to matter.

    Args:
        subject: The run.
        findings: The faults that show.
        task: What the targets ask for.
        before: What the run comes to unchanged.
        steps: Of a trial; None: as many as are compared with the run.
        rates: To be tried; empty: what suits the kind of fault.
        shown: The kinds of all faults that show, to be mended along with the last layer's output.
    """
    kinds = {finding.fault.mend: finding for finding in reversed(findings)}
    best: tuple[Finding, Fork] | None = None
    for kind, finding in kinds.items():
        mended = mend(kind, subject, task)
        if mended is not None and rates:
            mended = replace(mended, rates=rates)
        fork = None if mended is None else try_mended(subject, mended, task, before, finding.fault, steps)
        if fork is not None and fork.helps and (best is None or quality_of(fork.after) > quality_of(best[1].after)):
            best = finding, fork
    output = kinds.get("output")
    if output is None or rates or output.fault in TRIED_FAULTS:
        return best
    for companions in COMPANIONS:
        so_far = quality_of(before if best is None else best[1].after)
        shows = set(companions) <= set(shown)  # what is wrong is mended, too, if it does no harm
        together = mend_together(("output", *companions), subject, task) if so_far < ROOM or shows else None
        fork = None if together is None else try_mended(subject, together, task, before, output.fault, steps)
        if fork is not None and fork.helps and quality_of(fork.after) >= so_far + (0 if shows else GAIN):
            best = output, fork
    so_far = quality_of(before if best is None else best[1].after)
    tried = [fork for fork in subject.forks if fork.cause == output.fault]
    furthest = best[1] if best is not None and best[0] is output else tried[-1] if tried else None
    longer = prolonged(subject, furthest.mended) if so_far < ROOM and furthest is not None else None
    fork = None if longer is None else try_mended(subject, longer, task, before, output.fault)
    return (output, fork) if fork is not None and fork.helps and quality_of(fork.after) > so_far + GAIN else best


def most_promising(subject: Subject, cause: Cause | Fault) -> Fork | None:
    """Return the best of the mended copies that were trained to mend a cause, whether it helped or not."""
    tried = [fork for fork in subject.forks if fork.cause == cause and fork.mended is not None]
    return max(tried, key=lambda fork: (quality_of(fork.after), -fork.after.loss), default=None)


def try_mended(
    subject: Subject, mended: Mended, task: Task, before: Score, cause: Cause | Fault, steps: int | None = None
) -> Fork | None:
    """Train a mended copy and measure it, with a line in the subject's record; None if its answers are not seen.

    Args:
        subject: The run.
        mended: The copy.
        task: What the targets ask for.
        before: What the run comes to unchanged.
        cause: What is mended.
        steps: Of the trial; None: as many as are compared with the run.
    """
    rate, score = _best_of(subject, mended, task, steps)
    if score.accuracy is None:
        return None
    own = subject.is_own(rate) and mended.rates in ((), (subject.rate,))
    change = mended.change if own else f"{mended.change}, learning rate {rate:.2g}"
    overlays = [overlay_of(subject.config, names, value, place) for names, value, place in mended.settings]
    known = [overlay for overlay in overlays if overlay is not None]
    overlay = reduce(merged, known) if known and len(known) == len(overlays) else None
    helps = quality_of(score) - quality_of(before) > GAIN
    fork = Fork(
        change,
        before,
        score,
        overlay,
        cause,
        helps,
        helps,
        replace(mended, rates=(rate,)),
        None if own or overlay is None else rate,
        measure_of(subject, mended, task),
    )
    subject.forks.append(fork)
    return subject.forks[-1]


def quality_of(score: Score) -> float:
    """Return how good a score is; minus infinity where that is not known."""
    return -math.inf if score.accuracy is None else score.accuracy


def trained(subject: Subject, mended: Mended, task: Task, steps: int | None = None) -> list[tuple[float, Score]]:
    """Return the rates at which a copy was trained whose answers could be seen, and how good it was."""
    steps = steps or subject.long
    grid = mended.rates or tuple(sorted({subject.rate, *USUAL_RATES}))
    training = [mended.transform(batch) for batch in subject.training(steps)] * mended.passes
    if mended.shuffled:
        training = shuffled(training)
    each = (mended.options or subject.options).accumulate_grad_batches

    def leg(variants: Sequence[Variant], first: int, last: int) -> list[Outcome]:
        variants = [replace(variant, start=variant.start or mended.start) for variant in variants]
        batches = training[first * each : last * each]
        return subject.race(variants, batches, (), mended.module, keep_state=True, options=mended.options)

    whole = len(training) // each
    short = subject.short if mended.passes == 1 or mended.start is not None else whole // 4
    lengths = looks(subject.module, short, whole)
    return [
        (rate or subject.rate, score)
        for rate, score in Legs(leg).best_measured(grid, lengths, measure_of(subject, mended, task))
    ]


def measure_of(subject: Subject, mended: Mended, task: Task) -> Measure:
    """Return what says how good weights of a mended copy are on the held-out batches."""
    held_out = [mended.transform(batch) for batch in subject.held_out]
    return lambda weights: quality(subject, mended.module, weights, held_out, task)


def _best_of(subject: Subject, mended: Mended, task: Task, steps: int | None = None) -> tuple[float, Score]:
    known = trained(subject, mended, task, steps)
    return max(known, key=lambda pair: (quality_of(pair[1]), -pair[1].loss), default=(subject.rate, Score(math.inf)))
