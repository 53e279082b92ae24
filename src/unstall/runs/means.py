"""Means over an epoch, read once: what a module logs of every batch without a cost in every step."""

import torch
from torch import Tensor
from torchmetrics import Metric


class Mean(Metric):
    """Mean over the samples of an epoch, on all devices together."""

    total: Tensor
    samples: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, total: Tensor, samples: int) -> None:
        """Add the sum (a scalar) over so many samples."""
        self.total.add_(total)
        self.samples.add_(samples)

    def compute(self) -> Tensor:
        """Return the mean of all samples since the last reset."""
        return self.total / self.samples
