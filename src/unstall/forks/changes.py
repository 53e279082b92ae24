"""What can be changed about a run: its settings, its batches, its network. Copies, never the original."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from unstall.trials import copied

Config = Mapping[str, Any]


def overlay_for(config: Any, path: Sequence[str], value: Any) -> dict[str, Any] | None:
    """Return the overlay that sets `path`, through `class_path` and `init_args`, if it exists in the configuration."""
    if not isinstance(config, Mapping):
        return None
    if "init_args" in config:
        inner = overlay_for(config["init_args"], path, value)
        return None if inner is None else {"class_path": config["class_path"], "init_args": inner}
    if path[0] not in config:
        return None
    if len(path) == 1:
        return {path[0]: value}
    inner = overlay_for(config[path[0]], path[1:], value)
    return None if inner is None else {path[0]: inner}


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
            path = [part for part in (start, *name.split(".")) if part is not None]
            found = overlay_for(config, path, value)
            if found is not None:
                return found
    return None


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return one overlay out of two; where both set the same, the right one wins."""
    both = dict(left)
    for key, value in right.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


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
