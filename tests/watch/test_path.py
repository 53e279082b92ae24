"""The way of weights that are moved by hand."""

import math

import pytest
import torch
from torch import nn

from unstall.watch.path import WeightPath


@pytest.mark.parametrize("straight", [True, False])
def test_straight_descent_is_far_above_the_null_and_a_random_walk_at_it(straight: bool) -> None:
    module = nn.Linear(100, 50)
    path = WeightPath(module, momentum=0.0, stride=20, window=16)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(50, 100, generator=generator)
    for _ in range(400):
        module.weight.grad = direction if straight else torch.randn(50, 100, generator=generator)
        path.before_step()
        module.weight.data -= 1e-3 * module.weight.grad
        path.after_step(torch.tensor(1.0))
    if straight:
        assert path.efficiency() == pytest.approx(4, rel=1e-3)  # 16 looks: the null is 1/4
        assert path.straightness() == pytest.approx(1, rel=1e-3)
        assert path.predicted_gain() == pytest.approx(1e-3 * float(direction.square().sum()), rel=1e-3)
    else:
        assert path.efficiency() == pytest.approx(1, rel=0.1)
        assert path.straightness() == pytest.approx(0, abs=0.1)


def test_zero_initial_weights_are_measured_as_if_they_had_been_drawn() -> None:
    module = nn.Linear(30, 12)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    path = WeightPath(module, momentum=0.0, stride=1, window=4)
    nn.init.ones_(module.weight)
    assert path.move() == pytest.approx(math.sqrt(30 * 12) / math.sqrt(12 / 3))


@pytest.mark.parametrize(("first", "last", "ratio"), [(2.0, 4.0, 0.5), (0.0, 0.0, 0.0), (1.0, 0.0, math.inf)])
def test_gradients_of_the_first_and_the_last_layer_are_compared(first: float, last: float, ratio: float) -> None:
    module = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3))
    path = WeightPath(module, momentum=0.0, stride=1, window=4)
    assert path.gradient_ratio() is None
    path.ends[0].grad, path.ends[1].grad = torch.full((20, 6), first), torch.full((3, 20), -last)  # type: ignore[index]
    path.before_step()
    path.after_step(torch.tensor(1.0))
    assert path.gradient_ratio() == ratio


def test_a_step_whose_gradients_overflow_tells_nothing() -> None:
    """As the first ones in half precision, which the gradient scaler leaves out."""
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    path, inputs = WeightPath(module, 0.0, 1, 4), torch.ones(2, 3)
    for number in range(3):
        module.zero_grad()
        loss = module(inputs).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        path.before_step()
        with torch.no_grad():
            for weight in module.parameters():
                assert weight.grad is not None
                if number:
                    weight -= 0.01 * weight.grad
                else:
                    weight.grad.fill_(math.inf)
        path.after_step(loss.detach())
        if number == 0:
            assert path.gradient_ratio() is None
    gain = path.predicted_gain()
    assert gain is not None
    assert 0 < gain < math.inf


def test_after_a_resume_the_way_is_measured_from_the_former_start() -> None:
    module = nn.Linear(3, 3)
    path = WeightPath(module, momentum=0.0, stride=1, window=4)
    path.go_on_from([weight.detach() - 1 for weight in module.parameters()])
    assert path.move() == pytest.approx(math.sqrt(12) / path.initial_norm)
