"""What a fit would be given, up to its first batch: its module, its trainer, its steps, its batches in their order.

    with scratch_folder() as scratch:
        rehearsal = rehearse(module, datamodule, trainer, scratch)

A module may build its layers in `setup` or `configure_model`, ask its trainer how long the fit will be, or leave the
scaling of its inputs to a hook of the data module. Whatever trains a copy of it has to go the same way.
"""

from __future__ import annotations

import io
import itertools
import logging
import math
import traceback
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch._dynamo import OptimizedModule
from torch.nn.parameter import is_lazy

from unstall.errors import UsageError
from unstall.trials.batches import same_structure, take_samples
from unstall.trials.copies import copied, put_back
from unstall.trials.lane import in_fit
from unstall.trials.loaders import Data, already_set_up, endless, loaders_of
from unstall.trials.optimization import check_optimization
from unstall.trials.runner import race, unchanged_random_state
from unstall.trials.variants import Outcome, StepOptions, Variant


@dataclass(frozen=True)
class Rehearsal:
    """A fit just before its first batch.

    Args:
        module: A copy, set up and configured, on the device of the fit.
        trainer: What `self.trainer` is to it; its logger writes nothing.
        options: How a step is made.
        training: The training loader.
        validation: The first validation loader; None if there is none.
        datamodule: What `trainer.datamodule` is to the module: hands out the training loader, and is not set up again.
    """

    module: pl.LightningModule
    trainer: pl.Trainer
    options: StepOptions
    training: Iterable[Any]
    validation: Iterable[Any] | None
    datamodule: pl.LightningDataModule | None = None

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
        return validation if not validation or self._takes(validation, first) else take_samples(batches, samples)

    def _takes(self, validation: Sequence[Any], first: Any) -> bool:
        """Return whether `training_step` takes batches of validation data, which it is not made for."""
        if not all(same_structure(first, batch) for batch in validation):
            return False
        try:
            self.race([Variant()], [], validation)
        except Exception:  # whatever it is: the step is not made for such batches
            return False
        return True

    def batches(self) -> Iterator[Any]:
        """Yield the batches of one epoch after another, in the order in which the fit would see them.

        Raises:
            UsageError: if there is none.
        """
        trainer = self.trainer
        return endless(self.training, trainer.num_training_batches, bool(vars(trainer).get("overfit_batches")))


def rehearse(
    module: pl.LightningModule, data: Data, trainer: pl.Trainer | None, scratch: str, device: torch.device | None = None
) -> Rehearsal:
    """Take a copy of the module to where a fit would make its first step. What is given is not changed.

    Args:
        module: Any LightningModule; of a compiled one, what was compiled: trials are too short to pay for compiling.
        data: Its data; None: its own loaders.
        trainer: The one that will train; None: Lightning's defaults.
        scratch: A folder for whatever hooks write.
        device: Where to train; that of the trainer, or else of the module, if None.

    Raises:
        UsageError: for manual optimization, where there is no training loader, and for whatever Lightning refuses.
    """
    if isinstance(module, OptimizedModule):
        module = cast(pl.LightningModule, module._orig_mod)
    check_optimization(module)
    for name in ("training_step", "configure_optimizers"):
        if not is_overridden(name, module):
            raise UsageError(f"model={type(module).__name__}: it has no {name}; give it one")
    data = module if data is None else data
    if isinstance(data, pl.LightningModule | pl.LightningDataModule) and not is_overridden("train_dataloader", data):
        raise UsageError(f"data={type(data).__name__}: it has no train_dataloader; give a data module or a loader")
    if device is None:
        device = module.device if trainer is None else trainer.strategy.root_device
    training, validation = loaders_of(data, trainer)
    options = _options(trainer)
    module = copied(module)
    limits = {} if trainer is None else _limits(trainer)
    stopped = throwaway_trainer(options, device, scratch, callbacks=[_Stop()], **limits)
    with quiet(), unchanged_random_state(), _not_torn_down(module):
        try:
            datamodule = already_set_up(data, training) if isinstance(data, pl.LightningDataModule) else None
            if datamodule is not None:
                _take_hooks(module, datamodule)
            stopped.fit(module, training if datamodule is None else None, datamodule=datamodule)
        except Exception as error:
            if not _is_lightnings(error):
                raise
            line = " ".join(str(error).split())
            raise UsageError(f"model={type(module).__name__}: {line}") from error
    module = module.to(device)
    batches = stopped.num_training_batches  # infinite where nobody knows
    # The last batches of an epoch make a step, however few they are.
    steps = math.ceil(batches / options.accumulate_grad_batches) if math.isfinite(batches) else 0
    options = replace(options, steps_per_epoch=steps or None)
    rehearsal = Rehearsal(module, stopped, options, training, validation, datamodule)
    if any(map(is_lazy, itertools.chain(module.parameters(), module.buffers()))):
        with unchanged_random_state():
            _draw_weights(rehearsal, next(rehearsal.batches()))
    return rehearsal


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
            logger=ScratchLogger(scratch),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **arguments,
        )


@contextmanager
def quiet() -> Iterator[None]:
    """No bar, advice or warning about a trainer that nobody is to see."""
    logger = logging.getLogger(pl.__name__)  # or `lightning.pytorch`
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class ScratchLogger(DummyLogger):
    """Takes whatever a step hands to `self.logger.experiment`, and has a folder for what it writes itself."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = folder

    @property
    def save_dir(self) -> str:
        return self.folder

    @property
    def log_dir(self) -> str:
        return self.folder


class _Stop(pl.Callback):
    """Ends a fit when all is set up: Lightning then skips its loop."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = True


def _limits(trainer: pl.Trainer) -> dict[str, Any]:
    """Return how long the fit is, as arguments of a trainer."""
    limits = {"max_epochs": trainer.max_epochs, "max_steps": trainer.max_steps}
    if overfit := vars(trainer).get("overfit_batches"):
        return limits | {"overfit_batches": overfit}
    batches = trainer.limit_train_batches  # a whole number is of each process
    return limits | {"limit_train_batches": batches * trainer.world_size if type(batches) is int else batches}


def _options(trainer: pl.Trainer | None) -> StepOptions:
    """Return how the fit makes a step. Several processes step together: as if one accumulated their batches."""
    options = StepOptions() if trainer is None else StepOptions.of(trainer)
    processes = 1 if trainer is None else trainer.world_size
    return replace(options, accumulate_grad_batches=options.accumulate_grad_batches * processes)


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


def _is_lightnings(error: Exception) -> bool:
    """Return whether Lightning itself refuses the module; what the module's own code raises is shown as it is."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith(("pytorch_lightning.", "lightning_fabric."))


def _draw_weights(rehearsal: Rehearsal, batch: Any) -> None:
    """Let lazy layers draw their weights, which they do at their first batch."""
    with in_fit(rehearsal.module, Variant(), rehearsal.options, rehearsal.module.device, rehearsal.trainer) as lane:
        lane.evaluate([batch])  # in eval mode nothing but the weights changes
        put_back(rehearsal.module, lane.module.state_dict())


def _take_hooks(module: pl.LightningModule, data: pl.LightningDataModule) -> None:
    """Let our copy of the module call the transfer hooks that a data module brings, as a trainer would."""
    for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
        if getattr(type(data), name) is not getattr(pl.LightningDataModule, name):
            hook = getattr(data, name)
            setattr(module, name, lambda *arguments, hook=hook: hook(*arguments))  # copied by reference
