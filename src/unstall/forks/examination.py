"""What is put together wrong in a run, before anything is trained: one step of its module, a look at its batches."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from unstall.audit import Observation, observe
from unstall.causes import COURSE_FAULTS, FAULTS, Finding, find
from unstall.errors import UsageError
from unstall.forks.baselines import references
from unstall.forks.course import course_of
from unstall.forks.mending import GAIN, most_promising, quality_of, try_findings
from unstall.forks.standing import as_it_is, reached, standing
from unstall.forks.subject import Subject
from unstall.forks.targets import Task, task_of
from unstall.forks.tried import Fork, Report
from unstall.forks.verdict import FAR, UNTRIED, confidence, confidence_of_offer, offer
from unstall.trials import Score
from unstall.watch import LEARNED, Cause, Verdict, name_cause

NEAR_CHANCE = 0.02
"""How much better than a constant, in accuracy or in variance explained, is still no better."""


@dataclass(frozen=True)
class Examination:
    """What was seen of a run.

    Args:
        subject: The run.
        findings: The faults that show, the certain ones first.
        task: What the targets ask for; None if that is not known.
    """

    subject: Subject
    findings: tuple[Finding, ...] = ()
    task: Task | None = None

    @property
    def certain(self) -> list[Finding]:
        """The faults that are wrong by construction."""
        return [finding for finding in self.findings if finding.fault.certain]

    @cached_property
    def before(self) -> Score | None:
        """What the run comes to unchanged, at the best of a few rates; None if its answers are not seen."""
        return None if self.task is None else reached(self.subject, self.task)

    @cached_property
    def own(self) -> Score | None:
        """What the run comes to at its own rate, or as it stands."""
        return None if self.task is None else as_it_is(self.subject, self.task)

    @property
    def at_chance(self) -> bool:
        """Whether the run is no better than a constant: at its best rate, or as it stands where no answers are seen."""
        if self.task is None:
            return not self.subject.judge.learned(self.subject.standing or self.subject.score)
        reached = None if self.before is None else self.before.accuracy
        return reached is not None and reached <= self.references["a constant"] + NEAR_CHANCE

    def try_findings(
        self,
        findings: Sequence[Finding],
        steps: int | None = None,
        rates: tuple[float, ...] = (),
        before: Score | None = None,
    ) -> tuple[Finding, Fork] | None:
        """Mend each of the faults in a copy (`mending.try_findings`); None if nothing can be measured, or helps.

        What the mended copies are to beat is the run at its best rate, unless something else is given.
        """
        mendable = [finding for finding in findings if finding.fault.mend]
        before = before or self.before
        if not mendable or self.task is None or before is None:
            return None
        shown = {finding.fault.mend for finding in self.findings}
        return try_findings(self.subject, mendable, self.task, before, steps, rates, shown)

    @cached_property
    def references(self) -> dict[str, float]:
        """How good is what is to be beaten."""
        return {} if self.task is None else references(self.subject, self.task)


def examine(subject: Subject, known: Sequence[Finding] = ()) -> Examination:
    """Look at one step and at all batches.

    Args:
        subject: The run.
        known: What the run's own callback found, which has seen its course.
    """
    seen = subject.observation
    if seen is None:  # a step that does not work on a copy
        return Examination(subject, tuple(known))
    batches = subject.as_seen(subject.batches)
    if seen.stumble is None and not subject.control.finite:
        seen = _where_it_stumbles(subject, batches) or seen
    found = [*known, *find(COURSE_FAULTS, course_of(subject, seen, batches)), *find(FAULTS, seen)]
    unique = list({finding.fault: finding for finding in reversed(found)}.values())[::-1]
    findings = tuple(sorted(unique, key=lambda finding: not finding.fault.certain))
    return Examination(subject, findings, task_of(subject.module, seen, batches))


def accuse(examined: Examination) -> Report | None:
    """Return the report on a run with a certain fault, whose mending was tried; None if it learns all the same.

    One that nothing from outside mends is named, too, if the run has learned little: other rates are half measures.
    """
    if not examined.certain:
        return None
    tried, subject = examined.try_findings(examined.certain), examined.subject
    if tried is not None:
        return report_on(examined, examined.certain[0], tried[1])
    if (report := _beside_the_rate(examined)) is not None:
        return report
    first = examined.certain[0]
    if subject.judge.learned(subject.score):
        untried = [finding for finding in examined.certain if not finding.fault.mend]
        if not untried or 0 <= subject.score.loss < LEARNED * subject.judge.reference:
            return None
        first = untried[0]
    return report_on(examined, first)


def _beside_the_rate(examined: Examination) -> Report | None:
    """Return the report on a fault of what the loss compares, where another learning rate does as well without it.

    It is wrong whatever comes of it, and so the cause, with the rate as the second part of its remedy; unless the rate
    alone goes further. Layers that no optimizer holds may be meant: there the rate is the cause.
    """
    subject, own, at_best = examined.subject, examined.own, examined.before
    finding = next((finding for finding in examined.certain if finding.fault.mend == "output"), None)
    best = None if finding is None else most_promising(subject, finding.fault)
    if finding is None or best is None or own is None or at_best is None:
        return None
    if quality_of(best.after) <= quality_of(own) + GAIN or quality_of(best.after) < quality_of(at_best) - GAIN:
        return None
    fix = replace(best, before=own, helps=True, mends=True)
    subject.forks[subject.forks.index(best)] = fix
    alone = f"whether another learning rate alone is enough: the best of them comes to {at_best.accuracy:.3g}"
    return replace(report_on(examined, finding, fix), open_question=alone)


def suspect(examined: Examination, report: Report) -> Report:
    """Return the report with what became of the suspicious faults, each mended in turn: the cause, if that helps."""
    suspicious = [finding for finding in examined.findings if not finding.fault.certain]
    tried = examined.try_findings(suspicious)
    if tried is not None and _goes_further(report.fix, tried[1]):
        tried = None  # it helps, and is not what keeps the run down
    if tried is None and not examined.subject.control.finite:  # what keeps it finite at its own rate is a cause, too
        constant = Score(math.inf, examined.references.get("a constant"))
        tried = examined.try_findings(suspicious, rates=(examined.subject.rate,), before=constant)
    if tried is None and report.verdict.cause == Cause.TOO_LOW:
        tried = _taken_away(examined, report.fix, suspicious)
    if tried is not None and tried[0].fault.mend in ("longer", "balance") and progress(examined, tried[1]) >= FAR:
        return offered(examined, report, tried[1])
    if tried is not None:
        return report_on(examined, *tried)
    untried = next((finding for finding in suspicious if not finding.fault.mend), None)
    verdict, unproven = report.verdict, untried
    if examined.task is None:  # what mends it cannot be measured either
        unproven = untried or next((finding for finding in suspicious if finding.fault.mend != "longer"), None)
    # Samples that are learned by heart while others stay at chance: something keeps it from what they have in common.
    unexplained = (Cause.HEALTHY, Cause.UNSURE, Cause.NOTHING_TO_LEARN, Cause.OVERFITTING)
    if unproven is not None and verdict.cause in unexplained and examined.at_chance:
        return report_on(examined, unproven)
    if untried is not None and verdict.cause == Cause.HEALTHY:
        sentence = f"Not sure: {untried.where[0].lower()}{untried.where[1:]}"
        verdict = replace(verdict, cause=Cause.UNSURE, confidence=0.5, runner_up=untried.fault)
        verdict = replace(verdict, sentence=sentence, remedy=untried.change)
    return replace(report, verdict=verdict, forks=tuple(examined.subject.forks), findings=examined.findings)


def _taken_away(examined: Examination, fix: Fork | None, findings: Sequence[Finding]) -> tuple[Finding, Fork] | None:
    """Return what leaves little of a rate that is high enough without it; None if another rate goes further.

    A higher one makes up for a schedule that leaves a hundredth of it. What leaves that little is the cause.
    """
    step = [finding for finding in findings if finding.fault.mend in ("schedule", "clip", "decay")]
    if not step:
        return None
    tried = examined.try_findings(step, rates=(examined.subject.rate,), before=examined.own)
    return None if tried is None or _goes_further(fix, tried[1]) else tried


def _goes_further(fix: Fork | None, other: Fork) -> bool:
    """Return whether what mends a run already brings it further than another change, by what counts."""
    reached = fix.after.accuracy if fix is not None and fix.mends else None
    return reached is not None and reached > quality_of(other.after) + GAIN


def progress(examined: Examination, fork: Fork) -> float:
    """Return how far the run has come, as it stands, of the way from a constant to what a change brings."""
    now = None if examined.task is None else standing(examined.subject, examined.task)
    constant = examined.references["a constant"]
    way = quality_of(fork.after) - constant
    return ((quality_of(fork.before) if now is None else now) - constant) / way if way > 0 else 1.0


def offered(examined: Examination, report: Report, fork: Fork) -> Report:
    """Return the report on a run that a change takes further, although it has come so far that it is not stalled."""
    report = replace(report, forks=tuple(examined.subject.forks), findings=examined.findings)
    if report.fix is not None or report.verdict.cause != Cause.HEALTHY:
        return report
    sure = confidence_of_offer(progress(examined, fork))
    verdict = replace(report.verdict, confidence=sure, sentence=offer(report.verdict.sentence, fork))
    question = f"whether {fork.change} is worth it"
    return replace(report, verdict=verdict, fix=fork, open_question=question, references=examined.references)


def read_findings(file: Path) -> list[Finding]:
    """Return the faults that a run's own callback left in `diagnosis.json`; none if there is no such file.

    Raises:
        UsageError: if the file is there but damaged.
    """
    if not file.is_file():
        return []
    faults = {str(fault): fault for fault in (*COURSE_FAULTS, *FAULTS)}
    try:
        kept = json.loads(file.read_text()).get("findings", [])
        known = [(faults[each["fault"]], each) for each in kept if each["fault"] in faults]
        # Kept is the remedy with its example, which a finding adds by itself.
        return [
            Finding(fault, str(each["sentence"]), str(each["remedy"]).removesuffix(f", such as `{fault.example}`"))
            for fault, each in known
        ]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UsageError(f"{file}: not a diagnosis of this version; delete it and diagnose again") from None


def report_on(examined: Examination, finding: Finding, fix: Fork | None = None) -> Report:
    """Return the report on a run with a fault, mended in a fork or not."""
    subject, signals = examined.subject, examined.subject.signals
    suspicion = name_cause(signals)
    sure = UNTRIED
    if fix is not None:
        before, after = fix.before.accuracy or 0.0, fix.after.accuracy or 0.0
        sure = confidence((1 - after) / max(1e-6, 1 - before))
    runner_up = suspicion.cause if suspicion.cause not in (Cause.HEALTHY, Cause.UNSURE) else None
    verdict = Verdict(finding.fault, sure, runner_up, suspicion.evidence, finding.where, finding.change, signals.step)
    return Report(verdict, tuple(subject.forks), fix, "", examined.findings, examined.references)


def _where_it_stumbles(subject: Subject, batches: Sequence[Any]) -> Observation | None:
    """Return what the batch shows whose loss ceased to be finite, or the one before, from the initial weights."""
    losses = subject.control.losses
    place = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), len(losses))
    for batch in batches[max(0, place - 1) : place + 1]:
        with suppress(Exception):  # a step that works on a copy for some batches only
            seen = observe(subject.module, batch, trainer=subject.trainer)
            if seen.stumble is not None:
                return seen
    return None
