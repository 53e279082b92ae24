"""How several processes end together."""

import signal
import threading
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback


class Together(Callback):
    """Has several processes end after the same batch when they are asked to (SIGTERM), so that all write a checkpoint.

    Lightning 2.6 lets each of them tell the others from within its handler, in the middle of a step, and end after the
    batch that it is at itself: they wait for one another for ever.
    """

    def __init__(self) -> None:
        self.asked = False
        self.agreed = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the place of Lightning's handler, which it sets before and takes back after a fit."""
        self.asked = self.agreed = False
        if trainer.world_size == 1 or threading.current_thread() is not threading.main_thread():
            return

        def ask(signum: int, frame: FrameType | None) -> None:
            launcher = trainer.strategy.launcher
            if launcher is not None and not self.asked:
                launcher.kill(signal.Signals(signum))  # pass it on to the processes that this one has started
            self.asked = True

        signal.signal(signal.SIGTERM, ask)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree."""
        if trainer.world_size > 1:
            self.agreed = trainer.strategy.reduce_boolean_decision(self.asked, all=False)
