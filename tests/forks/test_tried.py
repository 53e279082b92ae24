"""What findings say of a run, before any verdict."""

import math
from dataclasses import replace

import pytest

from unstall.forks.tried import Findings, Fork
from unstall.trials import Judge, Score
from unstall.watch import Signals

H0 = math.log(10)
BEFORE = Score(2.2, 0.2)
FINDINGS = Findings(Signals(), Judge(H0, 0.1, 2000), BEFORE, Fork("learning rate 1", BEFORE, Score(1.0, 0.7)))


def test_the_best_is_of_the_run_and_of_every_rate() -> None:
    assert FINDINGS.best == Score(1.0, 0.7)
    worse = replace(FINDINGS, rate=Fork("learning rate 1", BEFORE, Score(math.inf)))
    assert worse.best == BEFORE


@pytest.mark.parametrize(
    ("before", "after", "stuck"),
    [
        (Score(2.3, 0.1), Score(2.3, 0.1), True),
        (Score(2.3, 0.1), Score(math.inf), True),
        (Score(2.3, 0.1), Score(1.5, 0.4), False),
        (Score(1.5, 0.4), Score(2.3, 0.1), False),
    ],
)
def test_stuck_is_what_learns_nothing_at_any_rate(before: Score, after: Score, stuck: bool) -> None:
    assert replace(FINDINGS, before=before, rate=Fork("", before, after)).stuck == stuck


def test_how_far_a_run_has_come_is_seen_of_it_as_it_stands() -> None:
    assert FINDINGS.progress(FINDINGS.rate) == pytest.approx(0.1 / 0.6)
    assert replace(FINDINGS, standing=Score(1.1, 0.6)).progress(FINDINGS.rate) == pytest.approx(0.5 / 0.6)


def test_a_linear_model_counts_only_if_it_was_tried() -> None:
    assert not FINDINGS.below_linear
    assert replace(FINDINGS, linear=Score(0.5, 0.8)).below_linear
    assert not replace(FINDINGS, linear=Score(1.1, 0.68)).below_linear


@pytest.mark.parametrize(("measured", "spoilt"), [(None, False), (0.0, False), (0.5, False), (3.0, True)])
def test_what_was_not_measured_is_no_reproach(measured: float | None, spoilt: bool) -> None:
    findings = replace(FINDINGS, signals=Signals(dead_at_start=measured, initial_ratio=measured))
    assert (findings.dead_at_start, findings.badly_scaled) == (spoilt, spoilt)
