"""A module's optimizer with its schedules, gradient scaler and clipping: how one trial makes its steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import (
    LightningOptimizer,
    _configure_optimizers,
    _configure_schedulers_automatic_opt,
)
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from unstall.errors import UsageError
from unstall.trials.learning_rate import learning_rate_of, set_learning_rate
from unstall.trials.variants import State, StepOptions


class Optimization:
    """What `configure_optimizers` returns, and what a trainer does with it.

    Args:
        module: whose parameters are optimized, on their device.
        options: how a step is made.
        start: continue from its optimizer, schedules and gradient scaler, if it has any.

    Raises:
        UsageError: if the module does not configure exactly one optimizer, or one that takes no scaled gradients where
            there are some.
    """

    def __init__(self, module: pl.LightningModule, options: StepOptions, start: State | None = None) -> None:
        self.options, self.module, self.factor = options, module, 1.0
        self.configured = 0.0
        configured, name = module.configure_optimizers(), type(module).__name__
        if configured is None:
            raise UsageError(f"model={name}: configure_optimizers returned None; return an optimizer")
        optimizers, schedulers, monitor = _configure_optimizers(cast(Any, configured))
        if len(optimizers) != 1:
            raise UsageError(f"model={name}: {len(optimizers)} optimizers cannot be raced; configure exactly one")
        self.optimizer: torch.optim.Optimizer = optimizers[0]
        self.schedules = _configure_schedulers_automatic_opt(schedulers, monitor)
        with suppress(UsageError):  # of a rate of 0 there are no multiples
            self.configured = self.learning_rate
        if options.learning_rate is not None:
            self.set_learning_rate(options.learning_rate)
        if start is not None and start.optimizer is not None:
            self.optimizer.load_state_dict(copy.deepcopy(dict(start.optimizer)))  # else steps would write into it
            for schedule, state in zip(self.schedules, start.schedulers, strict=False):
                schedule.scheduler.load_state_dict(copy.deepcopy(dict(state)))
        self.scaler = torch.amp.GradScaler(module.device.type, enabled=options.precision == "16-mixed")
        if self.scaler.is_enabled() and isinstance(self.optimizer, torch.optim.LBFGS):
            raise UsageError(
                f"precision={options.precision}: model={name} has LBFGS, which a fit refuses; take bf16-mixed"
            )
        if scaler := (start.scaler if start is not None else None) or options.scaler:
            self.scaler.load_state_dict(dict(scaler))

    @property
    def learning_rate(self) -> float:
        """The configured rate of the first parameter group that has one, before any schedule."""
        return learning_rate_of(self.optimizer.param_groups, (vars(schedule.scheduler) for schedule in self.schedules))

    def set_learning_rate(self, learning_rate: float) -> None:
        """Scale all groups and schedules, as if the optimizer had been made with this rate.

        Raises:
            UsageError: if every configured rate is 0.
        """
        self.factor = learning_rate / (self.configured or learning_rate)
        set_learning_rate(self.optimizer, [schedule.scheduler for schedule in self.schedules], learning_rate)

    def step(
        self,
        loss_of: Callable[[int], Tensor | None],
        accumulate: int,
        after: Callable[[int], None] = lambda _: None,
        batch_idx: int = 0,
    ) -> Tensor | None:
        """Make one step on the mean of `loss_of(0), ..., loss_of(accumulate - 1)`, between the module's hooks.

        Args:
            loss_of: the loss of a batch; None where the module skips it.
            accumulate: how many batches.
            after: called once after each batch but the last, whose end is the step.
            batch_idx: number of the last batch in its epoch.

        Returns:
            The mean before the step; None if all were skipped.
        """
        losses: list[Tensor] = []
        ended: set[int] = set()

        def closure() -> Tensor | None:
            losses.clear()
            for i in range(accumulate):
                loss = loss_of(i)
                if i == 0:
                    self.module.on_before_zero_grad(self.optimizer)
                    self.module.optimizer_zero_grad(self.module.current_epoch, batch_idx, self.optimizer)
                if loss is not None:
                    losses.append(loss.detach())
                    share = self.scaler.scale(loss / accumulate)
                    self.module.on_before_backward(share)
                    self.module.backward(share)
                    self.module.on_after_backward()
                if i < accumulate - 1 and i not in ended:
                    ended.add(i)
                    after(i)
            return losses[-1] if losses else None

        if is_overridden("optimizer_step", self.module):
            given = LightningOptimizer(self.optimizer)
            given._strategy = cast(Any, self)  # of which it asks nothing but `optimizer_step`
            with _rates_as_made(self.optimizer, self.factor):
                self.module.optimizer_step(self.module.current_epoch, batch_idx, given, closure)
        else:
            self.optimizer_step(self.optimizer, closure)
        return torch.stack(losses).mean() if losses else None

    def optimizer_step(self, optimizer: torch.optim.Optimizer, closure: Callable[[], Tensor | None], **how: Any) -> Any:
        """Step as Lightning's precision plugins do: what looks at gradients finds them summed and unscaled.

        Args:
            optimizer: this one, without what a module is given in its place.
            closure: leaves the gradients; returns None if there are none.
            how: for the optimizer.
        """

        def looked_at() -> Tensor | None:
            loss = closure()
            if loss is not None and self.scaler.is_enabled():
                self.scaler.unscale_(optimizer)
            self.module.on_before_optimizer_step(optimizer)
            _clip(self.module, self.optimizer, self.options)
            return loss

        if not self.scaler.is_enabled():
            return optimizer.step(cast(Any, looked_at), **how)  # every optimizer takes a tensor
        loss = looked_at()
        if loss is not None:
            self.scaler.step(optimizer, **how)  # makes none if a gradient is not finite
            self.scaler.update()
        return loss

    def move_schedules(self, steps: int) -> None:
        """Move the schedules on after the last of so many steps; one that waits for a metric stays."""
        before, now = (steps - 1) * self.options.pace, steps * self.options.pace
        for schedule in self.schedules:
            period = schedule.frequency * (1 if schedule.interval == "step" else self.options.steps_per_epoch or 0)
            if period and not schedule.reduce_on_plateau:
                for _ in range(int(now // period) - int(before // period)):
                    self.module.lr_scheduler_step(schedule.scheduler, None)

    def state(self, weights: dict[str, Any], steps: int = 0) -> State:
        """Return where the optimizer and its schedules are, beside the module's weights and the steps made so far."""
        schedulers = [schedule.scheduler.state_dict() for schedule in self.schedules]
        return State(weights, self.optimizer.state_dict(), schedulers, steps, self.scaler.state_dict())


def _clip(module: pl.LightningModule, optimizer: torch.optim.Optimizer, options: StepOptions) -> None:
    limit = options.gradient_clip_val
    if is_overridden("configure_gradient_clipping", module):
        module.configure_gradient_clipping(optimizer, limit, options.gradient_clip_algorithm)
        return
    if not limit:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if options.gradient_clip_algorithm == "value":
        nn.utils.clip_grad_value_(parameters, limit)
    else:
        nn.utils.clip_grad_norm_(parameters, limit)


@contextmanager
def _rates_as_made(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """Let the module read and write the rates that the optimizer was made with, as for a warm-up; steps are scaled."""

    def scale(by: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * by

    there = optimizer.register_step_pre_hook(lambda *_: scale(factor))
    back = optimizer.register_step_post_hook(lambda *_: scale(1 / factor))
    scale(1 / factor)
    try:
        yield
    finally:
        there.remove()
        back.remove()
        scale(factor)


def check_optimization(module: pl.LightningModule) -> None:
    """Refuse a module that steps its optimizers itself: no rate of ours would reach them; and what is no module at all.

    Raises:
        UsageError: if `automatic_optimization` is off, or if the module is of another Lightning than ours.
    """
    if not isinstance(module, pl.LightningModule):
        name = f"model={type(module).__name__}"
        if not any(kind.__name__ == "LightningModule" for kind in type(module).__mro__):
            raise UsageError(f"{name}: no LightningModule; give one")
        raise UsageError(
            f"{name}: of another Lightning than {pl.__name__}: both of its names were imported before unstall; "
            "import unstall first, or import but one of `lightning` and `pytorch_lightning`"
        )
    if not module.automatic_optimization:
        name = type(module).__name__
        raise UsageError(
            f"model={name}: manual optimization cannot be raced, since the module steps its optimizers itself; "
            "fit shows its curves and looks at its first step; of a single optimizer, set automatic_optimization = True"
        )
