"""What Lightning leaves out where a run goes on."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from unstall.runs.checkpoints import moved_here
from unstall.runs.folder import LAST, log_dir


class Resumption(Callback):
    """Makes a run that goes on equal one that was never interrupted, where Lightning 2.6 does not.

    A scheduler that waits for a plateau is stepped after an epoch's checkpoint is written, and not at all where that is
    gone on from: here, then. With `max_steps`, a finished epoch is taken for one to be ended: its validation is left
    out, its end is called twice and the steps are counted one too far. And a process that is asked to end (SIGTERM)
    leaves nothing of its epoch: here it writes `last.ckpt` after the batch that it is at.
    """

    def __init__(self) -> None:
        self._plateau: list[float | None] = []
        self._resumes = False
        self._max_steps: int | None = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """At an epoch's end, keep what its schedulers are about to be told."""
        progress = trainer.fit_loop.epoch_progress.current
        if not trainer.is_last_batch or progress.completed >= progress.ready:
            return
        values = [
            trainer.callback_metrics.get(each.monitor or "")
            if each.reduce_on_plateau and each.interval == "epoch" and not (trainer.current_epoch + 1) % each.frequency
            else None
            for each in trainer.lr_scheduler_configs
        ]
        checkpoint["plateau"] = [None if value is None else float(value) for value in values]

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take it up; and let no file be removed that is not in the folder of this run's checkpoints."""
        self._plateau, self._resumes = checkpoint.get("plateau", []), True
        states = checkpoint["callbacks"]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and isinstance(states.get(callback.state_key), dict):
                states[callback.state_key] = moved_here(states[callback.state_key], Path(str(callback.dirpath)))

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the limit of steps aside until Lightning has decided where it goes on."""
        if self._resumes:
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set it again, and step the schedulers."""
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
        for each, value in zip(trainer.lr_scheduler_configs, self._plateau, strict=False):
            if value is not None:
                pl_module.lr_scheduler_step(each.scheduler, value)
        self._plateau, self._resumes, self._max_steps = [], False, None

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Asked to end within an epoch, keep what there is of it, unless a batch was not finished."""
        batches = trainer.fit_loop.epoch_loop.batch_progress
        whole = batches.current.ready == batches.current.completed > 0 and not batches.is_last_batch
        asked = isinstance(exception, SIGTERMException) or trainer.received_sigterm
        folder = log_dir(trainer) if asked else None
        if whole and folder is not None and trainer.checkpoint_callbacks and not trainer.sanity_checking:
            trainer.save_checkpoint(folder / LAST)
