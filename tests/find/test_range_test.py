"""The range test: what Lightning's finder measured, without what it did to the curve."""

import copy
import functools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.find.range_test import RANGE_TEST_STEPS, InMemoryCheckpoint, RangeTest, raw_losses, run_range_test, smooth
from unstall.trials import rehearse


class Lit(pl.LightningModule):
    """Softmax regression with a hyper-parameter that no file could hold."""

    def __init__(self, rate: object = functools.partial(float, 0.1)) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Linear(4, 3)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_the_raw_losses_are_recovered_from_lightnings_average() -> None:
    draw = random.Random(0)
    losses = [2.3 + draw.gauss(0, 0.3) for _ in range(100)]
    average, shown = 0.0, []
    for step, loss in enumerate(losses, start=1):  # what `_LRCallback` does
        average = 0.98 * average + 0.02 * loss
        shown.append(average / (1 - 0.98 ** (step + 1)))
    assert shown[0] == pytest.approx(losses[0] / 2, rel=0.02)
    assert raw_losses(shown) == pytest.approx(losses, abs=1e-9)


def test_smoothing_keeps_a_constant_and_is_a_weighted_mean() -> None:
    assert smooth([3.0] * 20, 0.8) == pytest.approx([3.0] * 20)
    assert smooth([1.0, 2.0, 4.0], 0.5)[-1] == pytest.approx((1 + 2 * 2 + 4 * 4) / 7)


def test_the_range_test_is_lightnings_with_its_losses_mended(tmp_path: Path) -> None:
    """The curve is that of a plain loop over the same batches at rising rates."""
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5).long()
    loader = DataLoader(TensorDataset(inputs, targets), batch_size=8)
    module = Lit()
    tested, suggestion = run_range_test(rehearse(module, loader, None, str(tmp_path)), str(tmp_path), 1e-4, 1.0)
    network, batches = copy.deepcopy(module.network), list(loader)
    losses = []
    for step, rate in enumerate(tested.learning_rates):
        inputs, targets = batches[step % len(batches)]
        loss = F.cross_entropy(network(inputs), targets)
        losses.append(loss.item())
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
    assert len(losses) == RANGE_TEST_STEPS
    assert tested.losses == pytest.approx(losses, abs=1e-4)
    assert tested.learning_rates[0] == pytest.approx(1e-4)
    assert suggestion is not None


def test_the_range_test_ends_at_the_first_loss_that_is_not_finite(tmp_path: Path) -> None:
    class Breaking(Lit):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            return loss * math.nan if self.global_step >= 30 else loss

    loader = DataLoader(TensorDataset(torch.randn(800, 4), torch.zeros(800, dtype=torch.long)), batch_size=8)
    tested, _ = run_range_test(rehearse(Breaking(), loader, None, str(tmp_path)), str(tmp_path), 1e-4, 1.0)
    assert len(tested.losses) == len(tested.learning_rates) == 30
    assert all(map(math.isfinite, tested.losses))


def test_what_a_module_skips_or_refuses_does_not_end_the_test(tmp_path: Path) -> None:
    class Skipping(Lit):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            return None if batch_idx % 10 == 3 else super().training_step(batch, batch_idx)

    class Refusing(Lit):
        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            if self.global_step >= 30:
                raise ValueError("parameters are NaN")
            return super().training_step(batch, batch_idx)

    loader = DataLoader(TensorDataset(torch.randn(800, 4), torch.zeros(800, dtype=torch.long)), batch_size=8)
    runs = [
        run_range_test(rehearse(module, loader, None, str(tmp_path)), str(tmp_path), 1e-4, 1.0)[0]
        for module in (Skipping(), Refusing())
    ]
    for tested, steps in zip(runs, (90, 30), strict=True):
        assert len(tested.losses) == len(tested.learning_rates) == steps
        assert all(map(math.isfinite, tested.losses))
    assert runs[0].learning_rates[3] > runs[1].learning_rates[3]


def test_blow_up_is_seen_past_the_minimum_only() -> None:
    rates = [10.0**k for k in range(-30, 10)]
    falling = [2.3] * 20 + [1.0] * 10
    assert RangeTest(rates[:30], falling).blows_up_at is None
    blown = RangeTest(rates, falling + [50.0] * 10)
    assert blown.blows_up_at == rates[30]


def test_a_checkpoint_in_memory_does_not_follow_the_weights() -> None:
    store, weights = InMemoryCheckpoint(), torch.zeros(3)
    store.save_checkpoint({"weights": weights}, "nowhere")
    weights += 1
    assert store.load_checkpoint("nowhere")["weights"].sum() == 0
