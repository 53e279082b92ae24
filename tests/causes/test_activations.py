"""What comes out of the last layer, wrong in several ways and right in as many."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, ONES, Lit, X
from causes.modules import Loss, faults


def by_hand(make: Loss) -> Loss:
    return lambda out, y: -(F.one_hot(y, 3) * make(out, y).log()).sum(1).mean()


def binary(make: Callable[[Tensor], Tensor]) -> Loss:
    def loss(out: Tensor, t: Tensor) -> Tensor:
        p = make(out).clamp(1e-6, 1 - 1e-6)
        return -(t * p.log() + (1 - t) * (1 - p).log()).mean()

    return loss


@pytest.mark.parametrize(
    ("outputs", "loss", "targets", "fault"),
    [
        (1, lambda out, t: F.binary_cross_entropy(out.softmax(1), t), ONES, "softmax of one unit"),
        (1, lambda out, t: F.mse_loss(nn.Softmax(dim=-1)(out), t), ONES, "softmax of one unit"),
        (3, lambda out, y: F.nll_loss(F.log_softmax(out, 0), y), LABELS, "softmax over the batch"),
        (3, lambda out, y: F.cross_entropy(out.softmax(1), y), LABELS, "activation before a loss of logits"),
        (
            1,
            lambda out, t: F.binary_cross_entropy_with_logits(out.sigmoid(), t),
            ONES,
            "activation before a loss of logits",
        ),
        (3, lambda out, y: F.nll_loss(out.softmax(1), y), LABELS, "no probabilities before the logarithm"),
        (3, lambda out, y: F.nll_loss(out, y), LABELS, "no probabilities before the logarithm"),
        (3, by_hand(lambda out, _: out.sigmoid()), LABELS, "no probabilities before the logarithm"),
        (3, by_hand(lambda out, _: out.relu() + 1e-6), LABELS, "no probabilities before the logarithm"),
        (1, binary(lambda out: out), ONES, "no sigmoid before the logarithm"),
        (1, binary(torch.relu), ONES, "no sigmoid before the logarithm"),
        (3, by_hand(lambda out, _: out.softmax(1)), LABELS, "a logarithm of zero"),
        (3, lambda out, y: F.cross_entropy(out.relu(), y), LABELS, "activation on the logits"),
    ],
)
def test_shown(outputs: int, loss: Loss, targets: Tensor, fault: str) -> None:
    assert fault in faults(Lit(outputs, loss), X, targets)


@pytest.mark.parametrize(
    ("outputs", "loss", "targets"),
    [
        (3, F.cross_entropy, LABELS),
        (3, lambda out, y: F.nll_loss(out.log_softmax(1), y), LABELS),
        (3, lambda out, y: F.cross_entropy(out.log_softmax(1), y), LABELS),  # the same twice changes nothing
        (3, by_hand(lambda out, _: out.softmax(1).clamp(min=1e-7)), LABELS),
        (1, F.binary_cross_entropy_with_logits, ONES),
        (1, lambda out, t: F.binary_cross_entropy(out.sigmoid(), t), ONES),
        (1, binary(torch.sigmoid), ONES),
        (3, lambda out, y: F.binary_cross_entropy_with_logits(out, F.one_hot(y, 3).float()), LABELS),
    ],
)
def test_not_shown(outputs: int, loss: Loss, targets: Tensor) -> None:
    assert faults(Lit(outputs, loss), X, targets) == set()
