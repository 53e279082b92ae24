"""Losses and labels as they come, without a network."""

import math

import pytest
import torch
from torch import Tensor

from unstall.watch.losses import LossHistory
from unstall.watch.signals import Signals, entropy
from unstall.watch.targets import LABELS_COUNTED


def noted(*losses: float, targets: Tensor | None = None) -> LossHistory:
    history = LossHistory()
    for loss in losses:
        history.after_batch(torch.tensor(loss), targets)
    return history


def test_nothing_is_known_before_the_first_batch() -> None:
    assert LossHistory().read() == Signals()


def test_first_non_finite_loss_is_found_and_the_rest_survives() -> None:
    signals = noted(2.0, 1.0, math.inf, math.nan, 1.0).read()
    assert signals.non_finite_step == 3
    assert signals.baseline is None
    assert signals.loss_ratio is not None
    assert math.isnan(signals.loss_ratio)


def test_blow_up_compares_steps_16_to_25_with_the_start() -> None:
    assert noted(*(12.0 if 15 <= step < 25 else 3.0 for step in range(40))).read().blow_up == 4


def test_regression_has_no_baseline_and_is_measured_against_its_start() -> None:
    signals = noted(*[5.0] * 60, targets=torch.rand(4, 1)).read()
    assert (signals.baseline, signals.loss_ratio, signals.initial_ratio) == (None, 1, None)
    assert signals.batch_size == 4


def test_labels_are_counted_over_all_calls_but_those_that_are_masked() -> None:
    history = noted(2.0, targets=torch.tensor([0, 0, 3, -100]))
    history.flush()
    history.after_batch(torch.tensor(2.0), torch.tensor([1, 0]))
    assert history.read().baseline == pytest.approx(entropy([3, 1, 0, 1]))
    assert history.targets.class_counts == [3, 1, 0, 1]
    assert history.read().batch_size == 4


def test_enough_labels_are_enough() -> None:
    history = noted(*[2.0] * 5, targets=torch.zeros(LABELS_COUNTED // 2, dtype=torch.long))
    history.flush()
    assert history.targets.class_counts == [LABELS_COUNTED]


def test_what_the_loss_falls_by_is_compared_with_what_the_steps_should_have_gained() -> None:
    history = noted(*[4.0] * 50, *[2.0] * 50)
    history.flush()
    assert history.realised_gain(0.02) == pytest.approx((4 - 2) / (50 * 0.02 * 2))
    assert history.realised_gain(None) is None
    assert noted(*[4.0] * 50).realised_gain(0.02) is None, "there is no window before"
    assert history.read().rebound == 1


def test_an_epochs_mean_loss_is_kept_beside_its_validation_loss() -> None:
    history = LossHistory()
    for epoch, (training, validation) in enumerate([(2.0, 2.5), (1.0, 2.0), (0.5, 3.0)]):
        for difference in (-0.25, 0.25):
            history.after_batch(torch.tensor(training + difference), None)
        history.end_epoch()
        history.validated(validation, epoch)
    signals = history.read()
    assert (signals.training_loss, signals.validation_loss, signals.generalisation_gap) == (0.5, 3.0, 2.5)
    assert (signals.turned_epoch, signals.rise) == (2, 1.5)
