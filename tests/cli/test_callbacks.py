"""The callbacks of a run, and the calls that Lightning makes of them in a step."""

from collections import Counter
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.demos.boring_classes import BoringModel
from pytorch_lightning.profilers import PassThroughProfiler

from unstall import Checkpoints, Diagnosis, Mistakes, Predictions, ProgressBar, quiet
from unstall.cli.callbacks import HOOKS, callbacks_of, drop_idle_hooks


def settings(callbacks: Any, **flags: Any) -> Namespace:
    usual = {"enable_progress_bar": None, "enable_checkpointing": None, "fast_dev_run": False}
    return Namespace(callbacks=callbacks, **{**usual, **flags})


def names(callbacks: list[Callback]) -> list[str]:
    return [type(callback).__name__ for callback in callbacks]


def test_a_run_has_ours_and_none_that_is_off() -> None:
    given = [ProgressBar(), Mistakes(), Checkpoints()]
    ours = ["Resumption", "Together"]
    assert names(callbacks_of(settings(given))) == ["ProgressBar", "Mistakes", "Checkpoints", *ours]
    assert names(callbacks_of(settings(given, enable_progress_bar=False))) == ["Mistakes", "Checkpoints", *ours]
    assert names(callbacks_of(settings(given, fast_dev_run=1))) == ["ProgressBar", "Mistakes", *ours]
    assert names(callbacks_of(settings(Mistakes()))) == ["Mistakes", *ours]
    assert names(callbacks_of(settings(None))) == ours


class Asked(PassThroughProfiler):
    """Counts the hooks that Lightning calls, which it tells its profiler."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def profile(self, action_name: str) -> Any:
        self.calls[action_name] += 1
        return super().profile(action_name)


class OfAUser(Callback):
    """Does nothing."""


class Seeing(Diagnosis):
    """A callback of a user, made of one of ours."""

    seen = 0

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen += 1


def test_a_step_calls_what_does_something_and_nothing_else(tmp_path: Any) -> None:
    profiler, seeing = Asked(), Seeing()
    callbacks = callbacks_of(settings([Mistakes(), Predictions(), seeing, OfAUser()]))
    drop_idle_hooks(callbacks)
    silent: Any = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    with quiet():
        trainer = pl.Trainer(
            max_steps=3,
            limit_val_batches=0,
            accelerator="cpu",
            default_root_dir=tmp_path,
            callbacks=callbacks,
            profiler=profiler,
            **silent,
        )
        trainer.fit(BoringModel(), torch.utils.data.DataLoader(torch.randn(24, 32), 8))
    called = {
        name: {hook for hook in HOOKS if profiler.calls[f"[Callback]{name}.{hook}"] == 3} for name in names(callbacks)
    }
    assert called["Mistakes"] == called["Predictions"] == called["Resumption"] == set()
    assert called["OfAUser"] == set(HOOKS), "somebody may call them by himself"
    assert seeing.seen == 3
    assert trainer.global_step == 3


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_of_a_step_exists(hook: str) -> None:
    assert callable(getattr(Callback, hook))
    callback = Mistakes()
    drop_idle_hooks([callback])
    assert getattr(callback, hook) is None
