"""Where a step stops being finite: the function to blame, against steps in which it is known."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, NUMBERS, Lit, X
from unstall.audit import Call, observe


class ZeroHead(Lit):
    """What it returns is zero at first, and so is what it is compared with."""

    def __init__(self, outputs: int, loss: Any) -> None:
        super().__init__(outputs, loss)
        for weight in self.net[2].parameters():
            nn.init.zeros_(weight)


def stumble(module: Lit, targets: Tensor, inputs: Tensor = X) -> Call | None:
    return observe(module, [inputs, targets]).stumble


@pytest.mark.parametrize(
    ("loss", "function"),
    [
        (lambda out, y: (out[:, 0] - y).square().sqrt().mean(), "sqrt"),
        (lambda out, y: ((out[:, 0] - y) ** 2).pow(0.5).mean(), "pow"),
        (lambda out, y: (out[:, 0] - y).square().mean() / (y > 9).sum(), "div"),
        (lambda out, y: (out[:, 0] - y).square()[y > 9].mean(), "mean"),
    ],
)
def test_the_function_without_a_finite_value_or_slope(loss: Any, function: str) -> None:
    found = stumble(ZeroHead(1, loss), torch.zeros(32))
    assert found is not None
    assert found.name == function
    assert found.site is not None
    assert found.site.file == __file__


def test_rows_that_are_masked_as_a_whole_and_left_out_of_the_loss() -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        masked = out.masked_fill((y == 0)[:, None], -torch.inf).softmax(1)
        return torch.where((y == 0)[:, None], 0.0, masked @ out.T).square().mean()

    found = stumble(Lit(3, loss), LABELS)
    assert found is not None
    assert found.name == "softmax"
    sound = Lit(3, lambda out, y: out.masked_fill(F.one_hot(y, 3).bool(), -torch.inf).softmax(1).square().mean())
    assert stumble(sound, LABELS) is None


def test_what_is_finite_or_given_so_is_not_to_blame() -> None:
    assert stumble(Lit(3, F.cross_entropy), LABELS) is None
    assert stumble(ZeroHead(1, lambda out, y: ((out[:, 0] - y).square() + 1e-8).sqrt().mean()), torch.zeros(32)) is None
    assert stumble(Lit(1, lambda out, y: (out[:, 0] - y).square().sqrt().mean()), NUMBERS) is None
    spoilt = X.clone()
    spoilt[3, 1] = torch.nan
    assert stumble(Lit(3, F.cross_entropy), LABELS, spoilt) is None
    huge = Lit(3, lambda out, y: F.cross_entropy(1e38 * 1e38 * out, y))  # no function is outside its domain
    assert stumble(huge, LABELS) is None
