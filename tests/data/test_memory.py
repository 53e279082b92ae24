"""The right samples, once each, in an order that only the seed and the epoch decide."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from unstall.data.memory import Batch, EpochSampler, InMemoryDataset, in_memory_loader


def noise(samples: int = 60) -> InMemoryDataset:
    """Images of noise, no two the same, each labelled with its number."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, 1, 4, 4), dtype=torch.uint8, generator=generator)
    return InMemoryDataset(images, torch.arange(samples))


def collect(loader: Any) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*loader, strict=True)
    return torch.cat(inputs), torch.cat(targets)


# --- samples ---


def test_a_batch_is_its_samples_in_the_order_asked_for() -> None:
    dataset = noise()
    inputs, targets = dataset.__getitems__([3, 1])
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert torch.equal(inputs, dataset.images[[3, 1]].float() / 255)
    assert targets.tolist() == [3, 1]
    image, label = dataset[1]
    assert image.shape == (1, 4, 4)
    assert torch.equal(image, inputs[1])
    assert label == targets[1]
    assert len(dataset) == 60


def test_only_bytes_are_scaled() -> None:
    rows, targets = torch.randn(5, 3), torch.randn(5, 2)
    inputs, expected = InMemoryDataset(rows, targets).__getitems__([4, 0])
    assert torch.equal(inputs, rows[[4, 0]])
    assert torch.equal(expected, targets[[4, 0]])


# --- order ---


def order(length: int, seed: int, epoch: int, world_size: int = 1, rank: int = 0, shuffle: bool = True) -> list[int]:
    dataset: Any = TensorDataset(torch.empty(length))
    sampler = EpochSampler(dataset, world_size, rank, shuffle, seed)
    sampler.set_epoch(epoch)
    indices = list(sampler)
    assert len(sampler) == len(indices)
    assert list(sampler) == indices  # iterating does not change what comes next
    return indices


def test_order_is_a_function_of_seed_and_epoch() -> None:
    orders = {(seed, epoch): order(50, seed, epoch) for seed in range(4) for epoch in range(4)}
    assert all(sorted(indices) == list(range(50)) for indices in orders.values())
    assert len({tuple(indices) for indices in orders.values()}) == 16  # seed 0, epoch 1 is not seed 1, epoch 0
    torch.manual_seed(99)
    np.random.seed(99)
    assert orders == {key: order(50, *key) for key in orders}


@pytest.mark.parametrize("length", [1, 2, 7, 12, 13, 12_001])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_training_shares_are_equal_and_repeat_only_what_they_must(length: int, world_size: int) -> None:
    shares = [order(length, 0, 3, world_size, rank) for rank in range(world_size)]
    steps = -(-length // world_size)
    assert [len(share) for share in shares] == [steps] * world_size
    seen = [index for step in zip(*shares, strict=True) for index in step]
    alone = order(length, 0, 3)
    assert seen[:length] == alone  # together they see what one process would see, in its order
    assert all(index == alone[k % length] for k, index in enumerate(seen))


@pytest.mark.parametrize("length", [1, 2, 7, 12_000, 12_001])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_evaluation_shares_hold_each_sample_once(length: int, world_size: int) -> None:
    shares = [order(length, 0, 3, world_size, rank, shuffle=False) for rank in range(world_size)]
    assert sorted(index for share in shares for index in share) == list(range(length))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


# --- the loader ---


def test_loader_delivers_whole_batches_and_a_smaller_last_one() -> None:
    dataset = noise(10)
    loader = in_memory_loader(dataset, 4, shuffle=False)
    assert [targets.tolist() for _, targets in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(collect(loader)[0], dataset.images / 255)
    assert len(loader) == 3


def test_loader_follows_the_global_seed() -> None:
    orders = []
    for seed in (1, 2, 1):
        pl.seed_everything(seed, verbose=False)
        orders.append(collect(in_memory_loader(noise(), 8, shuffle=True))[1].tolist())
    assert orders[0] == orders[2] == order(60, 1, 0)
    assert orders[1] == order(60, 2, 0)


@pytest.mark.parametrize("shuffle", [True, False])
def test_loader_takes_the_trainers_share(shuffle: bool) -> None:
    for rank in range(3):
        strategy = SimpleNamespace(root_device=torch.device("cpu"))
        trainer: Any = SimpleNamespace(world_size=3, global_rank=rank, strategy=strategy)
        _, targets = collect(in_memory_loader(noise(61), 8, shuffle, trainer))
        assert targets.tolist() == order(61, 0, 0, world_size=3, rank=rank, shuffle=shuffle)


def test_a_worker_process_delivers_the_same_and_stays() -> None:
    alone, with_worker = (in_memory_loader(noise(), 8, shuffle=True, num_workers=n) for n in (0, 1))
    assert with_worker.persistent_workers
    for _ in range(2):
        for ours, theirs in zip(collect(alone), collect(with_worker), strict=True):
            assert torch.equal(ours, theirs)


def test_loader_can_be_sent_to_another_process() -> None:
    loader = in_memory_loader(noise(), 8, shuffle=True)
    twin = pickle.loads(pickle.dumps(loader))
    assert torch.equal(collect(twin)[0], collect(loader)[0])


class Numbers(pl.LightningDataModule):
    """What a project writes."""

    def train_dataloader(self) -> Any:
        return in_memory_loader(noise(), 8, shuffle=True, trainer=self.trainer)

    def val_dataloader(self) -> Any:
        return in_memory_loader(noise(), 32, shuffle=False, trainer=self.trainer)


class Recorder(pl.LightningModule):
    """Remembers the labels that Lightning feeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 1)
        self.seen: dict[int, list[int]] = {}
        self.validated: list[int] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, targets = batch
        self.seen.setdefault(self.current_epoch, []).extend(targets.tolist())
        return self.layer(inputs.flatten(1)).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.validated += batch[1].tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def fit(folder: Path, epochs: int, **arguments: Any) -> tuple[pl.Trainer, Recorder]:
    trainer = pl.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Recorder()
    trainer.fit(module, datamodule=Numbers(), **arguments)
    return trainer, module


def test_lightning_sees_a_new_order_each_epoch_and_a_resumed_run_the_same(tmp_path: Path) -> None:
    pl.seed_everything(7, verbose=False)
    _, whole = fit(tmp_path, 4)
    assert whole.seen == {epoch: order(60, 7, epoch) for epoch in range(4)}
    assert whole.validated == 4 * list(range(60))
    killed, _ = fit(tmp_path, 2)
    killed.save_checkpoint(tmp_path / "last.ckpt")
    _, resumed = fit(tmp_path, 4, ckpt_path=str(tmp_path / "last.ckpt"))
    assert resumed.seen == {epoch: whole.seen[epoch] for epoch in (2, 3)}
