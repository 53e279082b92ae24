"""What a loss does with prediction and target, wrong and right."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, NUMBERS, ONES, Lit, X
from causes.modules import Loss, OfPlaces, faults, findings, of

OUTWEIGHED, NO_PROBABILITIES = "terms that outweigh the error", "no probabilities before the logarithm"


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
        (3, lambda out, y: F.cross_entropy(out, y) / (y > 9).sum(), LABELS, "a loss without a finite gradient"),
        (3, lambda out, y: F.cross_entropy(out, y) + out.detach().square().sum() + 9, LABELS, OUTWEIGHED),
        (3, lambda out, y: F.kl_div(out.softmax(1), F.one_hot(y, 3).float()), LABELS, NO_PROBABILITIES),
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
        (3, lambda out, y: F.cross_entropy(out, y) + 0.1, LABELS),
        (3, lambda out, y: F.kl_div(out.log_softmax(1), F.one_hot(y, 3).float(), reduction="batchmean"), LABELS),
    ],
)
def test_not_shown(outputs: int, loss: Loss, targets: Tensor) -> None:
    assert faults(Lit(outputs, loss), X, targets) == set()


COLUMN = NUMBERS[:, None]
SOFT = X[:, :3].softmax(1)
BINARY = F.binary_cross_entropy_with_logits
PAIRS: dict[str, list[tuple[int, Loss, Loss, Tensor]]] = {
    "more classes than outputs": [
        (1, lambda z, y: BINARY(z, y[:, None].float()), lambda z, y: BINARY(z, (y[:, None] > 0).float()), LABELS),
        (
            1,
            lambda z, y: likelihood(z[:, 0].sigmoid(), y),
            lambda z, y: likelihood(z[:, 0].sigmoid(), (y > 0).long()),
            LABELS,
        ),
    ],
    "targets out of the output's range": [
        (1, lambda z, y: F.mse_loss(nn.Sigmoid()(z), y), lambda z, y: F.mse_loss(z, y), COLUMN),
        (1, lambda z, y: F.l1_loss(z.tanh(), y), lambda z, y: F.l1_loss(z.tanh(), y / 10), COLUMN),
        (1, lambda z, y: (z.relu() - y).square().mean(), lambda z, y: (z.relu() - y.abs()).square().mean(), COLUMN),
        (
            1,
            lambda z, y: F.mse_loss(F.softplus(z).squeeze(1), y[:, 0]),
            lambda z, y: F.mse_loss(F.elu(z).squeeze(1), y[:, 0].relu()),
            COLUMN,
        ),
        (
            3,
            lambda z, y: nn.MSELoss()(z.softmax(1), y),
            lambda z, y: nn.MSELoss()(z.softmax(1), y.softmax(1)),
            3 * X[:, :3],
        ),
        (3, lambda z, q: F.kl_div(z.log_softmax(1), q.log()), lambda z, q: F.kl_div(z.log_softmax(1), q), SOFT),
    ],
    "shapes that broadcast": [
        (1, lambda z, y: nn.MSELoss()(z, y), lambda z, y: nn.MSELoss()(z.squeeze(1), y), NUMBERS),
        (1, lambda z, y: F.l1_loss(z, y), lambda z, y: F.l1_loss(z, y[:, None]), NUMBERS),
        (1, lambda z, y: F.smooth_l1_loss(z[:, 0], y[:, None]), lambda z, y: F.smooth_l1_loss(z, y[:, None]), NUMBERS),
        (1, lambda z, y: (y - z).pow(2).mean(), lambda z, y: (y - z.flatten()).pow(2).mean(), NUMBERS),
        (1, lambda z, y: torch.abs(z - y).mean(), lambda z, y: torch.abs(z.view(-1) - y).mean(), NUMBERS),
    ],
    "loss of the wrong sign": [
        (3, lambda z, y: -nn.CrossEntropyLoss()(z, y), lambda z, y: nn.CrossEntropyLoss()(z, y), LABELS),
        (
            3,
            lambda z, y: z.log_softmax(1)[range(32), y].mean(),
            lambda z, y: -z.log_softmax(1)[range(32), y].mean(),
            LABELS,
        ),
        (
            3,
            lambda z, y: (F.one_hot(y, 3) * z.log_softmax(1)).sum(1).mean(),
            lambda z, y: (F.one_hot(y, 3) * -z.log_softmax(1)).sum(1).mean(),
            LABELS,
        ),
        (1, lambda z, y: -F.mse_loss(z, y), lambda z, y: F.mse_loss(z, y), COLUMN),
        (1, lambda z, y: -(z - y).square().mean(), lambda z, y: (z - y).square().mean(), COLUMN),
        (1, lambda z, t: -BINARY(z, t), lambda z, t: BINARY(z, t), ONES),
        (1, lambda z, t: -likelihood(z.sigmoid(), t), lambda z, t: likelihood(z.sigmoid(), t), ONES),
    ],
    "classes compared as numbers": [
        (3, lambda z, y: nn.MSELoss()(z, F.one_hot(y, 3).float()), lambda z, y: nn.CrossEntropyLoss()(z, y), LABELS),
        (1, lambda z, t: (z.sigmoid() - t).abs().mean(), lambda z, t: BINARY(z, t), ONES),
    ],
    "targets of another scale than the output": [
        (1, lambda z, y: F.l1_loss(z, 1000 * y), lambda z, y: F.l1_loss(z, y), COLUMN),
        (1, lambda z, y: (z - 1000 * y).square().mean(), lambda z, y: (1000 * z - 1000 * y).square().mean(), COLUMN),
    ],
    "a sum where a mean is meant": [
        (3, lambda z, y: nn.CrossEntropyLoss(reduction="sum")(z, y), lambda z, y: nn.CrossEntropyLoss()(z, y), LABELS),
        (1, lambda z, y: (z - y).square().sum(), lambda z, y: (z - y).square().mean(), COLUMN),
        (
            1,
            lambda z, y: F.mse_loss(z, y, reduction="sum"),
            lambda z, y: F.mse_loss(z, y, reduction="sum") / len(y),
            COLUMN,
        ),
    ],
}


def likelihood(p: Tensor, t: Tensor) -> Tensor:
    return -(t * (p + 1e-6).log() + (1 - t) * (1 - p + 1e-6).log()).mean()


@pytest.mark.parametrize(
    ("fault", "case"), [(fault, case) for fault, cases in PAIRS.items() for case in range(len(cases))]
)
@pytest.mark.filterwarnings("ignore:Using a target size", "ignore:reduction")
def test_shown_in_the_faulty_one_and_not_in_its_repaired_twin(fault: str, case: int) -> None:
    outputs, faulty, repaired, targets = PAIRS[fault][case]
    assert fault in of(outputs, faulty, X, targets)
    assert of(outputs, repaired, X, targets) == set()


class States(Lit):
    """What an LSTM returns is the prediction."""

    def __init__(self) -> None:
        super().__init__(1, F.mse_loss)
        self.lstm = nn.LSTM(4, 2, batch_first=True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.mse_loss(self.lstm(batch[0])[0], batch[1])


def test_states_are_between_minus_one_and_one() -> None:
    sequences = torch.randn(16, 5, 4, generator=torch.Generator().manual_seed(0))
    assert "targets out of the output's range" in faults(States(), sequences, 3 * sequences[..., :2])
    assert faults(States(), sequences, sequences[..., :2].tanh()) == set()


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_of_sequences() -> None:
    sequences = torch.randn(16, 5, 4)
    targets = sequences[..., 0]
    assert faults(OfPlaces(1, lambda z, y: F.mse_loss(z[..., 0].sigmoid(), 9 * y)), sequences, targets) == {
        "targets out of the output's range"
    }
    assert faults(OfPlaces(1, lambda z, y: F.mse_loss(z[..., 0], y)), sequences, targets) == set()
    wrong = OfPlaces(3, lambda z, y: -F.cross_entropy(z.flatten(0, 1), y.flatten()))
    assert faults(wrong, sequences, torch.arange(80).reshape(16, 5) % 3) == set()  # not seen in places: missed


def test_the_line_that_compares_is_named(tmp_path: Path) -> None:
    def loss(out: Tensor, y: Tensor) -> Tensor:
        difference = out - y
        return difference.square().mean()

    (found,) = findings(Lit(1, loss), X, NUMBERS)
    assert found.site is not None
    assert (found.site.function, found.site.code) == ("loss", "difference = out - y")
    assert found.sentence.startswith("The prediction is (32, 1) and the target (32,)")
    assert found.where.endswith(f"(test_losses.py:{found.site.line}, in loss: difference = out - y)")


RARE = (torch.arange(32) % 8 == 0).long()
RARE_ONES = torch.stack([RARE, (torch.arange(32) % 16 == 1).long()], 1).float()
SHARES = torch.tensor([0.875, 0.125])


@pytest.mark.parametrize(
    ("outputs", "loss", "targets"),
    [
        (2, lambda weights: lambda out, y: F.cross_entropy(out, y, weights), RARE),
        (2, lambda weights: lambda out, y: F.nll_loss(out.log_softmax(1), y, weight=weights), RARE),
        (
            2,
            lambda weights: lambda out, t: F.binary_cross_entropy_with_logits(out, t, pos_weight=weights.flip(0)),
            RARE_ONES,
        ),
    ],
)
def test_weights_the_wrong_way_round(outputs: int, loss: Callable[[Tensor], Loss], targets: Tensor) -> None:
    fault = "rare classes that count still less"
    assert fault in of(outputs, loss(torch.tensor([0.875, 0.125])), X, targets)
    for right in (torch.tensor([0.125, 0.875]), torch.ones(2), torch.tensor([1.0, 0.9])):
        shown = of(outputs, loss(right if targets is RARE else torch.ones(2)), X, targets)
        assert fault not in shown


def test_masks_that_are_divided_once_too_often() -> None:
    fault = "labels that are not zeros and ones"
    assert fault in of(1, F.binary_cross_entropy_with_logits, X, ONES / 255)
    assert fault in of(1, lambda out, t: F.binary_cross_entropy(out.sigmoid(), t), X, ONES / 255)
    for targets in (ONES, 0.1 + 0.8 * ONES, ONES * torch.rand(32, 1), 0 * ONES):
        assert fault not in of(1, F.binary_cross_entropy_with_logits, X, targets)


def test_weights_of_samples_are_not_taken_for_those_of_classes() -> None:
    def loss(out: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, targets, torch.tensor([0.01, 0.01]))

    assert "rare classes that count still less" not in of(2, loss, X, RARE_ONES)
    assert of(2, lambda out, t: F.binary_cross_entropy_with_logits(out, t), X, RARE_ONES) == set()


def test_a_loss_that_is_no_number_has_no_sign() -> None:
    shown = of(3, lambda out, y: F.cross_entropy((out - 9) ** 0.5, y), X, LABELS)
    assert "a loss without a finite gradient" in shown
    assert "loss of the wrong sign" not in shown
