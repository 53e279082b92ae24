"""What a loss does with prediction and target, wrong and right."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audit.modules import LABELS, NUMBERS, ONES, Lit, X
from causes.modules import Loss, faults


@pytest.mark.parametrize(
    ("outputs", "loss", "targets", "fault"),
    [
        (
            1,
            lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y.float()),
            LABELS,
            "more classes than outputs",
        ),
        (1, lambda out, y: F.mse_loss(out[:, 0].sigmoid(), y), 30 + NUMBERS, "targets out of the output's range"),
        (1, lambda out, y: (out[:, 0].tanh() - y).abs().mean(), 30 + NUMBERS, "targets out of the output's range"),
        (1, F.mse_loss, NUMBERS, "shapes that broadcast"),
        (1, lambda out, y: (out - y).square().mean(), NUMBERS, "shapes that broadcast"),
        (3, lambda out, y: -F.cross_entropy(out, y), LABELS, "loss of the wrong sign"),
        (3, lambda out, y: out.log_softmax(1).gather(1, y[:, None]).mean(), LABELS, "loss of the wrong sign"),
        (3, lambda out, y: F.mse_loss(out.softmax(1), F.one_hot(y, 3).float()), LABELS, "classes compared as numbers"),
        (1, lambda out, y: F.mse_loss(out[:, 0], y), 1000 * NUMBERS, "targets of another scale than the output"),
        (3, lambda out, y: F.cross_entropy(out, y, reduction="sum"), LABELS, "a sum where a mean is meant"),
    ],
)
@pytest.mark.filterwarnings("ignore:Using a target size")
def test_shown(outputs: int, loss: Loss, targets: Tensor, fault: str) -> None:
    assert fault in faults(Lit(outputs, loss), X, targets)


@pytest.mark.parametrize(
    ("outputs", "loss", "targets"),
    [
        (1, lambda out, y: F.mse_loss(out[:, 0], y), NUMBERS),
        (1, lambda out, y: F.mse_loss(out.squeeze(), y), NUMBERS),
        (1, lambda out, y: F.mse_loss(out[:, 0].tanh(), y), NUMBERS.tanh()),
        (1, lambda out, y: F.l1_loss(out, y[:, None]), NUMBERS),
        (1, lambda out, t: F.binary_cross_entropy(out.sigmoid(), t), ONES),
        (1, lambda out, y: F.poisson_nll_loss(out[:, 0], y), NUMBERS.abs().round()),
        (3, lambda out, y: F.cross_entropy(out, y, torch.tensor([1.0, 5.0, 1.0])), LABELS),
    ],
)
def test_not_shown(outputs: int, loss: Loss, targets: Tensor) -> None:
    assert faults(Lit(outputs, loss), X, targets) == set()
