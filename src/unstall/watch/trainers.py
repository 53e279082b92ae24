"""What a trainer is about: how it trains, with how much data, and whether it is at its end."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import DummyLogger


def has_more_than(samples: int | None, trainer: pl.Trainer) -> bool:
    """Return whether a trainer's data are more than a batch of so many samples, as far as the data set says."""
    held = getattr(getattr(trainer.train_dataloader, "dataset", None), "__len__", lambda: 0)()
    overfits = bool(vars(trainer).get("overfit_batches"))  # Lightning sets it without declaring it
    return not overfits and samples is not None and held > samples


def clip_norm(trainer: pl.Trainer) -> float | None:
    """Return the limit of the gradient's norm; None where a trainer clips otherwise or not at all."""
    by_norm = (trainer.gradient_clip_algorithm or "norm") == "norm"
    return float(trainer.gradient_clip_val) if by_norm and trainer.gradient_clip_val else None


def is_last_epoch(trainer: pl.Trainer) -> bool:
    """Whether the trainer will stop after this epoch, as far as its limits and its callbacks so far say."""
    epochs, steps = trainer.max_epochs, trainer.max_steps
    limits = ((epochs, trainer.current_epoch + 1), (steps, trainer.global_step))
    stops = trainer.should_stop and trainer.current_epoch + 1 >= (trainer.min_epochs or 0)
    return stops or any(limit is not None and 0 <= limit <= reached for limit, reached in limits)


def is_rehearsal(trainer: pl.Trainer) -> bool:
    """Whether this is no run of its own: both `fast_dev_run` and Lightning's finder put a dummy there."""
    return any(isinstance(logger, DummyLogger) for logger in trainer.loggers)
