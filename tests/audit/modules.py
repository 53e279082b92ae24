"""A layer and a loss: the smallest module of which a step can be observed."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.audit import Observation, observe

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 3
NUMBERS = X[:, 0] * 2 + 1
ONES = (X[:, :1] > 0).float()


class Lit(pl.LightningModule):
    def __init__(self, outputs: int, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))
        self.loss = loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.log("loss", 1.0)
        return self.loss(self.net(batch[0]), batch[1])


def observed(parts: dict[str, nn.Module], step: Callable[[Any, Tensor], Tensor], inputs: Tensor) -> Observation:
    """Return what is seen of a step whose logits are made by a function of the module, with these parts, and inputs."""

    class Module(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(step(self, batch[0]), batch[1])

    module = Module(3, F.cross_entropy)
    for name, made in parts.items():
        setattr(module, name, made)
    return observe(module, [inputs, LABELS])
