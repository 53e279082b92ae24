"""The one seed of a run, and the streams of random numbers that are drawn from it."""

import os
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback


def global_seed() -> int:
    """The one seed of a run: what Lightning's `seed_everything` was given, 0 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def random_generator(purpose: str, seed: int, epoch: int = 0) -> np.random.Generator:
    """A stream of its own for every purpose, seed and epoch; adding seed and epoch would give two of them the same."""
    return np.random.default_rng([*purpose.encode(), seed, epoch])


class RandomState(Callback):
    """Draws an epoch's random numbers from the seed and the epoch: a resumed run has the dropout it would have had.

    Keeping torch's own state would not do: Lightning makes an epoch's data iterator, which draws a number, before the
    epoch where a run resumes and within it where a run goes through.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch anew in each process, at the first batch."""
        if batch_idx == 0:
            entropy = [int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.current_epoch, trainer.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))
