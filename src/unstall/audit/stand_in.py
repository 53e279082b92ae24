"""A copy that stands in for a module: its steps are recorded, and leave no trace in the run."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor

from unstall.audit.comparison import Comparison, find_comparison
from unstall.audit.flow import Flow
from unstall.audit.record import Recording, tensors_in
from unstall.trials import factories, quiet, run_its_own_code, training_step, unchanged_random_state

SILENT = ("log", "log_dict", "print", "toggle_optimizer", "untoggle_optimizer", "clip_gradients")
"""What a step may call of its module that acts on the run."""


def compared_in(module: pl.LightningModule, batch: Any) -> Comparison | None:
    """Return what the loss of a module compares, seen in one step of the module itself, in whatever mode it is."""
    with Recording() as recording:
        loss = _loss_of(training_step(module, batch))
    return None if loss is None else find_comparison(Flow(recording, tensors_in(batch), module.parameters()), loss)


class _Trainer:
    """A trainer that answers as the fit's own does, and has no logger or optimizer that a step could change."""

    def __init__(self, trainer: pl.Trainer, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._trainer = trainer
        self.optimizers = list(optimizers)
        self.logger = DummyLogger()
        self.loggers = [self.logger]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


class StandIn:
    """A copy of a module that logs nothing and steps no optimizer.

    Args:
        module: It is not changed.
        trainer: What `self.trainer` is to the copy.
        optimizers: Of the fit; the copy sees their settings.

    Raises:
        TypeError: if a part, such as a scripted one, has no copy that could learn.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        trainer: pl.Trainer | None = None,
        optimizers: Sequence[torch.optim.Optimizer] = (),
    ) -> None:
        self.copies = factories(module)
        self.module = copy.deepcopy(module, self.copies)
        run_its_own_code(self.module)
        if not all(weight.is_leaf for weight in self.module.parameters()):
            raise TypeError(f"{type(module).__name__} has a part that cannot be copied")
        if not self.module.training:
            self.module.train()
        self.backward: list[Tensor] = []
        steppers = [_without_steps(optimizer) for optimizer in optimizers]
        schedules = [] if trainer is None else [_without_steps(each.scheduler) for each in trainer.lr_scheduler_configs]
        self.module.trainer = None if trainer is None else cast(pl.Trainer, _Trainer(trainer, steppers))
        for part in self.module.modules():
            if isinstance(part, pl.LightningModule):
                for name in SILENT:
                    setattr(part, name, _nothing)
                part.optimizers = lambda *_, **__: _one_or_all(steppers)  # type: ignore[method-assign]
                part.lr_schedulers = lambda: _one_or_all(schedules) or None  # type: ignore[method-assign]
                part.manual_backward = lambda loss, *_, **__: self.backward.append(loss)  # type: ignore[method-assign]

    def copy_of(self, original: Tensor) -> Tensor:
        """Return what stands in for a tensor of the module; the tensor itself if it is none of the module's."""
        return cast(Tensor, self.copies.get(id(original), original))

    def step(self, batch: Any) -> tuple[Recording, Tensor]:
        """Return the calls and the loss of a training step; the sum of all losses if it makes its backward passes.

        Raises:
            TypeError: if there is no loss.
        """
        self.backward.clear()
        with quiet(), contextlib.redirect_stdout(io.StringIO()), Recording() as recording:
            output = training_step(self.module, batch)
            loss = sum(self.backward) if self.backward else _loss_of(output)
        if not isinstance(loss, Tensor):
            raise TypeError(f"training_step returned {type(output).__name__}")
        return recording, loss

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, and the same random numbers each time."""
        self.module.eval()
        with unchanged_random_state(), torch.no_grad():
            torch.manual_seed(0)
            yield


def _loss_of(output: Any) -> Tensor | None:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    return loss if isinstance(loss, Tensor) else None


def _without_steps(stepper: Any) -> Any:
    """Return an optimizer or a schedule that shows its settings, and whose steps do nothing."""
    still = copy.copy(stepper)
    still.step = still.zero_grad = _nothing
    if isinstance(stepper, torch.optim.Optimizer):
        still.param_groups = [dict(group) for group in stepper.param_groups]
        still.optimizer = still  # Lightning's own are wrapped
    return still


def _one_or_all(steppers: list[Any]) -> Any:
    return steppers[0] if len(steppers) == 1 else steppers


def _nothing(*_: Any, **__: Any) -> None: ...
