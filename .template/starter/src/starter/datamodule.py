"""The data: two spirals that wind around each other, drawn on the spot."""

import math

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from unstall import InMemoryDataset, UsageError, global_seed, in_memory_loader, random_generator

Batch = tuple[Tensor, Tensor]

TURNS = 1.0
SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


class SpiralsDataModule(pl.LightningDataModule):
    """Points of the plane, float32 `(B, 2)` within about one unit of the origin, and their spiral, int64 `(B,)`.

    Args:
        samples: How many points, for training, validation and test together; the global seed says which.
        noise: Standard deviation of each coordinate about its spiral; half a gap between the two is 0.17.
        batch_size: Points a step, in each process.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(self, samples: int = 5000, noise: float = 0.03, batch_size: int = 64) -> None:
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
        random = random_generator("spirals", global_seed())
        labels = random.integers(2, size=self.samples)
        radius = np.sqrt(random.random(self.samples))  # so that the points are as dense outside as inside
        angle = 2 * math.pi * TURNS * radius + math.pi * labels
        points = radius * np.stack([np.cos(angle), np.sin(angle)]) + random.normal(0, self.noise, (2, self.samples))
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
