"""Fits as people make them: under a schedule, or from weights that were trained before.

A *way* is the name of one: of `SCHEDULES`, from initial weights, or of `FINE_TUNING`, at a constant rate.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler

from networks import build_network, loss_of, take_step
from problems import Data

Schedule = tuple[lr_scheduler.LRScheduler, str]
"""And whether it moves after every `step` or `epoch`."""
WARM_UP = 0.05
BACKBONE_RATIO = 0.1
FINE_TUNING = "frozen", "unfrozen", "two groups"
FINE_TUNING_SAMPLES, FINE_TUNING_EPOCHS = 6_400, 5
PRETRAINING_STEPS = 800


def _with_warm_up(optimizer: Optimizer, steps: int, falls: bool) -> Schedule:
    rise = max(1, round(WARM_UP * steps))

    def share(step: int) -> float:
        return min((step + 1) / rise, (steps - step) / (steps - rise) if falls else 1.0)

    return lr_scheduler.LambdaLR(optimizer, share), "step"


def _one_cycle(optimizer: Optimizer, steps: int) -> Schedule:
    has_momentum = bool(optimizer.defaults.get("momentum")) or "betas" in optimizer.defaults
    peaks = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps, cycle_momentum=has_momentum), "step"


SCHEDULES: dict[str, Callable[[Optimizer, int, int], Schedule | None]] = {
    "constant": lambda optimizer, steps, epochs: None,
    "warm-up": lambda optimizer, steps, epochs: _with_warm_up(optimizer, steps, falls=False),
    "linear": lambda optimizer, steps, epochs: _with_warm_up(optimizer, steps, falls=True),
    "cosine": lambda optimizer, steps, epochs: (lr_scheduler.CosineAnnealingLR(optimizer, epochs), "epoch"),
    "one cycle": lambda optimizer, steps, epochs: _one_cycle(optimizer, steps),
    "decay by steps": lambda optimizer, steps, epochs: (
        lr_scheduler.MultiStepLR(optimizer, [max(1, epochs // 2), max(1, epochs * 3 // 4)], gamma=0.1),
        "epoch",
    ),
}
"""Given the steps and the epochs of the fit. With the schedules' own defaults; a warm-up is a twentieth of the fit."""


def schedule_of(way: str, optimizer: Optimizer, steps: int, epochs: int) -> Schedule | None:
    """None where the rate is constant."""
    return SCHEDULES[way if way in SCHEDULES else "constant"](optimizer, steps, epochs)


def other_classes(data: Data, first: bool) -> Data:
    """The first half of the classes, or the other half, numbered from 0."""
    half = (int(data[1].max()) + 1) // 2
    parts = []
    for inputs, targets in (data[:2], data[2:]):
        chosen = (targets < half) == first
        parts += [inputs[chosen], targets[chosen] - (0 if first else half)]
    return parts[0], parts[1], parts[2], parts[3]


def data_to_tune_on(data: Data) -> Data:
    """A small set of classes that the weights have not seen."""
    inputs, targets, *held_out = other_classes(data, first=False)
    return inputs[:FINE_TUNING_SAMPLES], targets[:FINE_TUNING_SAMPLES], held_out[0], held_out[1]


class Pretraining:
    """Weights that were trained on the first half of the classes, with Adam; each kept once it is trained."""

    def __init__(self) -> None:
        self.trained: dict[tuple[str, str], nn.Module] = {}

    def network(self, architecture: str, name: str, data: Data, seed: int) -> nn.Module:
        """They, with a last layer drawn anew."""
        if (architecture, name) not in self.trained:
            inputs, targets, *_ = part = other_classes(data, first=True)
            torch.manual_seed(0)
            network = build_network(architecture, part)
            optimizer = torch.optim.Adam(network.parameters())
            for _ in range(PRETRAINING_STEPS):
                indices = torch.randint(len(inputs), (128,))
                take_step(network, optimizer, inputs[indices], targets[indices])
            self.trained[architecture, name] = network
        network = copy.deepcopy(self.trained[architecture, name])
        torch.manual_seed(seed)
        last_layer(network).reset_parameters()
        return network


def last_layer(network: nn.Module) -> nn.Linear:
    """The head."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]


def optimizer_of(way: str, network: nn.Module, maker: Callable[..., Optimizer], rate: float) -> Optimizer:
    """At this rate; of two groups it is that of the head, which is the second."""
    if way not in FINE_TUNING or way == "unfrozen":
        return maker(network.parameters(), lr=rate)
    head = list(last_layer(network).parameters())
    backbone = [parameter for parameter in network.parameters() if all(parameter is not other for other in head)]
    if way == "frozen":
        for parameter in backbone:
            parameter.requires_grad_(False)
        return maker(head, lr=rate)
    return maker([{"params": backbone, "lr": BACKBONE_RATIO * rate}, {"params": head}], lr=rate)


class Lit(pl.LightningModule):
    """A network trained in one of the ways, as a stranger would write it."""

    def __init__(self, network: nn.Module, maker: Callable[..., Optimizer], way: str, rate: float = 1e-3) -> None:
        super().__init__()
        self.network, self.make = network, functools.partial(optimizer_of, way, network, maker, rate)
        self.way = way

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss."""
        return loss_of(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        """Return the optimizer, with its schedule if it has one."""
        optimizer = self.make()
        epochs = self.trainer.max_epochs
        assert epochs is not None
        schedule = schedule_of(self.way, optimizer, int(self.trainer.estimated_stepping_batches), epochs)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule[0], "interval": schedule[1]}}
