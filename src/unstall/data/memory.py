"""A data set as tensors in memory, and the order in which training sees it."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from unstall.data.seeds import global_seed, random_generator

Batch = tuple[Tensor, Tensor]


class InMemoryDataset(Dataset[Batch]):
    """Images and labels as two tensors: a batch is one indexing operation.

    `DataLoader` calls `__getitems__` with all indices of a batch where a data set has that method.

    Bytes stay bytes and are scaled as they are read: over an epoch of shuffled batches of 128, float32 in memory
    is as fast (44 ms each) and four times as large. `index_select` takes half the time of `images[indices]` or less,
    and NumPy reads a list of indices five times as fast as `torch.tensor`. (2-core x86 CPU, one thread, best of 15.)

    Args:
        images: Bytes of shape `(N, C, H, W)`; or any other samples, one a row, as the network is to see them.
        labels: int64 of shape `(N,)`; or other targets, one a row.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels
        self._there: InMemoryDataset | None = None

    def on(self, device: torch.device) -> "InMemoryDataset":
        """The same data on a CUDA device if they take at most half of its free memory, and then for good; else here.

        A batch then moves no samples: its indices go there, and no step waits for the host.
        """
        if device.type != "cuda":
            return self
        if self._there is None or self._there.images.device != device:
            self._there = None
            if 2 * (self.images.nbytes + self.labels.nbytes) > torch.cuda.mem_get_info(device)[0]:
                return self
            self._there = InMemoryDataset(self.images.to(device), self.labels.to(device))
        return self._there

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        """One sample: of bytes float32 `(C, H, W)` in [0, 1], and its label."""
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: of bytes float32 `(B, C, H, W)` in [0, 1], and int64 `(B,)`."""
        chosen = torch.from_numpy(np.array(indices)).to(self.images.device, non_blocking=True)
        inputs = self.images.index_select(0, chosen)
        return inputs / 255 if inputs.dtype == torch.uint8 else inputs, self.labels.index_select(0, chosen)


class EpochSampler(DistributedSampler[Batch]):
    """This process's share of an epoch, as a pure function of the seed and the epoch.

    A run that is resumed at epoch k therefore sees the batches that it would have seen. Lightning calls `set_epoch`
    and leaves a `DistributedSampler` alone where it would inject its own.

    Args:
        dataset: What is sampled.
        world_size: The number of processes.
        rank: This process's number.
        shuffle: Whether each epoch has an order of its own. Then the shares are of equal length (the first samples
            come twice where needed), because processes that train together must take the same number of steps.
            Without it, each sample is in exactly one share, so that an evaluation counts it once.
        seed: The global seed.
    """

    def __init__(self, dataset: Dataset[Batch], world_size: int, rank: int, shuffle: bool, seed: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)
        if not shuffle:
            self.total_size = len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length
            self.num_samples = len(range(rank, self.total_size, world_size))

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]  # torch declares the items, and yields indices
        order = np.arange(len(self.dataset))  # type: ignore[arg-type]
        if self.shuffle:
            order = random_generator("order", self.seed, self.epoch).permutation(order)
        order = np.resize(order, self.total_size)  # begins again at the end
        return iter(order[self.rank :: self.num_replicas].tolist())


def in_memory_loader(
    dataset: InMemoryDataset, batch_size: int, shuffle: bool, trainer: pl.Trainer | None = None, num_workers: int = 0
) -> DataLoader[Batch]:
    """An ordinary `DataLoader` over a data set in memory, in an order that depends on the global seed and the epoch.

    Args:
        dataset: Whose `__getitems__` returns whole batches.
        batch_size: Samples at once, in each process.
        shuffle: Whether each epoch has an order of its own: for training.
        trainer: The data module's, which says how many processes there are, which one this is and where it trains: the
            data go there if they fit. None: the only one, on the CPU.
        num_workers: Worker processes, which keep the data on the CPU. They are in memory: more than 0 only costs time.
    """
    # Lightning advises more workers all the same.
    warnings.filterwarnings("ignore", message=r"The '\w+_dataloader' does not have many workers")
    world_size, rank = (1, 0) if trainer is None else (trainer.world_size, trainer.global_rank)
    if trainer is not None and num_workers == 0:
        dataset = dataset.on(trainer.strategy.root_device)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochSampler(dataset, world_size, rank, shuffle, seed=global_seed()),
        collate_fn=_as_it_is,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def _as_it_is(batch: Any) -> Any:
    return batch
