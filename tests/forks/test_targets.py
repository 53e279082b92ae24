"""What the targets ask for, and a yardstick for modules whose losses cannot be compared."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unstall.audit import observe
from unstall.forks.subject import Subject
from unstall.forks.targets import AsTargetsAsk, quality, task_of, with_balance

X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
LABELS = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
NUMBERS = 40 + 10 * X[:, :1]


class Lit(pl.LightningModule):
    """A linear layer, what comes after it, and a loss."""

    def __init__(self, outputs: int, loss: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(3, outputs)
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.loss(self.net(batch[0]), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def one_sigmoid(logits: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float())


def squares_of_sigmoid(logits: Tensor, numbers: Tensor) -> Tensor:
    return nn.functional.mse_loss(logits.sigmoid(), numbers)


CASES: list[tuple[str, Lit, Tensor]] = [
    ("classes", Lit(3, nn.functional.cross_entropy), LABELS),
    ("classes", Lit(1, one_sigmoid), LABELS),
    ("binary", Lit(1, squares_of_sigmoid), (LABELS > 0).float()[:, None]),
    ("numbers", Lit(1, squares_of_sigmoid), NUMBERS),
    ("numbers", Lit(1, lambda out, numbers: (out - numbers[:, 0]).abs().mean()), NUMBERS),
]


@pytest.mark.parametrize(("kind", "module", "targets"), CASES)
def test_the_task_is_read_off_the_targets_and_learned_with_their_loss(kind: str, module: Lit, targets: Tensor) -> None:
    batch = [X, targets]
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    assert (task.kind, task.part, task.weight) == (kind, 1, "net.weight")
    changed = AsTargetsAsk(module, task)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    optimizer = torch.optim.Adam(changed.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        changed.training_step(batch, 0).backward()
        optimizer.step()
    reached = quality(Subject(module, [batch], [batch]), changed, changed.state_dict(), [batch], task)
    assert reached is not None
    assert reached > 0.8
    assert all(before[name].equal(weight) for name, weight in module.state_dict().items())


def test_of_inputs_that_are_to_be_returned_the_targets_come_last() -> None:
    batch = [X, X.clone()]
    module = Lit(3, nn.functional.mse_loss)
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    assert task.part == 1


def test_quality_is_accuracy_and_the_share_of_variance_explained() -> None:
    module, batch = Lit(3, nn.functional.cross_entropy), [X, LABELS]
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    halves = [[X[:40], LABELS[:40]], [X[40:], LABELS[40:]]]
    right = (module.net(X).argmax(1) == LABELS).float()
    expected = float(torch.stack([right[label == LABELS].mean() for label in range(3)]).mean())
    found = quality(Subject(module, halves, halves), module, module.state_dict(), halves, task)
    assert found == pytest.approx(expected)
    module, batch = Lit(1, nn.functional.mse_loss), [X, NUMBERS]
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    residual = (module.net(X) - NUMBERS).detach()
    expected = 1 - float(residual.square().sum() / (NUMBERS - NUMBERS.mean()).square().sum())
    halves = [[X[:40], NUMBERS[:40]], [X[40:], NUMBERS[40:]]]
    found = quality(Subject(module, halves, halves), module, module.state_dict(), halves, task)
    assert found == pytest.approx(expected, rel=1e-4)


SEQUENCES = torch.randn(24, 5, 3, generator=torch.Generator().manual_seed(0))
PLACES = SEQUENCES.argmax(-1)


class OfPlaces(Lit):
    """`(batch, places, 3)` to logits `(batch, places, classes)`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.net(batch[0]), batch[1])


@pytest.mark.parametrize(
    "loss",
    [
        lambda out, y: nn.functional.cross_entropy(out.flatten(0, 1), y.flatten()),
        lambda out, y: nn.functional.cross_entropy(out.reshape(-1, 3), y.reshape(-1)),
        lambda out, y: nn.functional.cross_entropy(out.transpose(1, 2), y),
    ],
)
def test_each_place_of_a_sequence_is_a_sample(loss: Any) -> None:
    module, batch = OfPlaces(3, loss), [SEQUENCES, PLACES]
    seen = observe(module, batch)
    task = task_of(module, seen, [batch])
    assert task is not None
    assert (task.kind, task.classes, task.one_hot) == ("classes", 3, False)
    right = (module.net(SEQUENCES).argmax(-1) == PLACES).float()
    expected = float(torch.stack([right[label == PLACES].mean() for label in range(3)]).mean())
    reached = quality(Subject(module, [batch], [batch]), module, module.state_dict(), [batch], task)
    assert reached == pytest.approx(expected)
    changed = AsTargetsAsk(module, task)
    torch.testing.assert_close(changed.training_step(batch, 0), loss(module.net(SEQUENCES), PLACES))
    assert seen.reference is not None  # of which the loss of a constant is made
    assert seen.reference.kind == "classes"


def test_rare_classes_are_weighted_by_one_over_their_share() -> None:
    module, batch = Lit(2, nn.functional.cross_entropy), [X, (torch.arange(len(X)) % 8 == 0).long()]
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    weighted = with_balance(task, [batch])
    logits, shares = module.net(X), batch[1].bincount() / len(X)
    each = nn.functional.cross_entropy(logits, batch[1], reduction="none")
    per_class = torch.stack([each[batch[1] == label].mean() for label in range(2)])
    torch.testing.assert_close(weighted.loss(logits, batch), per_class.mean())
    assert weighted.weights is not None
    torch.testing.assert_close(weighted.weights, 0.5 / shares)


def test_of_many_columns_zeros_and_ones_count_alike() -> None:
    columns = torch.zeros(len(X), 6)
    columns[torch.arange(len(X)), torch.arange(len(X)) % 6] = 1
    columns[::4, 0] = 1
    module, batch = Lit(6, nn.functional.binary_cross_entropy_with_logits), [X, columns]
    task = task_of(module, observe(module, batch), [batch])
    assert task is not None
    assert task.kind == "binary"
    subject = Subject(module, [batch], [batch])
    with torch.no_grad():
        module.net.weight.zero_()
        module.net.bias.fill_(-9)
    assert quality(subject, module, module.state_dict(), [batch], task) == 0.5  # none is ever found
    weights = with_balance(task, [batch]).weights
    assert weights is not None
    torch.testing.assert_close(weights, (64 - columns.sum(0)) / columns.sum(0))


def test_targets_that_are_computed_have_no_task() -> None:
    module = Lit(1, lambda out, numbers: nn.functional.mse_loss(out, numbers.flip(0) * 2))
    batch = [X, NUMBERS]
    assert task_of(module, observe(module, batch), [batch]) is None
