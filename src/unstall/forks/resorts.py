"""What is tried where nothing shows and no rate helps enough: another loss, other inputs, another optimizer, longer."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

from unstall.causes import TRIED_FAULTS, Fault, Finding
from unstall.find import merged
from unstall.forks.changes import overlay_of
from unstall.forks.examination import NEAR_CHANCE, Examination, report_on
from unstall.forks.mended import mend, prolonged
from unstall.forks.mending import GAIN, ROOM, measure_of, quality_of, try_mended
from unstall.forks.remedies import RATE, half_decades
from unstall.forks.standing import reached, standing
from unstall.forks.tried import Fork, Mended, Report
from unstall.trials import Score
from unstall.watch import Cause

SATISFYING = 0.3
"""Share of the loss of the best constant prediction at which nothing more is looked for, as for a linear model."""

CURED = 0.5
"""Share of the error that a cure leaves at most. What does less is offered, and accuses nothing."""


OF_RATE = Cause.TOO_LOW, Cause.TOO_HIGH

TOO_FEW_EPOCHS = next(fault for fault in TRIED_FAULTS if fault.mend == "longer")


def resort(examined: Examination, report: Report) -> Report:
    """Return the report, or another one if something that nothing pointed at does far better than all that was tried.

    Args:
        examined: What was seen of the run.
        report: On what was tried.
    """
    subject, cause = examined.subject, report.verdict.cause
    known = cause == Cause.OVERFITTING or not isinstance(cause, Cause)
    best = subject.score if report.fix is None else report.fix.after
    mended = report.fix is not None and report.fix.mends and (best.accuracy or 0.0) >= ROOM
    satisfied = mended or 0 <= best.loss <= SATISFYING * subject.judge.reference
    if examined.task is None or known or (satisfied and cause != Cause.TOO_LOW):
        return report
    before = reached(subject, examined.task, ROOM)
    if before is None or before.accuracy is None or before.accuracy >= ROOM:
        return report
    if cause == Cause.TOO_LOW and (longer := gone_on(examined, before)) is not None:
        return report_on(examined, _told(TOO_FEW_EPOCHS, longer), longer)
    report = with_more_steps(examined, report) if isinstance(cause, Cause) and cause in OF_RATE else report
    report = replace(report, forks=tuple(subject.forks), references=examined.references)
    if satisfied:
        return report
    seen = {finding.fault for finding in examined.findings}
    untold = [Finding(fault, fault.sentence, fault.remedy) for fault in TRIED_FAULTS if fault not in seen]
    tried = examined.try_findings(untold, 2 * subject.short)
    report = replace(report, forks=tuple(subject.forks))
    if tried is not None and left(tried[1]) <= CURED:
        return report_on(examined, _told(tried[0].fault, tried[1]), tried[1])
    if tried is not None and report.fix is None and cause in (Cause.HEALTHY, Cause.UNSURE):
        question = f"whether {tried[1].change} is worth it: it does better, by less than half of the error"
        report = replace(report, fix=tried[1], open_question=question)
    return humbled(report, before.accuracy) if cause == Cause.HEALTHY else report


def gone_on(examined: Examination, before: Score) -> Fork | None:
    """Return the run gone on with, if that does as well as the best learning rate does in its steps; else None.

    A run that ended too early looks like one whose rate is too low: what tells them apart is to go on.
    """
    subject, task = examined.subject, examined.task
    assert task is not None
    mended = mend("longer", subject, task)
    fork = None if mended is None else try_mended(subject, mended, task, before, TOO_FEW_EPOCHS)
    now = standing(subject, task)
    if fork is None or (fork.after.accuracy or 0.0) < max(before.accuracy or 0.0, -1.0 if now is None else now + GAIN):
        return None
    return replace(fork, helps=True, mends=True)


def with_more_steps(examined: Examination, report: Report) -> Report:
    """Return the report on a rate, with more epochs as the second part of its remedy if they help beside the rate.

    Such a run is so short that all of it was tried, and its loss is still far from good at the best rate.
    """
    subject, task, fix = examined.subject, examined.task, report.fix
    longer = prolonged(subject)
    if fix is None or fix.learning_rate is None or task is None or longer is None or not longer.settings:
        return report
    if not fix.after.loss > SATISFYING * abs(subject.judge.reference):
        return report
    measure = measure_of(subject, Mended("", subject.module), task)
    measured = subject.own.best_measured([fix.learning_rate], [subject.long], measure)
    rates = tuple(half_decades(fix.learning_rate, halves) for halves in (0, -1, -2))
    assert isinstance(report.verdict.cause, Cause)
    fork = try_mended(subject, replace(longer, rates=rates), task, fix.before, report.verdict.cause)
    if fork is None or not measured or quality_of(fork.after) < quality_of(measured[0][1]):
        return report
    if not subject.judge.helps(Score(measured[0][1].loss), Score(fork.after.loss)):
        return report
    rate = fork.learning_rate or fix.learning_rate
    known = [each for each in (overlay_of(subject.config, RATE, rate), fork.overlay) if each is not None]
    overlay = reduce(merged, known) if known else None
    subject.forks[-1] = fork = replace(fork, helps=True, mends=True, overlay=overlay, learning_rate=rate)
    return replace(report, fix=fork)


def _told(fault: Fault, fork: Fork) -> Finding:
    return Finding(fault, fault.sentence.format(change=fork.change), fault.remedy)


def left(fork: Fork) -> float:
    """Return the share of the error that a change leaves; an explained variance below zero counts as none."""
    before, after = (max(0.0, score.accuracy or 0.0) for score in (fork.before, fork.after))
    return (1 - after) / max(1e-6, 1 - before)


def humbled(report: Report, reached: float) -> Report:
    """Return the report on a run that was called healthy, unless it is no better than what is to be beaten."""
    constant, linear = report.references.get("a constant", 0.0), report.references.get("a linear model", 0.0)
    verdict = report.verdict
    if reached <= constant + NEAR_CHANCE:
        sentence = f"No better than a constant prediction ({reached:.3g} beside {constant:.3g}); nothing tried helps"
        verdict = replace(verdict, cause=Cause.UNSURE, confidence=0.5, sentence=sentence, remedy="")
    elif linear > reached + 0.05:
        sentence = f"A linear model of the inputs comes to {linear:.3g}, it to {reached:.3g} at the best learning rate"
        verdict = replace(verdict, cause=Cause.BELOW_BASELINE, sentence=sentence, remedy="look for a better network")
    return replace(report, verdict=verdict)
