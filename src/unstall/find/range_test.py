"""Lightning's own range test, and its curve mended: what comes of rates that rise from step to step.

Its defects, with the remedy beside each, are in docs/lr_find.md. The trainer on which it runs is thrown away.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.tuner.tuning import Tuner

from unstall.trials import Rehearsal, ScratchLogger, copied, quiet, throwaway_trainer

RANGE_TEST_STEPS = 100
"""Lightning's default `num_training`: eleven rates a decade over the default range."""


LIGHTNING_BETA = 0.98
"""How `Tuner.lr_find` smooths: over fifty steps, which are four decades and more of a test of 100."""


BETA = 0.8
"""How we smooth instead: over five steps, less than half a decade."""


@dataclass(frozen=True)
class RangeTest:
    """One run through rising rates, as far as its losses are finite.

    Args:
        learning_rates: per step.
        losses: training loss of that step, before any smoothing.
    """

    learning_rates: list[float]
    losses: list[float]

    @property
    def smoothed(self) -> list[float]:
        """The losses as an exponential average over about five steps."""
        return smooth(self.losses, BETA)

    @property
    def blows_up_at(self) -> float | None:
        """First rate past the minimum whose smoothed loss is above that of the start; None if there is none."""
        start = fmean(self.losses[:10])
        lowest = self.smoothed.index(min(self.smoothed))
        past = zip(self.learning_rates[lowest:], self.smoothed[lowest:], strict=True)
        return next((rate for rate, loss in past if loss > start), None)


def raw_losses(smoothed: Sequence[float], beta: float = LIGHTNING_BETA) -> list[float]:
    """Recover the losses, as far as they are finite, from the curve of Lightning's finder.

    Its average is `a <- beta a + (1 - beta) loss`, and it shows `a / (1 - beta ** (k + 1))` at step k = 1, 2, ...:
    the exponent is one too large, so the curve begins at half the true loss (Lightning #14167).
    """
    average, losses = 0.0, []
    for k, value in enumerate(smoothed, start=1):
        if not math.isfinite(value):
            continue  # a batch that the module skipped: its average has not changed
        following = value * (1 - beta ** (k + 1))
        losses.append((following - beta * average) / (1 - beta))
        average = following
    return losses


def smooth(losses: Sequence[float], beta: float) -> list[float]:
    """Exponential average, with the bias of its start removed."""
    average, smoothed = 0.0, []
    for k, loss in enumerate(losses, start=1):
        average = beta * average + (1 - beta) * loss
        smoothed.append(average / (1 - beta**k))
    return smoothed


def run_range_test(rehearsal: Rehearsal, scratch: str, lowest: float, highest: float) -> tuple[RangeTest, float | None]:
    """Lightning's own finder, and its suggestion, on a copy of the module."""
    # A schedule may ask the trainer how long the fit will be: as long as the real one, or at least as this test.
    options, epochs, steps = rehearsal.options, rehearsal.trainer.max_epochs, rehearsal.trainer.max_steps
    if options.steps_per_epoch is None or epochs is None:
        epochs = -1
    elif epochs > 0:
        epochs = max(epochs, math.ceil(RANGE_TEST_STEPS / options.steps_per_epoch))
    steps = max(steps, RANGE_TEST_STEPS) if steps > 0 else -1
    device, plugin = rehearsal.module.device, InMemoryCheckpoint()
    trainer = throwaway_trainer(options, device, scratch, max_epochs=epochs, max_steps=steps, plugins=plugin)
    module, suggestion = copied(rehearsal.module), None
    module.strict_loading = False  # it is put back at the end, and may have made buffers meanwhile
    start, end = module.on_train_start, module.on_train_epoch_end

    def started() -> None:
        trainer.logger = ScratchLogger(scratch)  # in the place of the tuner's, which has no folder
        start()

    def ended() -> None:
        with suppress(Exception):  # a report may lack what a validation would have left, as in a race
            end()

    vars(module).update(on_train_start=started, on_train_epoch_end=ended)
    with quiet():
        try:
            finder = Tuner(trainer).lr_find(
                module,
                rehearsal.training if rehearsal.datamodule is None else None,
                datamodule=rehearsal.datamodule,
                min_lr=lowest,
                max_lr=highest,
                num_training=RANGE_TEST_STEPS,
                early_stop_threshold=None,
                update_attr=False,
            )
            assert finder is not None
            rates, smoothed = finder.results["lr"], finder.results["loss"]
            with suppress(IndexError):  # a batch at which the module ended the epoch has a rate and no loss
                suggestion = finder.suggestion()
        except Exception:
            # A module may refuse bad numbers, as a distribution does whose parameters are NaN: that rate was too high.
            callbacks: list[Any] = vars(trainer)["callbacks"]  # Lightning sets it without declaring it
            rates, smoothed = (getattr(callbacks[0], name, []) for name in ("lrs", "losses"))
            if not any(map(math.isfinite, smoothed)):
                raise
    kept = [rate for rate, loss in zip(rates, smoothed, strict=False) if math.isfinite(loss)]
    return RangeTest(kept, raw_losses(smoothed)), suggestion


class InMemoryCheckpoint(CheckpointIO):
    """Lightning's finder saves the module to bring it back: on disk, where it loads plain hyper-parameters alone."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        self.checkpoint = copy.deepcopy(checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        pass
