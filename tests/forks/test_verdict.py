"""Each verdict from what was tried, made up here: nothing is trained."""

import math
from dataclasses import replace
from typing import Any

import pytest

from unstall.forks.tried import Findings, Fork
from unstall.forks.verdict import (
    FAR,
    cause_of_no_fit,
    conclude,
    confidence,
    confidence_of_offer,
    decide,
    next_limit,
)
from unstall.trials import HELPS, Judge, Score
from unstall.watch import Cause, Signals, name_cause

JUDGE = Judge(math.log(10), 0.1, 2000)
STUCK, POOR, GOOD, BETTER = Score(2.3, 0.1), Score(1.5, 0.5), Score(0.3, 0.9), Score(0.15, 0.95)
FAR_GONE = Score(0.6, 0.8)
"""0.82 of the way from a constant, 0.1, to the better one."""


def fork(change: str, before: Score, after: Score, cause: Cause = Cause.UNSURE) -> Fork:
    return Fork(change, before, after, {}, cause, JUDGE.helps(before, after), JUDGE.mends(before, after))


def findings(before: Score, after: Score, cause: Cause = Cause.TOO_HIGH, **tried: Any) -> Findings:
    """A run, the best other rate, and whatever else was tried."""
    found = Findings(Signals(), JUDGE, before, fork("learning rate 0.1", before, after, cause))
    return replace(found, **tried)


def batch(before: Score, after: Score) -> Fork:
    return fork("batch size 512", before, after, Cause.BATCH_TOO_SMALL)


def suspect(before: Score, after: Score) -> Fork:
    return fork("ReLU", before, after, Cause.VANISHING)


@pytest.mark.parametrize(
    ("found", "cause", "fix", "question"),
    [
        (findings(POOR, GOOD), Cause.TOO_HIGH, "learning rate", ""),
        (findings(POOR, GOOD, Cause.TOO_LOW), Cause.TOO_LOW, "learning rate", ""),
        (findings(POOR, GOOD, batch=batch(POOR, POOR)), Cause.TOO_HIGH, "learning rate", ""),
        (findings(POOR, GOOD, batch=batch(POOR, GOOD)), Cause.TOO_HIGH, "learning rate", "partly the same thing"),
        (findings(POOR, GOOD, batch=batch(POOR, BETTER)), Cause.BATCH_TOO_SMALL, "batch", "partly the same thing"),
        (findings(POOR, GOOD, Cause.TOO_LOW, batch=batch(POOR, BETTER)), Cause.TOO_LOW, "learning rate", ""),
        (findings(POOR, POOR, batch=batch(POOR, GOOD)), Cause.BATCH_TOO_SMALL, "batch", ""),
        (findings(POOR, GOOD, suspect=suspect(GOOD, GOOD)), Cause.TOO_HIGH, "learning rate", ""),
        (findings(STUCK, STUCK, suspect=suspect(STUCK, GOOD), fits_few=True), Cause.VANISHING, "ReLU", ""),
        (findings(STUCK, STUCK, fits_few=True), Cause.NOTHING_TO_LEARN, None, "labels unrelated"),
        (findings(STUCK, STUCK, fits_few=False), Cause.UNSURE, None, ""),
        (findings(POOR, POOR, linear=GOOD), Cause.BELOW_BASELINE, None, ""),
        (findings(GOOD, GOOD), Cause.HEALTHY, None, "what limits it next"),
        (findings(GOOD, Score(0.18, 0.94)), Cause.HEALTHY, "learning rate", "is worth it"),
        (findings(FAR_GONE, BETTER), Cause.HEALTHY, "learning rate", "is worth it"),
        (findings(FAR_GONE, BETTER, batch=batch(FAR_GONE, BETTER)), Cause.HEALTHY, "learning rate", "is worth it"),
        (findings(FAR_GONE, FAR_GONE, batch=batch(FAR_GONE, BETTER)), Cause.HEALTHY, "batch", "is worth it"),
        (findings(FAR_GONE, FAR_GONE, suspect=suspect(FAR_GONE, BETTER)), Cause.VANISHING, "ReLU", ""),
        (
            findings(GOOD, GOOD, linear=BETTER, suspect=suspect(GOOD, Score(0.18, 0.94))),
            Cause.BELOW_BASELINE,
            "ReLU",
            "",
        ),
    ],
)
def test_cause_fix_and_open_question(found: Findings, cause: Cause, fix: str | None, question: str) -> None:
    said, change, left_open = decide(found)
    assert said == cause
    assert change is None if fix is None else change is not None and change.change.startswith(fix)
    assert question in left_open
    assert bool(question) == bool(left_open)


def test_a_validation_loss_that_the_training_step_does_not_know_is_no_overfitting() -> None:
    signals = Signals(step=500, rise=9.0, training_loss=0.1, validation_loss=5.0)
    apart = findings(GOOD, GOOD, signals=signals, standing=Score(0.12, 0.9))
    report = conclude(apart, [])
    assert report.verdict.cause == "validation that measures something else"
    assert "logs a loss of 5, where the training step returns 0.12" in report.verdict.sentence
    for standing in (None, Score(4.0, 0.9)):
        assert decide(replace(apart, standing=standing))[0] == Cause.OVERFITTING


def test_what_overfits_needs_no_other_rate() -> None:
    signals = Signals(step=5000, loss_ratio=0.01, training_loss=0.01, validation_loss=1.0, rise=2.0, turned_epoch=3)
    assert name_cause(signals).cause == Cause.OVERFITTING
    report = conclude(findings(POOR, GOOD, signals=signals), [])
    assert report.verdict.cause == Cause.OVERFITTING
    assert report.fix is None


@pytest.mark.parametrize(
    ("signals", "cause"),
    [
        (Signals(dead_at_start=1.0, initial_ratio=5.0), Cause.DEAD_AT_START),
        (Signals(initial_ratio=5.0, gradient_ratio=0.0), Cause.BAD_SCALE),
        (Signals(gradient_ratio=1e-3), Cause.VANISHING),
        (Signals(gradient_ratio=0.5), Cause.UNSURE),
        (Signals(gradient_ratio=0.0), Cause.UNSURE),
        (Signals(), Cause.UNSURE),
    ],
)
def test_why_not_even_a_few_samples_are_learned(signals: Signals, cause: Cause) -> None:
    assert cause_of_no_fit(findings(STUCK, STUCK, signals=signals)) == cause


def test_a_healthy_run_is_told_what_would_take_it_further() -> None:
    report = conclude(findings(FAR_GONE, BETTER), [])
    assert report.verdict.cause == Cause.HEALTHY
    assert "learning rate 0.1, tried, takes the accuracy from 0.8 to 0.95" in report.verdict.sentence
    assert 0.5 < report.verdict.confidence < conclude(findings(Score(0.3, 0.88), BETTER), []).verdict.confidence
    by_loss = conclude(findings(Score(0.5), Score(0.2)), [])
    assert by_loss.verdict.cause == Cause.HEALTHY
    assert "takes the loss from 0.5 to 0.2" in by_loss.verdict.sentence
    assert confidence_of_offer(FAR) == pytest.approx(0.5)


def test_what_limits_a_healthy_run() -> None:
    assert next_limit(Signals(training_loss=0.1, validation_loss=0.2)) == "overfitting"
    assert next_limit(Signals(training_loss=0.1, validation_loss=0.12)) == "too little capacity"
    assert next_limit(Signals(training_loss=0.1)) == "not known without a validation loss"


def test_confidence_grows_from_one_half_with_the_distance_from_what_helps() -> None:
    assert confidence(HELPS) == 0.5
    assert confidence(HELPS / 2) == pytest.approx(confidence(HELPS * 2))
    assert confidence(0.7) < confidence(0.5) < confidence(0.2) <= confidence(0.0) == 0.98
    assert confidence(math.inf) == confidence(math.nan) == confidence(HELPS / 2)


def test_a_report_holds_the_evidence_of_the_fork_that_decides_and_a_runner_up() -> None:
    signals = Signals(step=300, loss_ratio=1.2, move=50.0, batch_size=32)
    found = findings(POOR, GOOD, signals=signals, batch=batch(POOR, BETTER))
    tried = [found.rate, batch(POOR, BETTER)]
    report = conclude(found, tried)
    suspicion = name_cause(signals)
    assert report.forks == tuple(tried)
    assert report.fix == batch(POOR, BETTER)
    *before, last = report.verdict.evidence
    assert tuple(before) == suspicion.evidence
    assert (last.signal, last.threshold) == ("error after / before: batch size 512", HELPS)
    assert last.value == pytest.approx(0.1)
    assert report.verdict.confidence == confidence(last.value)
    assert report.verdict.runner_up in (suspicion.cause, suspicion.runner_up, Cause.HEALTHY)
    assert report.verdict.runner_up != report.verdict.cause
    assert report.verdict.step == 300
    assert "batch of 32 is too small" in report.verdict.sentence
