"""What comes out of the last layer, wrong in several ways and right in as many."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, ONES, Lit, X
from causes.modules import Loss, OfPlaces, faults, findings, of


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


MANY = (X[:, :3] > 0).float()
PAIRS: dict[str, list[tuple[int, Loss, Loss, Tensor]]] = {
    "softmax of one unit": [
        (
            1,
            lambda z, t: F.binary_cross_entropy(z.softmax(-1), t),
            lambda z, t: F.binary_cross_entropy(z.sigmoid(), t),
            ONES,
        ),
        (
            1,
            lambda z, t: F.binary_cross_entropy(nn.Softmax(1)(z)[:, 0], t[:, 0]),
            lambda z, t: F.binary_cross_entropy(z.sigmoid()[:, 0], t[:, 0]),
            ONES,
        ),
        (1, lambda z, t: (torch.softmax(z, 1) - t).abs().mean(), lambda z, t: (z.sigmoid() - t).abs().mean(), ONES),
        (1, binary(lambda z: F.softmax(z, dim=1)), binary(torch.sigmoid), ONES),
        (1, lambda z, t: F.mse_loss(z / z.sum(1, keepdim=True), t), lambda z, t: F.mse_loss(z, t), ONES),
        (
            1,
            lambda z, t: F.cross_entropy(z, 0 * t[:, 0].long()),
            lambda z, t: F.binary_cross_entropy_with_logits(z, t),
            ONES,
        ),
    ],
    "softmax over the batch": [
        (3, lambda z, y: F.nll_loss(z.log_softmax(0), y), lambda z, y: F.nll_loss(z.log_softmax(1), y), LABELS),
        (
            3,
            lambda z, y: F.nll_loss(nn.LogSoftmax(dim=0)(z), y),
            lambda z, y: F.nll_loss(nn.LogSoftmax(dim=1)(z), y),
            LABELS,
        ),
        (3, by_hand(lambda z, _: z.softmax(-2) + 1e-6), by_hand(lambda z, _: z.softmax(-1) + 1e-6), LABELS),
        (
            3,
            lambda z, t: F.binary_cross_entropy(z.softmax(0), t),
            lambda z, t: F.binary_cross_entropy(z.sigmoid(), t),
            MANY,
        ),
    ],
    "activation before a loss of logits": [
        (
            3,
            lambda z, y: nn.CrossEntropyLoss()(nn.Softmax(dim=1)(z), y),
            lambda z, y: nn.CrossEntropyLoss()(z, y),
            LABELS,
        ),
        (3, lambda z, y: F.cross_entropy(z.sigmoid(), y), lambda z, y: F.cross_entropy(z, y), LABELS),
        (
            3,
            lambda z, y: F.cross_entropy(F.dropout(z.softmax(1), 0.1), y),
            lambda z, y: F.cross_entropy(F.dropout(z, 0.1), y),
            LABELS,
        ),
        (
            3,
            lambda z, y: F.nll_loss(z.softmax(1).log_softmax(1), y),
            lambda z, y: F.nll_loss(z.log_softmax(1), y),
            LABELS,
        ),
        (3, by_hand(lambda z, _: z.sigmoid().softmax(1) + 1e-6), by_hand(lambda z, _: z.softmax(1) + 1e-6), LABELS),
        (3, lambda z, t: nn.BCEWithLogitsLoss()(z.sigmoid(), t), lambda z, t: nn.BCEWithLogitsLoss()(z, t), MANY),
        (
            1,
            lambda z, t: F.binary_cross_entropy_with_logits(z.sigmoid().squeeze(1), t[:, 0]),
            lambda z, t: F.binary_cross_entropy_with_logits(z.squeeze(1), t[:, 0]),
            ONES,
        ),
    ],
    "no probabilities before the logarithm": [
        (3, lambda z, y: nn.NLLLoss()(z.softmax(1), y), lambda z, y: nn.NLLLoss()(z.softmax(1).log(), y), LABELS),
        (3, lambda z, y: F.nll_loss(z, y), lambda z, y: F.nll_loss(z - z.logsumexp(1, keepdim=True), y), LABELS),
        (3, by_hand(lambda z, _: z.clamp(1e-6, 1)), by_hand(lambda z, _: z.softmax(1).clamp(1e-6, 1)), LABELS),
        (
            3,
            by_hand(lambda z, _: z.tanh().clamp(min=1e-6)),
            by_hand(lambda z, _: z.exp() / z.exp().sum(1, keepdim=True)),
            LABELS,
        ),
    ],
    "no sigmoid before the logarithm": [
        (1, binary(lambda z: z), binary(lambda z: z.sigmoid()), ONES),
        (1, binary(F.relu), binary(torch.special.ndtr), ONES),
        (3, binary(lambda z: z.tanh()), binary(lambda z: (z.tanh() + 1) / 2), MANY),
    ],
    "activation on the logits": [
        (3, lambda z, y: F.cross_entropy(nn.ReLU()(z), y), lambda z, y: F.cross_entropy(z, y), LABELS),
        (3, lambda z, y: F.nll_loss(z.tanh().log_softmax(1), y), lambda z, y: F.nll_loss(z.log_softmax(1), y), LABELS),
        (
            3,
            lambda z, y: F.cross_entropy(F.relu(z, inplace=True), y),
            lambda z, y: F.cross_entropy(F.leaky_relu(z), y),
            LABELS,
        ),
        (1, binary(lambda z: z.relu().sigmoid()), binary(torch.sigmoid), ONES),
    ],
}


@pytest.mark.parametrize(
    ("fault", "case"), [(fault, case) for fault, cases in PAIRS.items() for case in range(len(cases))]
)
def test_shown_in_the_faulty_one_and_not_in_its_repaired_twin(fault: str, case: int) -> None:
    outputs, faulty, repaired, targets = PAIRS[fault][case]
    assert fault in of(outputs, faulty, X, targets)
    assert fault not in of(outputs, repaired, X, targets)
    assert of(outputs, repaired, X, targets) <= {"a logarithm of zero", "classes compared as numbers"}


def test_of_sequences_and_of_several_outputs() -> None:
    sequences, places = torch.randn(16, 5, 4), torch.arange(80).reshape(16, 5) % 3
    twice = OfPlaces(3, lambda z, y: F.cross_entropy(z.softmax(-1).transpose(1, 2), y))
    assert faults(twice, sequences, places) == {"activation before a loss of logits"}
    assert faults(OfPlaces(3, lambda z, y: F.cross_entropy(z.transpose(1, 2), y)), sequences, places) == set()
    flat = OfPlaces(3, lambda z, y: F.cross_entropy(z.softmax(-1).reshape(-1, 3), y.reshape(-1)))
    assert faults(flat, sequences, places) == {"activation before a loss of logits"}

    def two(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z[:, :3].softmax(1), y) + F.cross_entropy(z[:, 3:], y)

    assert "activation before a loss of logits" in of(6, two, X, LABELS)
    assert of(6, lambda z, y: F.cross_entropy(z[:, :3], y) + F.cross_entropy(z[:, 3:], y), X, LABELS) == set()


def test_the_line_of_the_activation_is_named_in_the_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "my_model.py"
    file.write_text(
        "import pytorch_lightning as pl\nimport torch\nfrom torch import nn\n\n\n"
        "class Model(pl.LightningModule):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.net, self.loss = nn.Linear(4, 3), nn.CrossEntropyLoss()\n\n"
        "    def forward(self, x):\n"
        "        return torch.softmax(self.net(x), dim=1)\n\n"
        "    def training_step(self, batch, batch_idx):\n"
        "        return self.loss(self(batch[0]), batch[1])\n"
    )
    spec = importlib.util.spec_from_file_location("my_model", file)
    assert spec is not None
    assert spec.loader is not None
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    (found,) = findings(mine.Model(), X, LABELS)
    assert found.site is not None
    assert (found.site.file, found.site.line, found.site.function) == (str(file), 12, "forward")
    assert found.where == (
        "softmax is applied before cross_entropy, which applies its own "
        "(my_model.py:12, in forward: return torch.softmax(self.net(x), dim=1))"
    )
