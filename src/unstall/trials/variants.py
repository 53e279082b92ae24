"""What is compared: variants of one training run, where each starts, and what becomes of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch

from unstall.errors import UsageError
from unstall.trials.learning_rate import LearningRate

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


FULL = ("32-true", "32", 32)


@dataclass(frozen=True)
class State:
    """Where a variant starts, or where it ended.

    Args:
        weights: `module.state_dict()`; of a checkpoint, its `state_dict`.
        optimizer: the optimizer's state, of a checkpoint its `optimizer_states[0]`; None starts a fresh one.
        schedulers: one state per scheduler, of a checkpoint its `lr_schedulers`; empty starts them afresh.
        steps: optimizer steps made so far, which the module sees as `global_step`; of a checkpoint its `global_step`.
        scaler: the gradient scaler's state, of a checkpoint its `MixedPrecision`; empty starts it afresh.
        generators: states of the global random generators, which go on; empty leaves them as they are.
    """

    weights: Mapping[str, Any]
    optimizer: Mapping[str, Any] | None = None
    schedulers: Sequence[Mapping[str, Any]] = ()
    steps: int = 0
    scaler: Mapping[str, Any] = field(default_factory=dict)
    generators: Mapping[str, Any] = field(default_factory=dict)

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """Parameter groups of the optimizer; of one that steps others, whose states lie in its own, those of each."""
        return list(_groups_in(self.optimizer))


def _groups_in(state: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(state, Mapping) and state.get("param_groups"):
        yield from state["param_groups"]
    elif isinstance(state, Mapping | list | tuple):
        for part in state.values() if isinstance(state, Mapping) else state:
            yield from _groups_in(part)


@dataclass(frozen=True)
class Variant:
    """One way to train. The default one changes nothing.

    Args:
        learning_rate: of the first parameter group that has one; the others keep their ratio to it, and a schedule
            still multiplies it. None keeps the configured one.
        merge: this many consecutive batches become one. A variant sees all batches once, so variants that differ
            here match in samples, not in steps.
        start: continue from there; None restarts from the module's own weights with a fresh optimizer.
    """

    learning_rate: float | None = None
    merge: int = 1
    start: State | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a variant.

    Args:
        variant: the one that was trained.
        losses: training loss before each optimizer step, as far as they were finite.
        held_out_losses: one per held-out batch, after the last step; empty if a loss was not finite.
        held_out_metrics: whatever the step logs, such as `train/accuracy`: the mean over the held-out batches, or
            what a `torchmetrics.Metric` makes of them.
        finite: whether every loss was; if not, the variant dropped out where its losses end.
        state: where it ended, if it was asked for and all losses were finite.
    """

    variant: Variant
    losses: list[float]
    held_out_losses: list[float]
    held_out_metrics: dict[str, float]
    finite: bool
    state: State | None = field(default=None, repr=False)

    @property
    def held_out_loss(self) -> float:
        """Mean loss over the held-out batches; infinite for a variant that dropped out."""
        return fmean(self.held_out_losses) if self.finite else math.inf


@dataclass(frozen=True)
class StepOptions:
    """How a step is made: as in the `Trainer` that will train, whose arguments these are.

    Args:
        accumulate_grad_batches: batches per optimizer step.
        gradient_clip_val: None or 0 does not clip.
        gradient_clip_algorithm: `norm` or `value`.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        steps_per_epoch: optimizer steps after which schedules that count epochs move on; None: they stay.
        learning_rate: in the place of the configured one, as a `LearningRate` callback sets it; None keeps that.
        scaler: state in which the gradient scaler of `16-mixed` starts; empty is torch's own.
        pace: how many times faster than in the fit schedules run: a trial that is so much shorter sees the whole of
            them.

    Raises:
        UsageError: if the precision is another one.
    """

    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    gradient_clip_algorithm: str = "norm"
    precision: str | int = "32-true"
    steps_per_epoch: int | None = None
    learning_rate: float | None = None
    scaler: Mapping[str, Any] = field(default_factory=dict)
    pace: float = 1.0

    def __post_init__(self) -> None:
        if self.precision not in (*MIXED, *FULL):
            raise UsageError(f"precision={self.precision}: a race can use 32-true, bf16-mixed or 16-mixed")

    @classmethod
    def of(cls, trainer: pl.Trainer, steps_per_epoch: int | None = None) -> StepOptions:
        """Read the options off a trainer."""
        callbacks = vars(trainer).get("callbacks", ())  # Lightning sets them without declaring them
        rates = [callback.learning_rate for callback in callbacks if isinstance(callback, LearningRate)]
        return cls(
            accumulate_grad_batches=trainer.accumulate_grad_batches,
            gradient_clip_val=trainer.gradient_clip_val,
            gradient_clip_algorithm=trainer.gradient_clip_algorithm or "norm",
            precision=trainer.precision,
            steps_per_epoch=steps_per_epoch,
            learning_rate=rates[-1] if rates else None,
            scaler=trainer.precision_plugin.state_dict(),
        )
