"""What the terminal shows: the progress bar, and how to run this program again."""

import os
import shlex
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.callbacks.progress.rich_progress import ProcessingSpeedColumn, RichProgressBarTheme
from pytorch_lightning.profilers import PassThroughProfiler
from rich import get_console
from rich.progress import BarColumn

from unstall.runs import number, ordered


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for every hook of every callback."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, told of every 20th batch, and drawn four times a second.

    It shows what was measured in the epoch before, and nothing where there is no terminal.

    Args:
        refresh_rate: Drawings per second, by a thread that competes with the training loop. Lightning's default is 100.
        every_n_batches: Batches after which it is told how far the epoch is.
    """

    MOST = 6
    """Metrics beside the bar: the rest would wrap it."""
    WIDE = 120
    """Columns of a terminal that holds the metrics beside all that Lightning shows."""

    def __init__(self, refresh_rate: int = 4, every_n_batches: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate, theme=RichProgressBarTheme(metrics_text_delimiter="\n"))
        self.every_n_batches = every_n_batches
        self._epoch: dict[str, str] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Be silent without a terminal, where a bar is a line without news."""
        super().setup(trainer, pl_module, stage)
        self._epoch = {}
        console = get_console()
        if not console.is_terminal and not console.is_jupyter:
            self.disable()

    def configure_columns(self, trainer: pl.Trainer) -> list[Any]:
        """Leave room for the metrics in a terminal of the usual width."""
        columns: list[Any] = super().configure_columns(trainer)
        if get_console().width >= self.WIDE:
            return columns
        for column in columns:
            if isinstance(column, BarColumn):
                column.bar_width = 12
        return [column for column in columns if not isinstance(column, ProcessingSpeedColumn)]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count epochs from one, as the line after each does."""
        super().on_train_epoch_start(trainer, pl_module)
        if self.progress is not None and self.train_progress_bar_id is not None:
            epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
            self.progress.update(self.train_progress_bar_id, description=f"Epoch {trainer.current_epoch + 1}{epochs}")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar now and then."""
        if (batch_idx + 1) % self.every_n_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show what the epoch has come to."""
        metrics = list(ordered(trainer.callback_metrics).items())[: self.MOST]
        self._epoch = {name: number(float(value)) for name, value in metrics}
        super().on_train_epoch_end(trainer, pl_module)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leave out the version number, of which Lightning would show the last four letters."""
        metrics = {**self._epoch, **super().get_metrics(trainer, pl_module)}
        metrics.pop("v_num", None)
        return metrics


def program(name: str = "unstall", module: str = "unstall") -> str:
    """What to type to run this program again, or another one beside it: its name if the shell finds it, else its path.

    Args:
        name: The program.
        module: What to run with `python -m` where this one was run so.
    """
    typed = Path(sys.argv[0])
    if typed.name != "unstall":
        python = "python" if shutil.which("python") == sys.executable else sys.executable
        return shlex.join([python, "-m", module])
    if shutil.which("unstall") == str(typed):
        return name
    near = os.path.relpath(typed.with_name(name))
    return shlex.quote(str(typed.with_name(name)) if near.startswith("..") else near)
