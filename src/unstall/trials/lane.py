"""One trial on its way: a copy of the module as a fit has it, with its optimizer, its hooks and its trainer.

    with in_fit(module, variant, options, device, trainer) as lane:
        loss = lane.step([batch])

To the copy it looks like `Trainer.fit`: it is told where the fit stands (`global_step`, `current_epoch`,
`trainer.training` and the rest), which optimizer it has, and its hooks around a step and an epoch are called. Not
called are those that validate, save or end a fit, and those of callbacks: they may act on the world outside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.trainer.states import RunningStage, TrainerFn, TrainerState, TrainerStatus
from pytorch_lightning.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor
from torchmetrics import Metric

from unstall.errors import UsageError
from unstall.trials.copies import copied, put_back
from unstall.trials.optimization import Optimization
from unstall.trials.variants import MIXED, State, StepOptions, Variant


@contextmanager
def in_fit(
    module: pl.LightningModule,
    variant: Variant,
    options: StepOptions,
    device: torch.device,
    trainer: pl.Trainer | None = None,
) -> Iterator[Lane]:
    """Yield a copy of the module at the step where the variant starts; the trainer is put back afterwards.

    Args:
        module: Set up and configured, as a fit would. It is left alone.
        variant: Where it starts, and its rate.
        options: How a step is made.
        device: Where to train.
        trainer: What `self.trainer` is to the copy meanwhile; None: not attached.

    Raises:
        UsageError: if the module does not configure exactly one optimizer, or cannot be copied.
    """
    module = copied(module).to(device)  # a LightningModule leaves its trainer behind when copied
    module.trainer = trainer
    with _running(trainer, module):
        yield Lane(module, variant, options, device, trainer)


class Lane:
    """A copy between two steps of its fit. Made by `in_fit`."""

    def __init__(
        self,
        module: pl.LightningModule,
        variant: Variant,
        options: StepOptions,
        device: torch.device,
        trainer: pl.Trainer | None,
    ) -> None:
        self.module, self.options, self.device, self.trainer = module, options, device, trainer
        self.log = _Log({} if trainer is None else trainer.callback_metrics)
        self._training_step = _stepper(module)
        self.evaluates_with_gradients = False
        for part in module.modules():
            if isinstance(part, pl.LightningModule):
                # There is nowhere to log to. A function: a module that copies itself must not copy all this.
                part.log = lambda *logged, **how: self.log.note(*logged, **how)  # type: ignore[method-assign]
                part.print = _nothing  # type: ignore[method-assign]
        if not module.training:
            module.train()
        start = variant.start
        self.optimization = Optimization(module, options, start)
        if variant.learning_rate is not None:
            self.optimization.set_learning_rate(variant.learning_rate)
        if trainer is not None:
            trainer.strategy.optimizers = [self.optimization.optimizer]
            trainer.strategy.lr_scheduler_configs = self.optimization.schedules
        self.first = self.steps = 0 if start is None else start.steps
        per_epoch = options.steps_per_epoch
        self.steps_per_epoch = None if per_epoch is None else max(1, per_epoch // variant.merge)
        self.epoch = self.steps // (self.steps_per_epoch or sys.maxsize)
        self._stand(-1)
        module.on_train_start()
        module.on_train_epoch_start()
        if start is not None:  # after the hooks: what they make is part of the state, too
            put_back(module, start.weights)

    def step(self, batches: Sequence[Any]) -> Tensor | None:
        """Make one optimizer step on the mean loss of these batches, and move the schedules on.

        Returns:
            That mean before the step; None if the module skipped all of them.
        """
        epoch, within = divmod(self.steps, self.steps_per_epoch or sys.maxsize)
        if within == 0 and self.steps > self.first:
            with suppress(Exception):  # a report may lack what a validation would have left
                self.module.on_train_epoch_end()
            self.epoch = epoch
            self._stand(-1)
            self.module.on_train_epoch_start()
        first = within * len(batches)
        moved: list[Any] = []
        ended: set[int] = set()
        outputs: dict[int, dict[str, Any]] = {}

        def loss_of(i: int) -> Tensor | None:
            if i == len(moved):  # an optimizer may ask for the loss again
                self._stand(first + i)
                moved.append(self._moved(batches[i]))
                if self.module.on_train_batch_start(moved[i], first + i) == -1:
                    ended.add(i)
            if i in ended:  # the hook has ended the epoch: here it leaves out the batch
                return None
            output = self._output(moved[i], first + i)
            loss = self._loss_of(output)
            if loss is not None and not loss.requires_grad:
                name = type(self.module).__name__
                raise UsageError(f"model={name}: the loss requires no gradient; unfreeze a parameter")
            outputs[i] = _handed_out(output, loss, len(batches))
            return loss

        def after(i: int) -> None:
            if i not in ended:
                self.module.on_train_batch_end(outputs[i], moved[i], first + i)

        loss = self.optimization.step(loss_of, len(batches), after, first + len(batches) - 1)
        self.steps += 1
        self._stand(first + len(batches) - 1)
        after(len(batches) - 1)
        self.optimization.move_schedules(self.steps)
        return loss

    def evaluate(self, batches: Sequence[Any]) -> list[float]:
        """Return what `training_step` returns for each batch in eval mode, but for those that the module skips."""
        self.log.open()
        for part in self.module.modules():
            if isinstance(part, Metric):
                part.reset()
                part.sync_on_compute = False  # other processes may not come here
        losses = [self._evaluated(batch, i) for i, batch in enumerate(batches)]
        self.log.evaluating = False
        return [loss.item() for loss in losses if loss is not None]

    def _evaluated(self, batch: Any, batch_idx: int) -> Tensor | None:
        self.module.eval()  # a step may end in `self.train()`
        with torch.no_grad():
            self._stage(RunningStage.VALIDATING)  # a transfer hook may add noise to what is trained on
            moved = self._moved(batch)
            self._stage(RunningStage.TRAINING)
        with torch.set_grad_enabled(self.evaluates_with_gradients):
            try:
                loss = self._loss_of(self._output(moved, batch_idx))
            except RuntimeError:
                # A loss may be of a derivative, as of forces from an energy.
                if self.evaluates_with_gradients:
                    raise
                self.evaluates_with_gradients = True
                return self._evaluated(batch, batch_idx)
        return None if loss is None else loss.detach()

    def state(self) -> State:
        """Return where the copy is."""
        return self.optimization.state(self.module.state_dict(), self.steps)

    def loss(self, batch: Any) -> Tensor | None:
        """Return the loss of a batch at the present weights, with its graph; None if the module skips it."""
        return self._loss_of(self._output(self._moved(batch), 0))

    def _moved(self, batch: Any) -> Any:
        batch = self.module.on_before_batch_transfer(batch, 0)
        batch = self.module.transfer_batch_to_device(batch, self.device, 0)
        return self.module.on_after_batch_transfer(batch, 0)

    def _output(self, batch: Any, batch_idx: int) -> Any:
        dtype = MIXED.get(str(self.options.precision))
        with torch.autocast(self.device.type, dtype, cache_enabled=False) if dtype else nullcontext():
            return self._training_step(batch, batch_idx)

    def _loss_of(self, output: Any) -> Tensor | None:
        loss = output.get("loss", output) if isinstance(output, Mapping) else output
        if loss is not None and not isinstance(loss, Tensor):
            name = type(self.module).__name__
            raise UsageError(f"model={name}: training_step returned {loss}; it must return a loss")
        return loss

    def _stage(self, stage: RunningStage) -> None:
        if self.trainer is not None:
            self.trainer.state.stage = stage

    def _stand(self, batch_idx: int) -> None:
        """Tell the trainer where the fit stands: at which batch of its epoch, -1 before the first."""
        if self.trainer is None:
            return
        loop = self.trainer.fit_loop
        loop.epoch_progress.current.completed = self.epoch
        loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = self.steps
        loop.epoch_loop.batch_progress.current.ready = batch_idx + 1
        loop.epoch_loop.batch_progress.is_last_batch = batch_idx + 1 == self.trainer.num_training_batches


class _Log:
    """Takes what a module logs; what it logs in an evaluation is kept.

    Args:
        latest: Where a hook would look for what a step has logged.
    """

    def __init__(self, latest: dict[str, Tensor]) -> None:
        self.evaluating, self.latest = False, latest
        self._kept: dict[str, list[Any] | Metric] = {}

    def open(self) -> None:
        """Begin an evaluation."""
        self.evaluating = True
        self._kept.clear()

    def note(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Take the arguments of `LightningModule.log`."""
        if not self.evaluating:
            if isinstance(value, int | float | Tensor):
                self.latest[name] = torch.as_tensor(value).detach()
            return
        if isinstance(value, Metric):
            self._kept[name] = value
        elif isinstance(value, int | float | Tensor):
            logged = self._kept.setdefault(name, [])
            assert isinstance(logged, list)
            logged.append(value)

    @property
    def metrics(self) -> dict[str, float]:
        """What was logged in the last evaluation, over all its batches."""
        return {
            name: float(value.compute()) if isinstance(value, Metric) else fmean(map(float, value))
            for name, value in self._kept.items()
        }


def training_step(module: pl.LightningModule, batch: Any, batch_idx: int = 0) -> Any:
    """Call `training_step` as Lightning does: with the number of the batch, or the loader's iterator, if it asks."""
    return _stepper(module)(batch, batch_idx)


def _stepper(module: pl.LightningModule) -> Callable[[Any, int], Any]:
    step = module.training_step
    if is_param_in_hook_signature(step, "dataloader_iter", explicit=True):
        return lambda batch, batch_idx: step(iter([(batch, batch_idx, 0)]))
    if is_param_in_hook_signature(step, "batch_idx", min_args=2):
        return step
    return lambda batch, _: step(batch)


def _handed_out(output: Any, loss: Tensor | None, accumulated: int) -> dict[str, Any]:
    """Return what `on_train_batch_end` is given: what the step returned, its loss divided by the accumulated ones."""
    if loss is None:
        return {}
    extra = {key: value for key, value in output.items() if key != "loss"} if isinstance(output, Mapping) else {}
    return {"loss": loss.detach() / accumulated, **extra}


@contextmanager
def _running(trainer: pl.Trainer | None, module: pl.LightningModule) -> Iterator[None]:
    """Let a trainer answer as in the middle of a fit of the module, and put it back."""
    if trainer is None:
        yield
        return
    loop, strategy = trainer.fit_loop, trainer.strategy
    step = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    batch = loop.epoch_loop.batch_progress
    before = trainer.state, loop.epoch_progress.current.completed, step.completed, batch.current.ready
    last, held, logged = batch.is_last_batch, dict(vars(strategy)), dict(trainer.callback_metrics)
    trainer.state = TrainerState(TrainerStatus.RUNNING, TrainerFn.FITTING, RunningStage.TRAINING)
    strategy.connect(module)
    within = "save_checkpoint" in vars(trainer)  # of another trial
    vars(trainer)["save_checkpoint"] = _nothing  # a hook's file would hold the weights of a trial
    try:
        yield
    finally:
        if not within:
            del vars(trainer)["save_checkpoint"]
        trainer.state, loop.epoch_progress.current.completed, step.completed, batch.current.ready = before
        batch.is_last_batch = last
        vars(strategy).update(held)
        trainer.callback_metrics.clear()
        trainer.callback_metrics.update(logged)


def _nothing(*_: Any, **__: Any) -> None: ...
