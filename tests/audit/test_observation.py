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

from audit.modules import LABELS, Lit, X
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
