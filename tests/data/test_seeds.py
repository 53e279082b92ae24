"""Random numbers that only the seed, the epoch and their purpose decide."""

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from unstall.data.seeds import RandomState, global_seed, random_generator


def test_global_seed_is_lightnings() -> None:
    assert global_seed() == 0
    pl.seed_everything(7, verbose=False)
    assert global_seed() == 7


def test_every_purpose_seed_and_epoch_has_a_stream_of_its_own() -> None:
    keys = [(purpose, seed, epoch) for purpose in ("order", "labels") for seed in range(4) for epoch in range(4)]
    drawn = {key: tuple(random_generator(*key).integers(2**62, size=4)) for key in keys}
    assert len(set(drawn.values())) == len(keys)
    assert drawn == {key: tuple(random_generator(*key).integers(2**62, size=4)) for key in keys}
    assert tuple(random_generator("order", 3).integers(2**62, size=4)) == drawn["order", 3, 0]


def test_torch_is_seeded_at_the_first_batch_of_each_epoch_in_each_process() -> None:
    pl.seed_everything(5, verbose=False)

    def draw(epoch: int, rank: int, batch: int) -> float:
        trainer: Any = SimpleNamespace(current_epoch=epoch, global_rank=rank)
        RandomState().on_train_batch_start(trainer, pl.LightningModule(), None, batch)
        return float(torch.rand(()))

    drawn = {(epoch, rank): draw(epoch, rank, 0) for epoch in range(3) for rank in range(3)}
    assert len(set(drawn.values())) == 9
    going_on = draw(0, 0, 1)
    assert drawn == {key: draw(*key, 0) for key in drawn}
    assert going_on not in drawn.values()


class Dropout(pl.LightningModule):
    """Remembers what it drops in each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.kept: dict[int, list[Tensor]] = {}

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        kept = nn.functional.dropout(torch.ones(16))
        self.kept.setdefault(self.current_epoch, []).append(kept)
        return self.layer(batch[0]).sum()  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_a_resumed_run_has_the_dropout_it_would_have_had(tmp_path: Path) -> None:
    def fit(epochs: int, resume: Path | None = None) -> tuple[pl.Trainer, dict[int, list[Tensor]]]:
        pl.seed_everything(3, verbose=False)
        trainer = pl.Trainer(
            max_epochs=epochs,
            default_root_dir=tmp_path,
            accelerator="cpu",
            callbacks=[RandomState()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        module = Dropout()
        trainer.fit(module, DataLoader(TensorDataset(torch.ones(6, 1)), 2), ckpt_path=resume)
        return trainer, module.kept

    _, whole = fit(3)
    killed, _ = fit(1)
    killed.save_checkpoint(tmp_path / "last.ckpt")
    torch.rand(99)
    _, resumed = fit(3, tmp_path / "last.ckpt")
    assert list(resumed) == [1, 2]
    for epoch, kept in resumed.items():
        assert torch.equal(torch.stack(kept), torch.stack(whole[epoch]))
    assert not torch.equal(torch.stack(whole[0]), torch.stack(whole[1]))


class Noisy(Dataset[Tensor]):
    """Augments its samples with whatever people draw from."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        return index + torch.stack([torch.rand(()), torch.tensor(random.random()), torch.tensor(np.random.rand())])


class Recording(Dropout):
    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:  # type: ignore[override]
        self.kept.setdefault(self.current_epoch, []).append(batch.clone())
        return super().training_step([batch[:, :1].float()], batch_idx)


class Save(pl.Callback):
    """Saves a checkpoint after each batch, and after each epoch."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("done", [1, 3, 5])
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*use of fork")
def test_a_loader_of_ones_own_gives_a_resumed_run_what_it_would_have_given(
    done: int, workers: int, tmp_path: Path
) -> None:
    def fit(epochs: int, checkpoint: Path | None = None, **options: Any) -> dict[int, list[Tensor]]:
        pl.seed_everything(1, verbose=False)
        module = Recording()
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[RandomState(), Save(tmp_path)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
        loader = DataLoader(Noisy(), 4, shuffle=True, num_workers=workers)
        trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=checkpoint is not None)
        return module.kept

    whole = fit(3)
    resumed = fit(3, tmp_path / f"{done}.ckpt")
    seen = [each for epoch in sorted(whole) for each in whole[epoch]]
    assert not torch.equal(seen[0], seen[6])  # each epoch has an order of its own
    again = [each for epoch in sorted(resumed) for each in resumed[epoch]]
    for expected, found in zip(seen[2 * done :], again, strict=True):  # a batch and its dropout
        assert torch.equal(expected, found)


def test_a_generator_of_ones_own_is_left_alone_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(Noisy(), 4, shuffle=True, generator=own)
    arguments: dict[str, Any] = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    arguments |= {"enable_checkpointing": False, "accelerator": "cpu"}
    pl.Trainer(max_epochs=1, callbacks=[RandomState(), Save(tmp_path)], **arguments).fit(Recording(), loader)
    assert loader.generator is own
    assert capsys.readouterr().out == ""
    going_on = pl.Trainer(max_epochs=2, callbacks=[RandomState()], **arguments)
    going_on.fit(Recording(), loader, ckpt_path=tmp_path / "3.ckpt", weights_only=True)
    assert "shuffles with a generator of its own" in capsys.readouterr().out
