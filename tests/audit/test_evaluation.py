"""Steps in evaluation mode, against what is known of the module."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, Lit, X, observed
from unstall.audit import StandIn, in_both_modes, observe

SEQUENCES = torch.randn(32, 6, 4, generator=torch.Generator().manual_seed(0))


RECURRENT = {"rnn": nn.GRU(4, 8), "head": nn.Linear(8, 3)}
BATCH_FIRST = {"rnn": nn.LSTM(4, 8, batch_first=True), "head": nn.Linear(8, 3)}
ATTENTION = {"attention": nn.MultiheadAttention(4, 2), "head": nn.Linear(4, 3)}


@pytest.mark.parametrize(
    ("parts", "step"),
    [
        (RECURRENT, lambda m, x: m.head(m.rnn(x.reshape(6, 32, 4))[0][-1])),
        (RECURRENT, lambda m, x: m.head(m.rnn(x)[0][:, -1])),  # it wants time first
        (BATCH_FIRST, lambda m, x: m.head(m.rnn(x.transpose(0, 1))[0][-1])),
        (ATTENTION, lambda m, x: m.head(m.attention(x, x, x)[0].mean(1))),
        ({}, lambda m, x: m.net(x[:, 0].reshape(4, 32).T)),
        ({}, lambda m, x: m.net(x.flatten().view(6, 32, 4)[0])),
    ],
)
def test_samples_that_are_mixed_by_mistake(parts: dict[str, nn.Module], step: Callable[[Any, Tensor], Tensor]) -> None:
    assert observed(parts, step, SEQUENCES).mixed is True


@pytest.mark.parametrize(
    ("parts", "step"),
    [
        (RECURRENT, lambda m, x: m.head(m.rnn(x.permute(1, 0, 2))[0][-1])),
        (BATCH_FIRST, lambda m, x: m.head(m.rnn(x)[0][:, -1])),
        (
            {"attention": nn.MultiheadAttention(4, 2, batch_first=True), "head": nn.Linear(4, 3)},
            lambda m, x: m.head(m.attention(x, x, x)[0].mean(1)),
        ),
        ({"conv": nn.Conv1d(4, 3, 3)}, lambda m, x: m.conv(x.transpose(1, 2)).amax(2)),
        ({"norm": nn.BatchNorm1d(4)}, lambda m, x: m.net(m.norm(x[:, 0]))),
        ({}, lambda m, x: m.net(F.normalize(x.mean(1)))),
    ],
)
def test_samples_that_are_kept_apart(parts: dict[str, nn.Module], step: Callable[[Any, Tensor], Tensor]) -> None:
    assert observed(parts, step, SEQUENCES).mixed is False


@pytest.mark.parametrize(
    "step",
    [
        lambda m, x: m.net(x[:, 0] - x[:, 0].mean(0)),
        lambda m, x: m.net(x[:, 0] + x[torch.randperm(len(x)), 0]),
        lambda m, x: m.net(x[:, 0] + x[list(range(len(x) - 1, -1, -1)), 0]),
        lambda m, x: m.net(x[:, 0]).sort(0).values,
        lambda m, x: (x[:, 0] @ x[:, 0].T).softmax(1) @ m.net(x[:, 0]),
    ],
)
def test_of_samples_that_meet_on_purpose_nothing_is_said(step: Callable[[Any, Tensor], Tensor]) -> None:
    assert observed({}, step, SEQUENCES).mixed is None


def test_a_step_that_draws_numbers_of_its_own_mixes_nothing() -> None:
    own = torch.Generator().manual_seed(0)
    noisy = observed({}, lambda m, x: m.net(x[:, 0] + torch.randn(len(x), 4, generator=own)), SEQUENCES)
    assert noisy.mixed is None


def test_sums_and_means_over_the_samples() -> None:
    for reduction, summed in (("sum", True), ("mean", False)):

        def loss(out: Tensor, y: Tensor, how: str = reduction) -> Tensor:
            return F.cross_entropy(out, y, reduction=how)

        assert observe(Lit(3, loss), [X, LABELS]).summed is summed
        assert observe(Lit(3, loss), [X[:31], LABELS[:31]]).summed is summed
    assert observe(Lit(3, F.cross_entropy), [X[:3], LABELS[:3]]).summed is None  # too few to tell


def test_the_loss_in_evaluation_mode_is_without_dropout() -> None:
    module = Lit(3, F.cross_entropy)
    module.net.insert(2, nn.Dropout(0.5))
    found = observe(module, [X, LABELS])
    module.eval()
    assert found.evaluation_loss == pytest.approx(float(F.cross_entropy(module.net(X), LABELS).detach()))
    assert found.loss != found.evaluation_loss
    assert found.dropout == 0.5


def test_a_step_that_fails_in_evaluation_leaves_the_rest() -> None:
    class Training(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            assert self.training
            return F.cross_entropy(self.net(batch[0]), batch[1])

    found = observe(Training(3, F.cross_entropy), [X, LABELS])
    assert (found.evaluation_loss, found.summed, found.mixed) == (None, None, None)
    assert found.toward_target == 1


def test_a_loss_in_both_modes_without_a_trace() -> None:
    module = Lit(3, F.cross_entropy)
    module.net.insert(1, nn.BatchNorm1d(8))
    module.net[1].running_var.fill_(1e6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training, evaluation = in_both_modes(StandIn(module), [X, LABELS])
    assert all(before[name].equal(value) for name, value in module.state_dict().items())
    with torch.no_grad():
        assert evaluation == pytest.approx(float(F.cross_entropy(module.net.eval()(X), LABELS)))
        assert training == pytest.approx(float(F.cross_entropy(module.net.train()(X), LABELS)))
