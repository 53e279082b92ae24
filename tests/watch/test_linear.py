"""The linear model to beat, against least squares of another library and what is known of two bell curves."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.watch.callback import Diagnosis
from unstall.watch.linear import Kept, LinearBaseline, fitted


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_squares_are_those_of_another_library_whatever_the_units() -> None:
    inputs, weights = drawn(300, 4) * torch.tensor([1.0, 1e-3, 500.0, 0.0]) + 20, drawn(3, 2, seed=1)
    targets = (inputs[:, :3] / torch.tensor([1.0, 1e-3, 500.0])) @ weights + drawn(300, 2, seed=2)
    found = fitted("squares", inputs[:200], targets[:200], inputs[200:], targets[200:])
    columns = np.hstack([inputs[:, :3].double().numpy(), np.ones((300, 1))])
    columns[:, :3] = (columns[:, :3] - columns[:200, :3].mean(0)) / columns[:200, :3].std(0)
    solution, *_ = np.linalg.lstsq(columns[:200], targets[:200].double().numpy(), rcond=None)
    expected = float(np.square(columns[200:] @ solution - targets[200:].numpy()).mean())
    assert found is not None
    assert found.keys() == {"loss"}
    assert found["loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["classes", "binary"])
def test_two_bell_curves_are_told_apart_as_well_as_they_can_be(kind: str) -> None:
    labels = torch.arange(4000) % 2
    inputs = torch.stack([drawn(4000) + 2 * labels, drawn(4000, seed=1)], 1)
    targets = labels if kind == "classes" else labels[:, None].float()
    found = fitted(kind, inputs[:2000], targets[:2000], inputs[2000:], targets[2000:])
    assert found is not None
    assert found["accuracy"] == pytest.approx(0.8413, abs=0.02)  # the bell curve's share below one standard deviation
    assert found["loss"] == pytest.approx(0.356, abs=0.02)  # of the true odds 2x - 2, by integration


class Lit(pl.LightningModule):
    def __init__(self, loss: str = "cross_entropy", columns: int = 3) -> None:
        super().__init__()
        self.loss, self.layer, self.dropout = loss, nn.Linear(columns, 2), nn.Dropout(0.2)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        inputs, targets = batch[0], batch[-1]
        logits = self.layer(self.dropout(inputs.float().flatten(1)))
        loss: Tensor = F.cross_entropy(
            logits, targets, **({"weight": torch.tensor([1.0, 3])} if "weighted" in self.loss else {})
        )
        return loss.abs().sqrt() if self.loss == "other" else loss

    def validation_step(self, batch: list[Tensor], index: int) -> None:
        self.training_step(batch, index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(module: Lit, *parts: Tensor, callbacks: list[Callback]) -> pl.Trainer:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=1,
        callbacks=callbacks,
    )
    loaders = (DataLoader(TensorDataset(*(part[half] for part in parts)), 20, shuffle) for half, shuffle in halves())
    training, validation = loaders
    trainer.fit(module, training, validation)
    return trainer


def halves() -> Iterator[tuple[slice, bool]]:
    yield from [(slice(0, 100), True), (slice(100, 140), False)]


QUIET = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
INPUTS, LABELS = drawn(140, 3), (drawn(140, 3)[:, 0] > 0).long()


@QUIET
def test_it_leaves_no_trace_and_each_sample_counts_once() -> None:
    left: list[Any] = []
    baseline = LinearBaseline()
    for callbacks in ([Diagnosis()], [Diagnosis(), baseline]):
        torch.manual_seed(0)
        module = Lit()
        trainer = fit(module, INPUTS, LABELS, callbacks=list(callbacks))
        if len(callbacks) > 1:
            observed = callbacks[0].observation  # type: ignore[attr-defined]
            assert observed is not None
            said = baseline.reached(observed.reference)
            assert said is not None
            count, found = said
            assert count == 100
            assert found["accuracy"] > 0.9
            assert found["loss"] < 0.4
        left.append((module.state_dict(), torch.get_rng_state(), sorted(trainer.callback_metrics)))
    (weights, random, metrics), (others, again, same) = left
    assert all(torch.equal(weight, others[name]) for name, weight in weights.items())
    assert torch.equal(random, again)
    assert metrics == same


@QUIET
@pytest.mark.parametrize(
    ("module", "parts"),
    [
        (Lit("weighted"), (INPUTS, LABELS)),
        (Lit("other"), (INPUTS, LABELS)),
        (Lit(columns=60), (drawn(140, 60), LABELS)),  # too few samples
        (Lit(), (INPUTS, INPUTS, LABELS)),  # a second input
        (Lit(), ((INPUTS * 9).long(), LABELS)),  # whole numbers may be names
        (Lit(), (torch.ones(140, 3), LABELS)),  # nothing that varies
    ],
)
def test_nothing_is_said_where_no_linear_model_fits(module: Lit, parts: tuple[Tensor, ...]) -> None:
    watch, baseline = Diagnosis(), LinearBaseline()
    fit(module, *parts, callbacks=[watch, baseline])
    assert watch.observation is not None
    assert baseline.reached(watch.observation.reference) is None
    assert baseline.reached(None) is None


def test_one_sample_is_none_to_fit_and_no_cause_for_a_warning() -> None:
    assert fitted("squares", INPUTS[:1], INPUTS[:1, :1], INPUTS[:1], INPUTS[:1, :1]) is None


@pytest.mark.parametrize(
    "batch", [None, "text", [INPUTS], [INPUTS, torch.tensor(1)], [INPUTS.to_sparse(), LABELS], [INPUTS, LABELS[:3]]]
)
def test_batches_of_another_kind_are_left_alone(batch: Any) -> None:
    kept = Kept()
    kept.add([INPUTS, LABELS])
    assert len(kept.pairs) == 1
    kept.add(batch)
    kept.add([INPUTS, LABELS])
    assert kept.pairs == []


def test_no_more_is_kept_than_there_is_room_for() -> None:
    kept, batch = Kept(), [torch.zeros(1000, 1000), torch.zeros(1000)]
    for _ in range(20):
        kept.add(batch)
    assert len(kept.pairs) == 8
    kept = Kept()
    kept.add([torch.zeros(2, 3, 224, 224), torch.zeros(2)])  # never enough samples for so many columns
    assert kept.pairs == []
    assert not kept.open
