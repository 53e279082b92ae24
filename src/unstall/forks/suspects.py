"""What may be wrong with a network or its inputs, each as a change that would mend it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from unstall.forks.changes import Config, network_settings, overlay_of, redrawn, with_relu
from unstall.trials import scale_of_inputs, scaled
from unstall.watch import Cause

Rebuild = Callable[[dict[str, Any]], pl.LightningModule]
"""Builds the module at its initial weights from the configuration with an overlay."""


@dataclass(frozen=True)
class Suspect:
    """A change of the network or of its inputs, to be tried where no rate helps.

    Args:
        change: In words.
        cause: What it would mend.
        module: The changed module, or the run's own.
        transform: What is done to each batch.
        setting: The overlay that makes the change permanent; None if it has no setting.
    """

    change: str
    cause: Cause
    module: pl.LightningModule
    transform: Callable[[Any], Any] = lambda batch: batch
    setting: dict[str, Any] | None = None


def find_suspects(
    module: pl.LightningModule, batch: Any, config: Config, rebuild: Rebuild | None, spoilt: Cause
) -> Iterator[Suspect]:
    """Yield what can be changed about the inputs' scale, the initial weights, the activation and the widths.

    A setting of the run's configuration is changed where there is one; where there is none, a copy of the module.

    Args:
        module: The run's own, at its initial weights.
        batch: Any of the training batches.
        config: The run's configuration; may be empty.
        rebuild: None: no setting can be changed.
        spoilt: What better initial weights would mend: `DEAD_AT_START` or `BAD_SCALE`.
    """
    settings = network_settings(config)
    scale = scale_of_inputs(batch)
    if scale is not None and not 0.1 < scale < 3:
        smaller: Callable[[Any], Any] = lambda batch: scaled(batch, 1 / scale)  # noqa: E731
        yield Suspect(f"inputs divided by {scale:.3g}", Cause.BAD_SCALE, module, smaller)
    wanted = {"init_scale": (1.0, spoilt), "activation": ("relu", Cause.VANISHING)}
    widths = settings.get("widths")
    if isinstance(widths, (list, tuple)) and len(widths) > 2 and min(widths[1:-1]) < 128:
        wanted["widths"] = (
            [widths[0], *(max(128, width) for width in widths[1:-1]), widths[-1]],
            Cause.LOW_CAPACITY,
        )
    for name, (value, cause) in wanted.items():
        overlay = overlay_of(config, (f"network.{name}", name), value)
        if rebuild is not None and name in settings and settings[name] != value and overlay is not None:
            yield Suspect(f"{name} {value}", cause, rebuild(overlay), setting=overlay)
    if "init_scale" not in settings:
        yield Suspect("initial weights as torch draws them", spoilt, redrawn(module))
    if "activation" not in settings and (changed := with_relu(module)) is not None:
        yield Suspect("ReLU in place of every sigmoid and tanh", Cause.VANISHING, changed)
