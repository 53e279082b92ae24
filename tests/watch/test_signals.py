"""The formulas of the signals, against what they stand for."""

import math

import pytest
import torch
import torch.nn.functional as F

from unstall.watch.signals import (
    Signals,
    at_a_glance,
    entropy,
    over,
    random_walk_efficiency,
    straightness,
    turning_point,
)


def test_baseline_is_the_loss_of_always_predicting_the_class_shares() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [3] * 10)
    counts = torch.bincount(labels)
    constant = torch.log(counts / counts.sum() + 1e-30).expand(100, 4)
    assert entropy(counts.tolist()) == pytest.approx(float(F.cross_entropy(constant, labels)))
    assert entropy([5]) == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_null_of_path_efficiency_is_that_of_simulated_noise(momentum: float) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4600, 300, generator=generator, dtype=torch.float64)
    step, steps = torch.zeros(300, dtype=torch.float64), []
    for row in noise:
        step = momentum * step + row
        steps.append(step)
    walk = torch.stack(steps)[200:].cumsum(0)
    efficiencies = []
    for start in range(0, 4000, 320):
        places = walk[start : start + 321 : 20]
        efficiencies.append(float((places[-1] - places[0]).norm() / (places[1:] - places[:-1]).norm(dim=1).sum()))
    assert sum(efficiencies) / len(efficiencies) == pytest.approx(random_walk_efficiency(16, 20, momentum), rel=0.05)


def test_straightness_is_an_exponent_between_a_random_walk_and_a_straight_line() -> None:
    assert straightness(4, 16, 20, 0) == pytest.approx(1)
    assert straightness(1, 16, 20, 0) == 0


@pytest.mark.parametrize(
    ("losses", "turned"),
    [
        ([1.0, 0.5, 0.4, 0.6], 2),
        ([1.0, 0.5, 0.41, 0.42], None),
        ([3.0, 2.0], None),
        ([], None),
        ([1.0, math.nan], None),
    ],
)
def test_turning_point(losses: list[float], turned: int | None) -> None:
    assert turning_point(losses) == turned


def test_what_cannot_be_compared_was_not_measured() -> None:
    assert over(3, 2) == 1.5
    assert over(3, 0) is over(3, None) is None
    assert Signals(training_loss=0.5, validation_loss=1.0).validation_ratio == 2
    assert Signals(training_loss=0.0, validation_loss=1.0).validation_ratio is None
    assert Signals(training_loss=0.5).validation_ratio is None


def test_what_is_seen_at_a_glance_is_finite() -> None:
    assert at_a_glance(Signals(move=100.0, straightness=0.5)) == {"7_log10_weights_moved": 2.0, "8_straightness": 0.5}
    assert at_a_glance(Signals(move=0.0)) == {"7_log10_weights_moved": -9.0}
    assert at_a_glance(Signals(move=math.nan)) == at_a_glance(Signals()) == {}
