"""Samples around ten centres, and a small network that learns to tell them apart."""

from collections.abc import Sequence
from itertools import pairwise

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.forks.subject import screening_steps

Batch = tuple[Tensor, Tensor]


class Lit(pl.LightningModule):
    def __init__(
        self,
        rate: float,
        optimizer: str = "SGD",
        widths: Sequence[int] = (20, 64, 10),
        activation: type[nn.Module] = nn.ReLU,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.network = nn.Sequential(*layers[:-1])
        self.rate, self.optimizer = rate, optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


class Logging(Lit):
    """The same, which logs its accuracy."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.network(batch[0])
        self.log("train/accuracy", (logits.argmax(1) == batch[1]).float().mean())
        return F.cross_entropy(logits, batch[1])


def blobs(
    batch_size: int = 32, seed: int = 0, random: bool = False, scale: float = 1.0
) -> tuple[list[Batch], list[Batch]]:
    """Four screenings' worth of training batches, and 500 held-out samples."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 20, generator=generator)
    count = 4 * screening_steps(batch_size)
    labels = torch.randint(10, (count * batch_size + 500,), generator=generator)
    inputs = scale * (centres[labels] + 0.7 * torch.randn(len(labels), 20, generator=generator))
    if random:
        labels = torch.randint(10, labels.shape, generator=generator)
    training = list(zip(inputs[:-500].split(batch_size), labels[:-500].split(batch_size), strict=True))
    return training, [(inputs[-500:], labels[-500:])]


def dead(module: Lit, units: int = 64) -> Lit:
    """Units that are never above zero."""
    assert isinstance(module.network[0], nn.Linear)
    nn.init.constant_(module.network[0].bias[:units], -1000.0)
    return module


CONFIG = {
    "model": {
        "class_path": "tests.Lit",
        "init_args": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.0}}},
    },
    "data": {"class_path": "tests.Data", "init_args": {"batch_size": 32}},
}
