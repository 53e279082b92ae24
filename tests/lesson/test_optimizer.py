"""Keras's RMSprop: its formula, number by number, and what an optimizer has to be able to do."""

import copy
import math

import pytest
import torch
from torch import nn

from lesson.optimizer import KerasRMSprop


def reference(weight: float, gradients: list[float], rate: float, alpha: float, eps: float) -> float:
    """The formula of Keras's documentation, in Python's double precision."""
    average = 0.0
    for gradient in gradients:
        average = alpha * average + (1 - alpha) * gradient**2
        weight -= rate * gradient / math.sqrt(average + eps)
    return weight


def test_steps_follow_the_formula_of_keras() -> None:
    torch.manual_seed(0)
    scales = torch.tensor([1.0, 1e-2, 1e-4, 1e-8, 0.0])
    gradients = torch.randn(30, 5) * scales
    weights = nn.Parameter(torch.linspace(-1, 1, 5))
    begun = weights.tolist()
    optimizer = KerasRMSprop([weights], lr=0.03, alpha=0.8, eps=1e-6)
    for gradient in gradients:
        weights.grad = gradient
        optimizer.step()
    expected = [reference(begun[k], gradients[:, k].tolist(), 0.03, 0.8, 1e-6) for k in range(5)]
    assert weights.tolist() == pytest.approx(expected, rel=1e-5)
    assert weights[4] == begun[4]  # no gradient, no step


def test_three_steps_are_those_that_keras_made() -> None:
    # keras 3.15 with RMSprop(learning_rate=0.1) on one weight of 1.0, gradients 1, -0.5, 2.
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = KerasRMSprop([weight], lr=0.1)
    seen = []
    for gradient in (1.0, -0.5, 2.0):
        weight.grad = torch.tensor([gradient])
        optimizer.step()
        seen.append(weight.item())
    assert seen == pytest.approx([0.6837723851203918, 0.8312143087387085, 0.5493564009666443], rel=1e-6)


def test_groups_keep_their_rates_and_unused_weights_stay() -> None:
    first, second, unused = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = KerasRMSprop([{"params": [first, unused]}, {"params": [second], "lr": 0.5}], lr=0.1)
    first.grad = second.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(unused, torch.ones(2))
    assert (1 - second).tolist() == pytest.approx((5 * (1 - first)).tolist(), rel=1e-5)


def test_a_closure_is_run_with_gradients_and_its_loss_returned() -> None:
    weight = nn.Parameter(torch.tensor(2.0))
    optimizer = KerasRMSprop([weight], lr=0.1)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = weight**2
        torch.autograd.backward(loss)
        return loss

    assert optimizer.step(closure).item() == 4.0
    assert weight.item() < 2.0


def test_a_reloaded_optimizer_goes_on_with_the_same_steps() -> None:
    weights = [nn.Parameter(torch.ones(3)) for _ in range(2)]
    optimizers = [KerasRMSprop([weight], lr=0.1) for weight in weights]
    for _ in range(3):
        weights[0].grad = torch.tensor([1.0, 2.0, 3.0])
        optimizers[0].step()
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    with torch.no_grad():
        weights[1].copy_(weights[0])
    for weight, optimizer in zip(weights, optimizers, strict=True):
        weight.grad = torch.tensor([3.0, 2.0, 1.0])
        optimizer.step()
    assert torch.equal(weights[0], weights[1])


@pytest.mark.parametrize("setting", [{"lr": -1.0}, {"lr": math.nan}, {"alpha": 1.0}, {"eps": 0.0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        KerasRMSprop([nn.Parameter(torch.ones(1))], **setting)
