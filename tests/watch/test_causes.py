"""The vocabulary: every cause explained, whatever was measured."""

import pytest

from unstall.watch.causes import EXPLANATIONS, STALLS, Cause, describe
from unstall.watch.signals import Signals

MEASURED = Signals(
    step=400,
    initial_loss=2.4,
    loss=0.3,
    baseline=2.3,
    initial_ratio=1.04,
    loss_ratio=0.004,
    move=0.8,
    dead_at_start=0.01,
    dead=0.1,
    gradient_ratio=0.2,
    training_loss=0.01,
    validation_loss=0.5,
)


@pytest.mark.parametrize("cause", list(EXPLANATIONS))
def test_every_cause_has_a_sentence_and_every_stall_a_remedy(cause: Cause) -> None:
    candidates = (Cause.TOO_HIGH, Cause.NOTHING_TO_LEARN) if cause == Cause.UNSURE else ()
    for signals in (MEASURED, Signals()):
        sentence, remedy = describe(cause, signals, candidates)
        assert sentence
        assert "{" not in sentence + remedy
        assert remedy or cause not in STALLS


def test_all_causes_are_explained() -> None:
    assert set(EXPLANATIONS) == set(Cause)


def test_an_unsure_verdict_names_both_causes_and_both_remedies() -> None:
    sentence, remedy = describe(Cause.UNSURE, MEASURED, (Cause.TOO_HIGH, Cause.NOTHING_TO_LEARN))
    assert Cause.TOO_HIGH.value in sentence
    assert Cause.NOTHING_TO_LEARN.value in sentence
    assert remedy == "; or ".join(EXPLANATIONS[cause][1] for cause in (Cause.TOO_HIGH, Cause.NOTHING_TO_LEARN))


def test_overfitting_is_told_by_its_turning_point_or_else_as_learning_by_heart() -> None:
    sentence, _ = describe(Cause.OVERFITTING, MEASURED)
    assert "by heart" in sentence
    assert "50 times" in sentence
    turned, _ = describe(Cause.OVERFITTING, Signals(step=400, turned_epoch=3))
    assert "epoch 3" in turned


def test_what_the_loss_is_compared_with_is_named() -> None:
    assert "the best constant prediction" in describe(Cause.TOO_HIGH, MEASURED)[0]
    assert "the first batch" in describe(Cause.TOO_HIGH, Signals(step=400, move=30.0, loss_ratio=3.0))[0]


@pytest.mark.parametrize("cause", [Cause.TOO_HIGH, Cause.TOO_LOW, Cause.BAD_SCALE, Cause.VANISHING])
def test_what_only_a_trial_showed_is_said_without_figures(cause: Cause) -> None:
    assert "tried beside it" in describe(cause, Signals(step=400))[0]
    assert "nan" not in describe(cause, Signals(step=400))[0]


def test_a_rate_is_too_high_from_the_batch_at_which_the_loss_was_lost() -> None:
    assert "no longer finite at batch 7" in describe(Cause.TOO_HIGH, Signals(step=7, non_finite_step=7))[0]
