"""What can be changed about a run: its settings, its batches, its network. Copies, never the original."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from unstall.find import Config as Config
from unstall.find import overlay_for
from unstall.trials import copied


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
