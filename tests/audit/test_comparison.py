"""What a loss compares, however it is written."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, NUMBERS, ONES, Lit, X
from unstall.audit import observe
from unstall.audit.comparison import Comparison

Loss = Callable[[Tensor, Tensor], Tensor]


def compared(outputs: int, loss: Loss, targets: Tensor) -> Comparison:
    found = observe(Lit(outputs, loss), [X, targets]).comparison
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("loss", "name", "activation"),
    [
        (F.cross_entropy, "cross_entropy", None),
        (nn.CrossEntropyLoss(), "cross_entropy", None),
        (lambda out, y: F.nll_loss(out.log_softmax(1), y), "nll_loss", "log_softmax"),
        (lambda out, y: -(F.one_hot(y, 3) * out.softmax(1).log()).sum(1).mean(), "mul", "softmax"),
        (lambda out, y: -out.log_softmax(-1).gather(1, y[:, None]).mean(), "gather", "log_softmax"),
        (lambda out, y: F.cross_entropy(out.relu(), y), "cross_entropy", "relu"),
    ],
)
def test_classes(loss: Loss, name: str, activation: str | None) -> None:
    found = compared(3, loss, LABELS)
    assert (found.loss, found.likelihood, found.units) == (name, True, 3)
    assert (None if found.activation is None else found.activation.name) == activation
    assert found.labels is not None
    assert torch.equal(found.labels, LABELS)
    assert found.logits.shape == (32, 3)


def test_a_binary_likelihood_by_hand_is_told_from_one_of_classes() -> None:
    def by_hand(out: Tensor, t: Tensor) -> Tensor:
        p = out.sigmoid().clamp(1e-6, 1 - 1e-6)
        return -(t * p.log() + (1 - t) * (1 - p).log()).mean()

    assert compared(1, by_hand, ONES).complement
    assert not compared(3, lambda out, y: -(F.one_hot(y, 3) * out.softmax(1).log()).sum(1).mean(), LABELS).complement


def test_numbers_and_their_squares() -> None:
    assert compared(1, lambda out, y: F.mse_loss(out[:, 0], y), NUMBERS).loss == "mse_loss"
    squares = compared(1, lambda out, y: (out[:, 0] - y).pow(2).mean(), NUMBERS)
    assert (squares.loss, squares.squared, squares.likelihood) == ("sub", True, False)
    assert not compared(1, lambda out, y: (out[:, 0] - y).abs().mean(), NUMBERS).squared


def test_an_autoencoder_compares_with_its_input_whatever_labels_there_are() -> None:
    class Autoencoder(Lit):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.mse_loss(self.net(batch[0]), batch[0])

    seen = observe(Autoencoder(4, F.mse_loss), [X, LABELS])
    assert seen.comparison is not None
    assert torch.equal(seen.comparison.target, X)
    assert seen.reference is not None
    assert (seen.reference.kind, seen.reference.part) == ("squares", 0)


def test_a_loss_of_nothing_in_the_batch_compares_nothing() -> None:
    assert observe(Lit(3, lambda out, _: out.square().mean()), [X, LABELS]).comparison is None


WEIGHTS = torch.rand(32, 1, generator=torch.Generator().manual_seed(0))


class Third(Lit):
    """Its loss gets a third part of the batch."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.loss(self.net(batch[0]), *batch[1:])


@pytest.mark.parametrize(
    "loss",
    [
        lambda out, y, w: ((out - y) ** 2 * w).mean(),
        lambda out, y, w: (w * (out - y).square()).sum() / w.sum(),
        lambda out, y, w: torch.where(w > 0.5, (out - y) ** 2, torch.zeros(())).mean(),
        lambda out, y, w: ((out - y) ** 2)[w > 0.5].mean(),
        lambda out, y, w: (F.mse_loss(out, y, reduction="none") * w).mean(),
    ],
)
def test_weights_and_masks_are_no_targets(loss: Loss) -> None:
    found = observe(Third(1, loss), [X, NUMBERS[:, None], WEIGHTS]).comparison
    assert found is not None
    assert torch.equal(found.target, NUMBERS[:, None])
    assert torch.equal(found.prediction, found.logits)
    assert found.weighted


def test_weights_do_not_hide_the_labels() -> None:
    def loss(out: Tensor, y: Tensor, w: Tensor) -> Tensor:
        return (-(F.one_hot(y, 3) * out.log_softmax(1)).sum(1, keepdim=True) * w).mean()

    found = observe(Third(3, loss), [X, LABELS, WEIGHTS]).comparison
    assert found is not None
    assert found.labels is not None
    assert torch.equal(found.labels, LABELS)
    assert (found.loss, found.weighted, found.likelihood) == ("mul", True, True)


def test_what_was_changed_in_place_is_followed() -> None:
    def in_place(out: Tensor, y: Tensor) -> Tensor:
        out += 1
        return F.cross_entropy(out.mul_(2).relu_(), y)

    found = compared(3, in_place, LABELS)
    assert [call.name for call in found.path] == ["add", "mul", "relu"]
    assert found.layer is not None
    assert found.layer.name == "linear"


def test_more_than_one_loss_is_noted_and_computed_targets_are() -> None:
    both = compared(3, lambda out, y: F.cross_entropy(out, y) + F.mse_loss(out, F.one_hot(y, 3).float()), LABELS)
    assert not both.alone
    assert compared(3, F.cross_entropy, LABELS).alone
    assert compared(1, lambda out, y: F.mse_loss(out[:, 0], y.log1p()), NUMBERS.abs()).computed
    assert not compared(3, lambda out, y: F.mse_loss(out, F.one_hot(y, 3).float()), LABELS).computed


def test_labels_are_those_of_what_is_compared_not_of_the_layer_before() -> None:
    class Prototypes(Lit):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            return F.cross_entropy(-torch.cdist(self.net(batch[0]), torch.eye(3, 8)), batch[1])

    found = observe(Prototypes(8, F.cross_entropy), [X, LABELS]).comparison
    assert found is not None
    assert (found.prediction.shape, found.logits.shape) == ((32, 3), (32, 8))
    assert found.labels is not None
    assert observe(Prototypes(8, F.cross_entropy), [X, LABELS]).toward_target == 1
