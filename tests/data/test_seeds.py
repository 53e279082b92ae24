"""Random numbers that only the seed, the epoch and their purpose decide."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

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
