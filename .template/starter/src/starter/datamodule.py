"""The data: two half-moons that reach into each other, drawn on the spot."""

import math

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unstall import InMemoryDataset, UsageError, global_seed, in_memory_loader, random_generator

Batch = tuple[Tensor, Tensor]

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


class MoonsDataModule(pl.LightningDataModule):
    """Points of the plane, float32 `(B, 2)` around the origin, and the moon each belongs to, int64 `(B,)`.

    Args:
        samples: How many points, for training, validation and test together; the global seed says which.
        noise: Standard deviation of each coordinate; the moons are half circles of radius 1.
        batch_size: Points a step, in each process.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(self, samples: int = 5000, noise: float = 0.25, batch_size: int = 64) -> None:
        super().__init__()
        if samples < 10:
            raise UsageError(f"samples={samples} is too few to divide: give at least 10")
        if not 0 <= noise < math.inf:
            raise UsageError(f"noise={noise}: give a finite number of at least 0")
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} is too small: give at least 1")
        self.samples = samples
        self.noise = noise
        self.batch_size = batch_size
        self.classes = ["first", "second"]
        self.parts: dict[str, InMemoryDataset] = {}
        self.save_hyperparameters(logger=False)

    def setup(self, stage: str | None = None) -> None:
        """Draw the points and divide them; the same seed gives the same ones at every stage."""
        random = random_generator("moons", global_seed())
        labels = random.integers(2, size=self.samples)
        angle = random.uniform(0, math.pi, self.samples)
        moon = np.stack([np.cos(angle) - 0.5, np.sin(angle) - 0.25])  # the second is the first, turned by half a circle
        points = (1 - 2 * labels) * moon + random.normal(0, self.noise, (2, self.samples))
        first = 0
        for part, share in SHARES.items():
            last = first + round(share * self.samples)
            inputs = torch.from_numpy(points[:, first:last].T.astype(np.float32).copy())
            self.parts[part] = InMemoryDataset(inputs, torch.from_numpy(labels[first:last]))
            first = last

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def _loader(self, part: str) -> DataLoader[Batch]:
        return in_memory_loader(self.parts[part], self.batch_size, shuffle=part == "train", trainer=self.trainer)
