"""What can be changed about a run: its settings, its batches, its network. Copies, never the original."""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unstall.find import Config as Config
from unstall.find import overlay_for, settings_in
from unstall.trials import copied

SIZE = re.compile(r"batch_?size|per_batch|^(batch|bs)$")
"""What the size of a batch is called in public code."""

OF_EVALUATION = re.compile(r"val|test|predict|infer")
"""What it is called where it is none of training."""


LAYERS = nn.Linear, nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm
"""Modules that return what one function of torch does."""


def overlay_of(config: Config, names: Sequence[str], value: Any, place: str = "model") -> dict[str, Any] | None:
    """Return the overlay that gives the first of these settings a value; None if the configuration has none of them.

    Args:
        config: The configuration of a run.
        names: What the setting may be called, as paths with dots.
        value: Its new value.
        place: Where it is, if it is not at the top.
    """
    for name in names:
        for start in (place, None):
            path = (*([] if start is None else [start]), *name.split("."))
            found = overlay_for(config, path, value)
            if found is not None:
                return found
    return None


def batch_overlay(config: Config, samples: int, factor: int) -> dict[str, Any] | None:
    """Return the overlay that makes batches so many times as large; None if no setting is the size of a batch.

    It is one if it says so in its name, and has as its value what a batch holds: of the data, or of a module with
    loaders of its own.

    Args:
        config: The configuration of a run.
        samples: In a batch, as the loader yields it.
        factor: How many of them are to be one.
    """
    place = "model" if config.get("data") is None else "data"
    sizes = [
        path
        for path, value in settings_in(config.get(place), (place,))
        if type(value) is int and value == samples and SIZE.search(path[-1]) and not OF_EVALUATION.search(path[-1])
    ]
    return overlay_for(config, min(sizes, key=len), factor * samples) if sizes else None


def accumulation_overlay(config: Config, factor: int) -> dict[str, Any] | None:
    """Return the overlay that accumulates the gradients of so many times as many batches; None if it has no trainer."""
    trainer = config.get("trainer")
    present = trainer.get("accumulate_grad_batches") if isinstance(trainer, Mapping) else None
    return None if present is None else {"trainer": {"accumulate_grad_batches": factor * present}}


def network_settings(config: Config) -> Mapping[str, Any]:
    """Return the settings of `model.network`, or of the model itself."""
    model = config.get("model", {})
    model = model.get("init_args", model) if isinstance(model, Mapping) else {}
    network = model.get("network", model)
    return network.get("init_args", network) if isinstance(network, Mapping) else {}


def redrawn(module: pl.LightningModule) -> pl.LightningModule:
    """Return a copy whose layers have drawn their weights anew, as their classes do."""
    module = copied(module)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for part in module.modules():
            if callable(reset := getattr(part, "reset_parameters", None)):
                reset()
    return module


def with_relu(module: pl.LightningModule) -> pl.LightningModule | None:
    """Return a copy with ReLU in the place of sigmoid and tanh, or None if it has neither."""
    module = copied(module)
    replaced = False
    for part in list(module.modules()):
        for name, child in part.named_children():
            if isinstance(child, (nn.Sigmoid, nn.Tanh)):
                setattr(part, name, nn.ReLU())
                replaced = True
    return module if replaced else None


def with_relu_after(module: pl.LightningModule, places: Sequence[str]) -> pl.LightningModule | None:
    """Return a copy in which a ReLU follows some layers; None if one of them is more than a layer, or no module.

    Args:
        module: It is not changed.
        places: Names of its submodules: linear, convolutional or normalizing layers.
    """
    module = copied(module)
    parts = dict(module.named_modules())
    layers = [parts.get(place) for place in places]
    if not all(isinstance(layer, LAYERS) for layer in layers):
        return None
    for layer in filter(None, layers):
        layer.register_forward_hook(_rectified)
    return module


def _rectified(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.relu()


def with_usual_momentum(module: pl.LightningModule) -> pl.LightningModule | None:
    """Return a copy whose batch normalization has torch's momentum of 0.1, or None if it has no other."""
    module = copied(module)
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    other = [part for part in norms if part.momentum is not None and not 0.05 <= part.momentum <= 0.5]
    for part in other:
        part.momentum = 0.1
    return module if other else None


def wider(module: pl.LightningModule, width: int = 128) -> pl.LightningModule | None:
    """Return a copy whose narrow hidden layers are linear layers of `width` units; None if it has none that is known.

    Known as one: a linear layer that the next one takes its inputs from, with nothing but normalisation of as many
    units between the two.
    """
    module = copied(module)
    layers = [(parent, name, child) for parent in module.modules() for name, child in parent.named_children()]
    linear = [place for place, (_, _, child) in enumerate(layers) if isinstance(child, nn.Linear)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        narrow = [pair for pair in pairwise(linear) if _feeds(layers[pair[0]][2], layers[pair[1]][2], width)]
        for first, second in narrow:
            for place in range(first, second + 1):
                parent, name, _ = layers[place]
                child = getattr(parent, name)
                setattr(parent, name, _widened(child, width, place == first, place == second))
    return module if narrow else None


def _feeds(first: nn.Module, second: nn.Module, width: int) -> bool:
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    return first.out_features == second.in_features < width


def _widened(layer: nn.Module, width: int, first: bool, last: bool) -> nn.Module:
    if isinstance(layer, nn.Linear):
        inputs, outputs = (width if last else layer.in_features), (width if first else layer.out_features)
        return nn.Linear(inputs, outputs, layer.bias is not None, layer.weight.device, layer.weight.dtype)
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return type(layer)(width)
    return nn.LayerNorm(width) if isinstance(layer, nn.LayerNorm) else layer
