"""What the terminal shows: the progress bar, and how to run this program again."""

import os
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.profilers import PassThroughProfiler


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for every hook of every callback."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, told of every 20th batch, and drawn four times a second.

    Args:
        refresh_rate: Drawings per second, by a thread that competes with the training loop. Lightning's default is 100.
        every_n_batches: Batches after which it is told how far the epoch is.
    """

    def __init__(self, refresh_rate: int = 4, every_n_batches: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.every_n_batches = every_n_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar now and then."""
        if (batch_idx + 1) % self.every_n_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leave out the version number, of which Lightning would show the last four letters."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics


def program() -> str:
    """What to type to run this program again: its name if the shell finds it, else its path."""
    typed = Path(sys.argv[0])
    if typed.name != "unstall":
        return f"{sys.executable} -m unstall"
    if shutil.which("unstall") == str(typed):
        return "unstall"
    near = os.path.relpath(typed)
    return str(typed) if near.startswith("..") else near
