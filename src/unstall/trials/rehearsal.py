"""What a fit would be given, up to its first batch: its module, its trainer, its steps, its batches in their order.

    with tempfile.TemporaryDirectory() as scratch:
        rehearsal = rehearse(module, datamodule, trainer, scratch)

A module may build its layers in `setup` or `configure_model`, ask its trainer how long the fit will be, or leave the
scaling of its inputs to a hook of the data module. Whatever trains a copy of it has to go the same way.
"""

from __future__ import annotations

import copy
import io
import itertools
import logging
import math
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities import CombinedLoader
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.nn.parameter import is_lazy

from unstall.errors import UsageError
from unstall.trials.batches import same_structure, take_samples
from unstall.trials.copies import copied
from unstall.trials.lane import in_fit
from unstall.trials.optimization import check_optimization
from unstall.trials.runner import race, unchanged_random_state
from unstall.trials.variants import Outcome, StepOptions, Variant

Data: TypeAlias = (
    "pl.LightningDataModule | pl.LightningModule | Iterable[Any] | tuple[Iterable[Any], Iterable[Any]] | None"
)
"""What `Trainer.fit` takes: a data module; training and validation loaders, or the first alone; None (or the module
itself) for the module's own loaders."""


@dataclass(frozen=True)
class Rehearsal:
    """A fit just before its first batch.

    Args:
        module: A copy, set up and configured, on the device of the fit.
        trainer: What `self.trainer` is to it; its logger writes nothing.
        options: How a step is made.
        training: The training loader.
        validation: The first validation loader; None if there is none.
    """

    module: pl.LightningModule
    trainer: pl.Trainer
    options: StepOptions
    training: Iterable[Any]
    validation: Iterable[Any] | None

    @property
    def horizon(self) -> float:
        """Optimizer steps of the fit; infinite if nobody knows."""
        limits = [self.trainer.max_steps] if self.trainer.max_steps > 0 else []
        epochs, steps = self.trainer.max_epochs, self.options.steps_per_epoch
        if epochs is not None and epochs > 0 and steps is not None:
            limits.append(epochs * steps)
        return min(limits, default=math.inf)

    def race(
        self, variants: Sequence[Variant], batches: Sequence[Any], held_out: Sequence[Any] = (), **how: Any
    ) -> list[Outcome]:
        """Race variants of the module as this fit would train them."""
        return race(self.module, variants, batches, held_out, options=self.options, trainer=self.trainer, **how)

    def held_out(self, first: Any, batches: Iterator[Any], samples: int) -> list[Any]:
        """Return batches that `training_step` can be asked about: of the validation data, if they are of its kind.

        Args:
            first: A batch of training.
            batches: Of training. Where there is no validation data, or where its batches hold something else, the next
                ones are held out.
            samples: How many.
        """
        if self.validation is None:
            return take_samples(batches, samples)
        validation = take_samples(self.validation, samples)
        return validation if not validation or self._takes(validation[0], first) else take_samples(batches, samples)

    def _takes(self, batch: Any, first: Any) -> bool:
        """Return whether `training_step` takes a batch of validation data, which it is not made for."""
        if not same_structure(first, batch):
            return False
        try:
            self.race([Variant()], [], [batch])
        except Exception:  # whatever it is: the step is not made for such a batch
            return False
        return True

    def batches(self) -> Iterator[Any]:
        """Yield the batches of one epoch after another, in the order in which the fit would see them.

        Raises:
            UsageError: if there is none.
        """
        return endless(self.training)


def rehearse(
    module: pl.LightningModule, data: Data, trainer: pl.Trainer | None, scratch: str, device: torch.device | None = None
) -> Rehearsal:
    """Take a copy of the module to where a fit would make its first step. What is given is not changed.

    Args:
        module: Any LightningModule.
        data: Its data; None: its own loaders.
        trainer: The one that will train; None: Lightning's defaults.
        scratch: A folder for whatever hooks write.
        device: Where to train; that of the trainer, or else of the module, if None.

    Raises:
        UsageError: for manual optimization, or where there is no training loader.
    """
    check_optimization(module)
    for name in ("training_step", "configure_optimizers"):
        if not is_overridden(name, module):
            raise UsageError(f"model={type(module).__name__}: it has no {name}; give it one")
    data = module if data is None else data
    if isinstance(data, pl.LightningModule | pl.LightningDataModule) and not is_overridden("train_dataloader", data):
        raise UsageError(f"data={type(data).__name__}: it has no train_dataloader; give a data module or a loader")
    if device is None:
        device = module.device if trainer is None else trainer.strategy.root_device
    training, validation = _loaders(data, trainer)
    options = _options(trainer)
    module = copied(module)
    limits = {} if trainer is None else {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
    stopped = throwaway_trainer(options, device, scratch, callbacks=[_Stop()], **limits)
    with quiet(), unchanged_random_state(), _not_torn_down(module):
        try:
            if isinstance(data, pl.LightningDataModule):
                data = _already_set_up(data, training)
                _take_hooks(module, data)
                stopped.fit(module, datamodule=data)
            else:
                stopped.fit(module, training)
        except Exception as error:
            raise _as_usage_error(error, module) from error
    module = module.to(device)
    batches = stopped.num_training_batches  # infinite where nobody knows
    steps = int(batches) // options.accumulate_grad_batches if math.isfinite(batches) else 0
    rehearsal = Rehearsal(module, stopped, replace(options, steps_per_epoch=steps or None), training, validation)
    if any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        with unchanged_random_state():
            _draw_weights(rehearsal, next(rehearsal.batches()))
    return rehearsal


def endless(training: Any) -> Iterator[Any]:
    """Yield the batches of one epoch after another, in the order in which a fit would see them.

    Raises:
        UsageError: if there is none.
    """
    together = training
    if isinstance(training, list | tuple | dict):
        together = CombinedLoader(training, "max_size_cycle")  # as Lightning does
    combined = isinstance(together, CombinedLoader)
    for epoch in itertools.count():
        for loader in together.flattened if combined else [training]:
            for owner in (loader, getattr(loader, "batch_sampler", None)):
                set_epoch = getattr(getattr(owner, "sampler", None), "set_epoch", None)
                if set_epoch is not None:
                    set_epoch(epoch)
        batch = None
        for batch in together:
            yield batch[0] if combined else batch
        if batch is None:
            raise UsageError("data: the training loader has no batch; give it at least batch_size samples")


def throwaway_trainer(options: StepOptions, device: torch.device, scratch: str, **arguments: Any) -> pl.Trainer:
    """Return a trainer that makes such steps, validates nothing and leaves nothing behind."""
    with quiet():
        return pl.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=1 if device.index is None else [device.index],
            accumulate_grad_batches=options.accumulate_grad_batches,
            gradient_clip_val=options.gradient_clip_val,
            gradient_clip_algorithm=options.gradient_clip_algorithm,
            precision=cast(Any, options.precision),
            default_root_dir=scratch,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            logger=DummyLogger(),  # takes whatever a step hands to `self.logger.experiment`
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **arguments,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No bar, advice or warning about a trainer that nobody is to see."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Stop(pl.Callback):
    """Ends a fit when all is set up: Lightning then skips its loop."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


def _loaders(data: Data, trainer: pl.Trainer | None) -> tuple[Iterable[Any], Iterable[Any] | None]:
    if isinstance(data, pl.LightningModule):
        data = copied(data)
        data.trainer = trainer
        data.prepare_data()
        data.setup("fit")
        training, validation = data.train_dataloader(), _validation(data)
    elif isinstance(data, pl.LightningDataModule):
        before, data.trainer = data.trainer, trainer
        try:
            data.prepare_data()
            data.setup("fit")
            training, validation = data.train_dataloader(), _validation(data)
        finally:
            data.trainer = before
    else:
        training, validation = data if isinstance(data, tuple) else (data, None)
    if isinstance(validation, list | tuple):
        validation = validation[0] if validation else None
    return training, validation


def _validation(data: pl.LightningDataModule | pl.LightningModule) -> Any:
    try:
        return data.val_dataloader()
    except MisconfigurationException:
        return None


def _already_set_up(data: pl.LightningDataModule, training: Iterable[Any]) -> pl.LightningDataModule:
    data = copy.copy(data)
    for name in ("prepare_data", "setup", "teardown"):
        setattr(data, name, lambda *_, **__: None)
    data.train_dataloader = lambda: training  # type: ignore[method-assign]
    return data


def _options(trainer: pl.Trainer | None) -> StepOptions:
    """Return how the fit makes a step. Several processes step together: as if one accumulated their batches."""
    options = StepOptions() if trainer is None else StepOptions.of(trainer)
    return replace(options, accumulate_grad_batches=options.accumulate_grad_batches * (1 if trainer is None else trainer.world_size))


@contextmanager
def _not_torn_down(module: pl.LightningModule) -> Iterator[None]:
    """Keep what a module gives away when its fit ends: here it has yet to begin."""
    names = ("on_fit_end", "teardown")
    for name in names:
        setattr(module, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name in names:
            delattr(module, name)


def _as_usage_error(error: Exception, module: pl.LightningModule) -> Exception:
    """Return what Lightning itself refuses as a line to the user; what a module's own code raises as it is."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    if isinstance(error, UsageError) or not frame.f_globals.get("__name__", "").startswith("pytorch_lightning"):
        return error
    return UsageError(f"model={type(module).__name__}: {' '.join(str(error).split())}")


def _draw_weights(rehearsal: Rehearsal, batch: Any) -> None:
    """Let lazy layers draw their weights, which they do at their first batch."""
    with in_fit(rehearsal.module, Variant(), rehearsal.options, rehearsal.module.device, rehearsal.trainer) as lane:
        lane.evaluate([batch])  # in eval mode nothing but the weights changes
        rehearsal.module.load_state_dict(lane.module.state_dict())


def _take_hooks(module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Let our copy of the module call the transfer hooks that a data module brings, as a trainer would."""
    for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        if getattr(type(data), name) is not getattr(pl.LightningDataModule, name):
            hook = getattr(data, name)
            setattr(module, name, lambda *arguments, hook=hook: hook(*arguments))  # copied by reference
