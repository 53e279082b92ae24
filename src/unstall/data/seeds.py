"""The one seed of a run, and the streams of random numbers that are drawn from it."""

import os
import random
import warnings
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.data import sized_len
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
    epoch where a run resumes and within it where a run goes through. So the order of a `DataLoader` that shuffles, and
    the seeds of its workers, come from the seed and the epoch, too, unless it was given a generator of its own; and a
    run that goes on within an epoch passes over the batches that it has seen.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}
        self._seen = 0
        self._resumes = self._begun = False
        self._ours: list[torch.Generator] = []

    def state_dict(self) -> dict[str, Any]:
        """The state of all generators in plain values, for a run that goes on within an epoch."""
        name, keys, *rest = np.random.get_state()
        return {
            "torch": torch.get_rng_state(),
            "python": random.getstate(),
            "numpy": [name, list(map(int, keys)), *rest],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until training starts."""
        self._kept = state_dict

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note how many batches of its epoch a checkpoint has seen: none, or all, but for one within an epoch."""
        batches = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_loop.batch_progress", {})
        self._seen = 0 if batches.get("is_last_batch", True) else batches["current"]["ready"]
        self._resumes = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Within an epoch, go to where its next batch begins."""
        self._begun = False
        if self._resumes and self._seen:
            self._begin(trainer)
            if (loaders := trainer.fit_loop._combined_loader) is not None and self._sized(trainer):
                for _ in range(self._seen):
                    next(loaders)
                warnings.filterwarnings("ignore", message="You're resuming from a checkpoint that ended before")
            if self._kept:
                self._restore()
            pl_module.print(
                f"Goes on within epoch {trainer.current_epoch + 1}, after {self._seen} batches: "
                "this epoch's training means are over the rest."
            )
        if self._resumes and (reasons := self._reservations(trainer)):
            pl_module.print(f"This run will not equal one that was never interrupted: {'; '.join(reasons)}.")
        self._resumes, self._seen = False, 0

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed all generators anew, before an epoch's data iterator is made."""
        self._begin(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch anew in each process, at the first batch."""
        if batch_idx == 0:
            torch.manual_seed(_seed_of(trainer))

    def _begin(self, trainer: pl.Trainer) -> None:
        seed = _seed_of(trainer, *b"data")
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        loaders = trainer.fit_loop._combined_loader
        assert loaders is not None
        generators, self._ours = self._ours, []
        for loader in loaders.flattened:
            for holder in _drawing(loader):
                if holder.generator is None or any(holder.generator is generator for generator in generators):
                    holder.generator = torch.Generator().manual_seed(seed)
                    self._ours.append(holder.generator)
        if not self._begun and self._sized(trainer):
            iter(loaders)  # Lightning has made the first iterator before there was an epoch; nothing was read of it
        self._begun = True

    def _restore(self) -> None:
        torch.set_rng_state(self._kept["torch"].cpu())
        version, state, gauss = self._kept["python"]
        random.setstate((version, tuple(state), gauss))
        name, keys, *rest = self._kept["numpy"]
        np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))

    def _sized(self, trainer: pl.Trainer) -> bool:
        return sized_len(trainer.fit_loop._combined_loader) is not None  # Lightning reads ahead in one that is not

    def _reservations(self, trainer: pl.Trainer) -> list[str]:
        loaders = trainer.fit_loop._combined_loader
        assert loaders is not None
        holders = [holder for loader in loaders.flattened for holder in _drawing(loader)]
        ours = {id(generator) for generator in self._ours}
        reasons = []
        if any(holder.generator is not None and id(holder.generator) not in ours for holder in holders):
            reasons.append("its loader shuffles with a generator of its own")
        if self._seen and not self._sized(trainer):
            reasons.append("its loader has no length, and begins anew")
        if self._seen % trainer.accumulate_grad_batches:
            reasons.append("the gradients that it had accumulated are lost")
        if self._seen and trainer.world_size > 1:
            reasons.append("the random numbers are those of its first process")
        return reasons


def _drawing(loader: Any) -> list[Any]:
    """A loader, and its samplers, as far as they draw from a generator that can be given."""
    parts = [loader, getattr(loader, "sampler", None), getattr(getattr(loader, "batch_sampler", None), "sampler", None)]
    return [part for part in {id(part): part for part in parts}.values() if hasattr(part, "generator")]


def _seed_of(trainer: pl.Trainer, *purpose: int) -> int:
    entropy = [*purpose, int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.current_epoch, trainer.global_rank]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
