"""One step of a copy, seen from outside; and that it leaves no trace."""

import random
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric

from audit.modules import LABELS, NUMBERS, Lit, X
from unstall.audit import observe


class Rich(Lit):
    """BatchNorm, dropout, a metric: whatever a step could move."""

    def __init__(self) -> None:
        super().__init__(3, F.cross_entropy)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
        self.mean = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.mean.update(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_no_trace_is_left() -> None:
    module = Rich().eval()
    module.net.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    observe(module, [X, LABELS], [module.configure_optimizers()])
    assert all(before[name].equal(value) for name, value in module.state_dict().items())
    assert all(weight.grad is None for weight in module.parameters())
    assert module.mean.update_count == 0
    assert (module.training, module.net.training) == (False, True)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]
    assert random.getstate() == states[2]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_a_fit_that_is_observed_ends_with_the_same_weights(tmp_path: Any) -> None:
    class Observing(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
            observe(pl_module, batch, trainer.optimizers, trainer)

    weights = []
    for callbacks in ([], [Observing()]):
        pl.seed_everything(1, verbose=False)
        module = Rich()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(max_epochs=2, callbacks=callbacks, accelerator="cpu", enable_model_summary=False, **quiet)
        trainer.fit(module, DataLoader(TensorDataset(X, LABELS), 8, shuffle=True))
        weights.append(module.state_dict())
    assert all(weights[0][name].equal(value) for name, value in weights[1].items())


def test_who_learns_who_is_held_and_who_is_known() -> None:
    class Partly(Lit):
        def __init__(self) -> None:
            super().__init__(3, F.cross_entropy)
            self.unused = nn.Linear(2, 2)
            self.hidden = [nn.Linear(3, 3)]  # a plain list
            self.net[0].requires_grad_(False)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.hidden[0](self.net(batch[0])), batch[1])

    module = Partly()
    seen = observe(module, [X, LABELS], [torch.optim.SGD(module.unused.parameters(), lr=1)])
    assert seen.without_gradient == ("unused.weight", "unused.bias")
    assert seen.not_held == ("net.2.weight", "net.2.bias")
    assert seen.frozen == ("net.0.weight", "net.0.bias")
    assert sorted(seen.unregistered) == [(3,), (3, 3)]
    assert observe(module, [X, LABELS]).not_held == ()  # nothing is known of the optimizer
    held = [torch.optim.SGD([*module.net.parameters(), *module.hidden[0].parameters()], lr=1)]
    assert observe(module, [X, LABELS], held).unregistered == ()  # it learns all the same


def test_mixed_summed_and_the_direction_of_the_loss() -> None:
    plain = observe(Lit(3, F.cross_entropy), [X, LABELS])
    assert (plain.mixed, plain.summed, plain.toward_target, plain.samples) == (False, False, 1.0, 32)
    assert observe(Lit(3, lambda out, y: F.cross_entropy(out, y, reduction="sum")), [X, LABELS]).summed
    assert observe(Lit(3, lambda out, y: -F.cross_entropy(out, y)), [X, LABELS]).toward_target == 0

    class Mixing(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0].reshape(4, 32).T), batch[1])

    assert observe(Mixing(3, F.cross_entropy), [X, LABELS]).mixed


def test_a_similarity_of_all_pairs_is_not_called_mixed() -> None:
    class Contrastive(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            code = F.normalize(self.net(batch[0]))
            return F.cross_entropy(code @ code.T / 0.1, torch.arange(len(code)))

    assert not observe(Contrastive(5, F.cross_entropy), [X, LABELS]).mixed


def test_no_graph_is_kept_which_would_keep_the_copy_and_its_gradients() -> None:
    seen = observe(Lit(3, lambda out, y: F.cross_entropy(out.relu().round() + out, y)), [X, LABELS])
    assert seen.comparison is not None
    assert seen.comparison.layer is not None
    calls = [*seen.comparison.path, seen.comparison.call, seen.comparison.layer, *([seen.cut] if seen.cut else [])]
    tensors = [tensor for call in calls for tensor in (*call.inputs, *call.outputs)]
    tensors += [seen.comparison.prediction, seen.comparison.target, seen.comparison.logits, *seen.inputs, *seen.beside]
    assert seen.cut is not None
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in tensors)


def test_the_batch_stays_as_it_is_whatever_a_step_does_to_it() -> None:
    class Consuming(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            batch["x"].mul_(0).requires_grad_()
            return F.cross_entropy(self.net(batch.pop("x")), batch.pop("y"))

    batch = {"x": X.clone(), "y": LABELS}
    observe(Consuming(3, F.cross_entropy), batch)
    assert batch.keys() == {"x", "y"}
    assert torch.equal(batch["x"], X)
    assert not batch["x"].requires_grad


def test_weights_that_learned_elsewhere_do_not_look_drawn() -> None:
    module = Lit(3, F.cross_entropy)
    head = [torch.optim.SGD(module.net[2].parameters(), lr=1)]
    assert observe(module, [X, LABELS], head).drawn
    for draw in (nn.init.xavier_uniform_, lambda weight: nn.init.uniform_(weight, -0.5, 0.5)):
        draw(module.net[0].weight)
        assert observe(module, [X, LABELS], head).drawn
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        F.cross_entropy(module.net(X), LABELS).backward()
        optimizer.step()
    learned = observe(module, [X, LABELS], head)
    assert learned.not_held == ("net.0.weight", "net.0.bias")
    assert not learned.drawn


def test_leaves_that_a_step_makes_itself_are_no_weights() -> None:
    class Equation(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            inputs = batch[0].clone().requires_grad_()
            field = self.net(inputs)
            return torch.autograd.grad(field.sum(), inputs, create_graph=True)[0].square().mean()

    assert observe(Equation(1, F.mse_loss), [X, NUMBERS]).unregistered == ()


def test_inputs_and_what_enters_beside_them() -> None:
    class Masked(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch["x"] / 10) * batch["mask"], batch["y"])

    batch = {"x": X, "mask": torch.ones(32, 1), "y": LABELS}
    seen = observe(Masked(3, F.cross_entropy), batch)
    assert [part.tolist() for part in seen.inputs] == [(X / 10).tolist()]
    assert [part.tolist() for part in seen.beside] == [batch["mask"].tolist()]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (lambda out, y: F.mse_loss(out[:, 0], y), 1),
        (lambda out, y: (out[:, 0] - y).square().mean(), 1),
        (lambda out, y: -F.mse_loss(out[:, 0], y), 0),
        (lambda out, y: (y - out[:, 0] - 3).exp().mean(), None),  # least at no number
        (lambda out, y: F.mse_loss(out[:, 0], y) - F.l1_loss(out[:, 0], y), None),  # two losses
        (lambda out, y: -(out[:, 0] * y).mean(), None),  # a gain, not a difference
        (lambda out, y: F.poisson_nll_loss(out[:, 0], y.abs()), None),  # the target is no logarithm
    ],
)
def test_the_direction_of_a_loss_of_numbers(loss: Any, expected: float | None) -> None:
    assert observe(Lit(1, loss), [X, NUMBERS]).toward_target == expected


def test_a_loss_of_zero_has_nothing_to_correct() -> None:
    assert observe(Lit(3, lambda out, y: 0 * F.cross_entropy(out, y)), [X, LABELS]).at_rest
    assert not observe(Lit(3, lambda out, y: F.cross_entropy(0 * out, y)), [X, LABELS]).at_rest
