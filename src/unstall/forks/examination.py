"""What is put together wrong in a run, before anything is trained: one step of its module, a look at its batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unstall.audit import Observation, observe, tensors_in
from unstall.causes import COURSE_FAULTS, FAULTS, Course, Finding, find
from unstall.errors import UsageError
from unstall.forks.mended import optimizer_of, try_findings
from unstall.forks.subject import Subject
from unstall.forks.targets import Task, task_of
from unstall.forks.tried import Fork, Report
from unstall.forks.verdict import confidence
from unstall.watch import Cause, TargetCounts, Verdict, name_cause

UNTRIED = 0.9
"""How sure a fault is that is wrong by construction, where no change from outside could prove it."""


@dataclass(frozen=True)
class Examination:
    """What was seen.

    Args:
        findings: The faults that show, the certain ones first.
        seen: What one step showed; None if it could not be made on a copy.
        task: What the targets ask for; None if that is not known.
    """

    findings: tuple[Finding, ...] = ()
    seen: Observation | None = None
    task: Task | None = None

    @property
    def certain(self) -> list[Finding]:
        """The faults that are wrong by construction."""
        return [finding for finding in self.findings if finding.fault.certain]


def examine(subject: Subject, known: Sequence[Finding] = ()) -> Examination:
    """Look at one step and at all batches.

    Args:
        subject: The run.
        known: What the run's own callback found, which has seen its course.
    """
    try:
        module = subject.module
        optimizers = [optimizer_of(module.configure_optimizers())]
        seen = observe(module, subject.first_batch, optimizers, subject.trainer)
    except Exception:  # a step that does not work on a copy, or an optimizer that it does not make alone
        return Examination(tuple(known))
    batches = subject.as_seen(subject.batches)
    found = [*known, *find(COURSE_FAULTS, _course(seen, batches)), *find(FAULTS, seen)]
    unique = list({finding.fault: finding for finding in reversed(found)}.values())[::-1]
    findings = tuple(sorted(unique, key=lambda finding: not finding.fault.certain))
    return Examination(findings, seen, task_of(module, seen, batches))


def accuse(subject: Subject, examined: Examination) -> Report | None:
    """Return the report on a run with a certain fault, whose mending was tried; None if it learns all the same."""
    if not examined.certain:
        return None
    tried = None
    if examined.seen is not None:
        tried = try_findings(subject, examined.certain, examined.seen, examined.task)
    if tried is None and subject.judge.learned(subject.score):
        return None
    finding = examined.certain[0]
    return _report(subject, examined, finding, None if tried is None else tried[1])


def suspect(subject: Subject, examined: Examination, report: Report) -> Report:
    """Return the report with what became of the suspicious faults, each mended in turn: the cause, if that helps."""
    suspicious = [finding for finding in examined.findings if not finding.fault.certain]
    if suspicious and examined.seen is not None:
        tried = try_findings(subject, suspicious, examined.seen, examined.task)
        if tried is not None:
            return _report(subject, examined, *tried)
    untried = next((finding for finding in suspicious if not finding.fault.mend), None)
    verdict = report.verdict
    if untried is not None and verdict.cause == Cause.HEALTHY:
        sentence = f"Not sure: {untried.where[0].lower()}{untried.where[1:]}"
        verdict = replace(verdict, cause=Cause.UNSURE, confidence=0.5, runner_up=untried.fault)
        verdict = replace(verdict, sentence=sentence, remedy=untried.change)
    return replace(report, verdict=verdict, forks=tuple(subject.forks), findings=examined.findings)


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
        return [
            Finding(faults[each["fault"]], str(each["sentence"]), str(each["remedy"]))
            for each in kept
            if each["fault"] in faults
        ]
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError):
        raise UsageError(f"{file}: not a diagnosis of this version; delete it and diagnose again") from None


def _report(subject: Subject, examined: Examination, finding: Finding, fix: Fork | None) -> Report:
    signals = subject.signals
    suspicion = name_cause(signals)
    ratio = None
    if fix is not None:
        before, after = fix.before.accuracy or 0.0, fix.after.accuracy or 0.0
        ratio = (1 - after) / max(1e-6, 1 - before)
    sure = UNTRIED if ratio is None else confidence(ratio)
    runner_up = suspicion.cause if suspicion.cause not in (Cause.HEALTHY, Cause.UNSURE) else None
    verdict = Verdict(finding.fault, sure, runner_up, suspicion.evidence, finding.where, finding.change, signals.step)
    return Report(verdict, tuple(subject.forks), fix, "", examined.findings)


def _course(seen: Observation, batches: Sequence[Any]) -> Course:
    """Return what the batches show when they are looked at one after another."""
    counts, not_finite = TargetCounts(), 0
    reference = seen.reference
    for batch in batches:
        targets = None if reference is None or reference.kind != "classes" else reference.targets(batch)
        if targets is not None:
            counts.after_batch(targets)
        floating = [part for part in tensors_in(batch) if part.is_floating_point()]
        not_finite = max(not_finite, sum(part.numel() - int(part.isfinite().sum()) for part in floating))
    counts.flush()
    counts.class_weights = () if reference is None else reference.weights
    return Course(label_spread=counts.label_spread(), commonest=counts.commonest, not_finite=not_finite)
