"""Which constant prediction a loss is compared with."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audit.modules import LABELS, NUMBERS, ONES, Lit, X
from unstall.audit import Reference, observe

SECOND = (X[:, 1:2] > 0.3).float()
WEIGHTS = torch.tensor([1.0, 2.0, 3.0])
ONE_HOT = F.one_hot(LABELS, 3).float()


@pytest.mark.parametrize(
    ("outputs", "loss", "targets", "expected"),
    [
        (3, F.cross_entropy, LABELS, Reference("classes", 1)),
        (3, F.cross_entropy, ONE_HOT, Reference("classes", 1, one_hot=True)),
        (3, lambda out, y: F.cross_entropy(out, y, WEIGHTS), LABELS, Reference("classes", 1, False, (1.0, 2.0, 3.0))),
        (3, lambda out, y: F.cross_entropy(out, y, WEIGHTS[:1].expand(3)), LABELS, Reference("classes", 1)),
        (3, lambda out, y: F.cross_entropy(out, y, label_smoothing=0.1), LABELS, None),
        (3, lambda out, y: F.cross_entropy(out, y, reduction="sum"), LABELS, None),
        (3, lambda out, y: F.mse_loss(out.softmax(1), F.one_hot(y, 3).float()), LABELS, None),
        (1, F.binary_cross_entropy_with_logits, ONES, Reference("binary", 1)),
        (1, lambda out, y: F.mse_loss(out[:, 0], y), NUMBERS, Reference("squares", 1)),
        (1, lambda out, y: (out[:, 0] - y).square().mean(), NUMBERS, Reference("squares", 1)),
        (1, lambda out, y: (out[:, 0] - y).abs().mean(), NUMBERS, None),
        (1, lambda out, y: F.mse_loss(out[:, 0], y.log1p().nan_to_num()), NUMBERS, None),
        # however it is written
        (3, lambda out, y: F.cross_entropy(out, y, reduction="none").mean(), LABELS, Reference("classes", 1)),
        (3, lambda out, y: -out.softmax(1).gather(1, y[:, None]).log().mean(), LABELS, Reference("classes", 1)),
        (3, lambda out, y: -out.log_softmax(1)[range(32), y].mean(), LABELS, Reference("classes", 1)),
        (3, lambda out, y: (out.logsumexp(1) - out[range(32), y]).mean(), LABELS, Reference("classes", 1)),
        (1, lambda out, t: F.binary_cross_entropy(out.sigmoid(), t), ONES, Reference("binary", 1)),
        (1, lambda out, t: (F.softplus(out) - t * out).mean(), ONES, Reference("binary", 1)),
        (2, F.binary_cross_entropy_with_logits, torch.cat([ONES, SECOND], 1), Reference("binary", 1)),
        (3, lambda out, y: F.mse_loss(out.softmax(1), y), ONE_HOT, Reference("squares", 1)),
        # more than the comparison, or less
        (3, lambda out, y: F.cross_entropy(out, y) - 5, LABELS, None),
        (3, lambda out, y: F.cross_entropy(out, y) + out.square().mean(), LABELS, None),
        (3, lambda out, y: 2 * F.cross_entropy(out, y), LABELS, None),
        (1, lambda out, y: F.mse_loss(out[:, 0], y).sqrt(), NUMBERS, None),
        (1, lambda out, t: F.binary_cross_entropy_with_logits(out, t, pos_weight=WEIGHTS[1:2]), ONES, None),
        (3, lambda out, y: -(1 - out.softmax(1).gather(1, y[:, None])).mean(), LABELS, None),
    ],
)
def test_reference(outputs: int, loss: object, targets: Tensor, expected: Reference | None) -> None:
    assert observe(Lit(outputs, loss), [X, targets]).reference == expected  # type: ignore[arg-type]


def test_targets_are_taken_from_where_they_lie() -> None:
    assert torch.equal(Reference("classes", 1, one_hot=True).targets([X, ONE_HOT]), LABELS)  # type: ignore[arg-type]
    assert Reference("classes", 2).targets([X, ONE_HOT]) is None


def squares(out: Tensor, y: Tensor) -> Tensor:
    return F.mse_loss(out[:, 0], y)


def test_which_share_of_a_loss_is_its_error() -> None:
    chance = -(torch.bincount(LABELS) / 32 * (torch.bincount(LABELS) / 32).log()).sum()
    for weight in (1.0, 3.0, 32.0):
        scaled = observe(Lit(3, lambda out, y: weight * F.cross_entropy(out, y)), [X, LABELS])  # noqa: B023
        assert scaled.error_share == pytest.approx(1, abs=1e-3)
    penalised = observe(Lit(3, lambda out, y: F.cross_entropy(out, y) + 9 * chance), [X, LABELS])
    assert penalised.error_share == pytest.approx(0.1, abs=1e-3)
    variance = NUMBERS.var(correction=0)
    assert observe(Lit(1, lambda out, y: squares(out, y) + variance), [X, NUMBERS]).error_share == pytest.approx(
        0.5, abs=1e-3
    )
    assert observe(Lit(1, lambda out, y: (out[:, 0] - y).abs().mean() + 9), [X, NUMBERS]).error_share is None
