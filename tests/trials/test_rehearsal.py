"""Modules that cannot train unless a fit has set them up, and data in the forms that Lightning takes."""

import copy
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from unstall.errors import UsageError
from unstall.trials.loaders import endless
from unstall.trials.rehearsal import rehearse
from unstall.trials.variants import Variant

Batch = tuple[Tensor, Tensor]


def samples(seed: int, count: int = 200) -> TensorDataset:
    inputs = torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(inputs, (inputs.sum(1) > 0).long())


class Stream(IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        yield from samples(0)  # type: ignore[misc]


class Data(pl.LightningDataModule):
    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.calls: list[str] = []

    def setup(self, stage: str) -> None:
        self.calls.append(f"setup {stage}")
        if self.kind == "asks":
            assert self.trainer is not None
            self.batch_size = 20 // self.trainer.world_size

    def teardown(self, stage: str) -> None:
        self.calls.append(f"teardown {stage}")

    def train_dataloader(self) -> Any:
        if self.kind == "stream":
            return DataLoader(Stream(), 20)
        return DataLoader(samples(0), 20, shuffle=True)

    def val_dataloader(self) -> Any:
        loader = DataLoader(samples(1), 50)
        return [loader, DataLoader(samples(2), 50)] if self.kind == "list" else loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        if self.kind != "hook":
            return batch
        assert self.trainer is not None
        assert self.trainer.training, "noise that a hook adds to what is trained on belongs here"
        return 100 * batch[0], batch[1]


class NoValidation(pl.LightningDataModule):
    def train_dataloader(self) -> Any:
        return DataLoader(samples(0), 20)


class Lit(pl.LightningModule):
    """Builds its network, or asks its trainer, where `kind` says."""

    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.kind = kind
        if kind not in ("setup", "configure_model"):
            self.network = nn.Linear(4, 2)

    def setup(self, stage: str) -> None:
        if self.kind == "setup":
            self.network = nn.Linear(4, 2)

    def configure_model(self) -> None:
        if self.kind == "configure_model" and not hasattr(self, "network"):
            self.network = nn.Linear(4, 2)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.kind == "logger":
            assert self.logger is not None
            self.logger.experiment.add_scalar("loss", 1.0, self.global_step)
        if self.kind == "training_step":
            assert self.global_step == 10 * self.current_epoch + batch_idx
            assert self.trainer.training
            assert not self.trainer.sanity_checking
            assert self.trainer.state.fn == "fit"
            assert self.trainer.max_epochs == 3
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        if self.kind == "schedule":
            self.estimated = self.trainer.estimated_stepping_batches
            assert math.isfinite(self.estimated)
        return optimizer


def make_trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    arguments = {"accelerator": "cpu", "max_epochs": 3, "default_root_dir": folder} | arguments
    return pl.Trainer(**quiet, enable_model_summary=False, **arguments)


@pytest.mark.parametrize("kind", ["", "setup", "configure_model", "training_step", "schedule", "logger"])
def test_a_module_races_as_it_would_fit(kind: str, tmp_path: Path) -> None:
    module = Lit(kind)
    weights = copy.deepcopy(module.state_dict())
    torch.manual_seed(0)  # of the order
    random = torch.random.get_rng_state()
    rehearsal = rehearse(module, Data(), make_trainer(tmp_path), str(tmp_path))
    assert torch.equal(random, torch.random.get_rng_state())
    assert module.state_dict().keys() == weights.keys(), "the copy is set up, not the module"
    assert module._trainer is None
    outcome = rehearsal.race([Variant()], list(islice(rehearsal.batches(), 20)))[0]
    assert sum(outcome.losses[-5:]) < sum(outcome.losses[:5])
    assert rehearsal.horizon == 30
    assert not list(tmp_path.iterdir())
    if isinstance(rehearsal.module, Lit) and kind == "schedule":
        assert rehearsal.module.estimated == 30


def test_steps_are_those_of_the_trainer(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, accumulate_grad_batches=2, gradient_clip_val=0.5, max_steps=7)
    rehearsal = rehearse(Lit(), Data(), trainer, str(tmp_path))
    assert (rehearsal.options.accumulate_grad_batches, rehearsal.options.gradient_clip_val) == (2, 0.5)
    assert rehearsal.options.steps_per_epoch == 5
    assert rehearsal.horizon == 7


@pytest.mark.parametrize(
    ("limits", "per_epoch", "numbers"),
    [
        ({"limit_train_batches": 3}, 3, [0, 1, 2, 0, 1, 2, 0]),
        ({"limit_train_batches": 0.4}, 4, [0, 1, 2, 3, 0, 1, 2]),
        ({"limit_train_batches": 3, "accumulate_grad_batches": 2}, 2, [0, 1, 2, 0, 1, 2, 0]),
        ({"accumulate_grad_batches": 99}, 1, [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_an_epoch_is_as_long_as_the_trainer_says(
    limits: dict[str, Any], per_epoch: int, numbers: list[int], tmp_path: Path
) -> None:
    batches = DataLoader(TensorDataset(torch.arange(10)), 1)
    rehearsal = rehearse(Lit(), batches, make_trainer(tmp_path, max_epochs=4, **limits), str(tmp_path))
    assert rehearsal.options.steps_per_epoch == per_epoch
    assert rehearsal.horizon == 4 * per_epoch
    assert [int(batch[0]) for batch in islice(rehearsal.batches(), 7)] == numbers


def test_a_fit_that_is_to_overfit_sees_the_same_batches_again(tmp_path: Path) -> None:
    rehearsal = rehearse(Lit(), Data(), make_trainer(tmp_path, max_epochs=4, overfit_batches=2), str(tmp_path))
    first = [float(batch[0].sum()) for batch in islice(rehearsal.batches(), 6)]
    assert first[:2] == first[2:4] == first[4:]
    assert rehearsal.horizon == 8


def test_data_are_set_up_once_and_never_torn_down(tmp_path: Path) -> None:
    data = Data("asks")
    rehearse(Lit(), data, make_trainer(tmp_path), str(tmp_path))
    assert data.calls == ["setup fit"]
    assert data.batch_size == 20
    assert data.trainer is None


def test_hooks_of_the_data_module_see_the_batches(tmp_path: Path) -> None:
    batches = list(islice(endless(Data().train_dataloader()), 1))
    rehearsals = [rehearse(Lit(), Data(kind), make_trainer(tmp_path), str(tmp_path)) for kind in ("", "hook")]
    torch.manual_seed(0)
    weights = nn.Linear(4, 2).state_dict()
    for rehearsal in rehearsals:
        rehearsal.module.load_state_dict({f"network.{name}": weight for name, weight in weights.items()})
    plain, scaled = (rehearsal.race([Variant()], batches)[0].losses[0] for rehearsal in rehearsals)
    logits = 100 * batches[0][0] @ weights["weight"].T + weights["bias"]
    assert scaled == pytest.approx(F.cross_entropy(logits, batches[0][1]).item(), rel=1e-5)
    assert scaled != pytest.approx(plain)


def test_data_come_in_all_forms(tmp_path: Path) -> None:
    loader = DataLoader(samples(0), 20)
    trainer = make_trainer(tmp_path)
    stream = rehearse(Lit(), Data("stream"), trainer, str(tmp_path))
    assert stream.options.steps_per_epoch is None
    assert stream.horizon == math.inf
    assert len(list(islice(stream.batches(), 25))) == 25, "ten an epoch, and round again"
    listed = rehearse(Lit(), Data("list"), trainer, str(tmp_path))
    assert isinstance(listed.validation, DataLoader)
    assert rehearse(Lit(), NoValidation(), trainer, str(tmp_path)).validation is None
    assert rehearse(Lit(), loader, None, str(tmp_path)).validation is None
    assert rehearse(Lit(), (loader, loader), None, str(tmp_path)).validation is loader


def test_a_module_may_bring_its_own_loaders(tmp_path: Path) -> None:
    class WithLoaders(Lit):
        def setup(self, stage: str) -> None:
            self.samples = samples(0)

        def train_dataloader(self) -> Any:
            assert self.trainer is not None
            return DataLoader(self.samples, 20 // self.trainer.world_size)

    module = WithLoaders()
    for data in (None, module):
        rehearsal = rehearse(module, data, make_trainer(tmp_path), str(tmp_path))
        assert rehearsal.options.steps_per_epoch == 10
        assert rehearsal.validation is None
        assert next(rehearsal.batches())[0].shape == (20, 4)
    assert not hasattr(module, "samples"), "a copy is set up"
    assert module._trainer is None


def test_validation_batches_that_the_step_is_not_made_for_are_left_out(tmp_path: Path) -> None:
    class Picky(Lit):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            assert batch[0].shape[1] == 4
            assert len(batch[0]) % 10 == 0
            return super().training_step(batch, batch_idx)

    trainer, loader = make_trainer(tmp_path), DataLoader(samples(0), 20)
    others: list[Any] = [
        samples(1),
        TensorDataset(torch.randn(60, 4)),
        TensorDataset(torch.randn(60, 5), torch.ones(60).long()),
    ]
    used = []
    for other, size in [*((other, 30) for other in others), (samples(1, 169), 40)]:
        rehearsal = rehearse(Picky(), (loader, DataLoader(other, size)), trainer, str(tmp_path))
        batches = rehearsal.batches()
        held_out = rehearsal.held_out(next(rehearsal.batches()), batches, 169 if size == 40 else 50)
        used.append((len(held_out[0][0]), sum(len(batch[0]) for batch in held_out)))
        assert len(rehearsal.race([Variant()], [next(batches)], held_out)[0].held_out_losses) == len(held_out)
    assert used == [(30, 60), (20, 60), (20, 60), (20, 180)], "of validation; of training, of which the next follows"


def test_lazy_layers_have_their_weights_and_nothing_is_torn_down(tmp_path: Path) -> None:
    class Lazy(Lit):
        def __init__(self) -> None:
            super().__init__()
            self.network = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d(), nn.Linear(3, 2))  # type: ignore[assignment]

        def teardown(self, stage: str) -> None:
            raise AssertionError

    module, random = Lazy(), torch.get_rng_state()
    rehearsal = rehearse(module, Data(), make_trainer(tmp_path), str(tmp_path))
    assert torch.equal(random, torch.get_rng_state())
    weights: Any = rehearsal.module.network
    assert weights[0].weight.shape == (3, 4)
    assert not weights[1].running_mean.any(), "it has seen no batch"
    assert "teardown" not in vars(rehearsal.module)
    batches = list(islice(rehearsal.batches(), 4))
    first, second = rehearsal.race([Variant(), Variant()], batches)
    assert first.losses == second.losses


def test_what_cannot_be_rehearsed_is_refused(tmp_path: Path) -> None:

    class Several(Lit):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

    class Broken(Lit):
        def setup(self, stage: str) -> None:
            raise RuntimeError("my own")

    with pytest.raises(UsageError, match=r"model=Several: .*multiple optimizers"):
        rehearse(Several(), Data(), None, str(tmp_path))
    with pytest.raises(RuntimeError, match="my own"):
        rehearse(Broken(), Data(), None, str(tmp_path))
    with pytest.raises(UsageError, match="model=LightningModule: it has no training_step"):
        rehearse(pl.LightningModule(), Data(), None, str(tmp_path))
    module = Lit()
    module.automatic_optimization = False
    with pytest.raises(UsageError, match="manual optimization"):
        rehearse(module, Data(), None, str(tmp_path))
    with pytest.raises(UsageError, match=r"data=Lit: it has no train_dataloader"):
        rehearse(Lit(), None, None, str(tmp_path))
    with pytest.raises(UsageError, match=r"data=LightningDataModule: it has no train_dataloader"):
        rehearse(Lit(), pl.LightningDataModule(), make_trainer(tmp_path), str(tmp_path))
    with pytest.raises(UsageError, match="no batch"):
        next(endless([]))
