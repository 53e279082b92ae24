"""What a fit would read: its loaders, and their batches in the order in which it would see them."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import pytorch_lightning as pl
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities import CombinedLoader

from unstall.errors import UsageError
from unstall.trials.copies import copied

Data: TypeAlias = (
    "pl.LightningDataModule | pl.LightningModule | Iterable[Any] | tuple[Iterable[Any], Iterable[Any]] | None"
)
"""What `Trainer.fit` takes: a data module; training and validation loaders, or the first alone; None (or the module
itself) for the module's own loaders."""


def endless(training: Any, limit: float = math.inf, again: bool = False) -> Iterator[Any]:
    """Yield the batches of one epoch after another, in the order in which a fit would see them.

    Args:
        training: The training loader, or several.
        limit: Batches of an epoch, at most: `limit_train_batches`.
        again: Whether each epoch has the batches of the first, as with `overfit_batches`.

    Raises:
        UsageError: if there is none.
    """
    if again:
        yield from itertools.cycle(list(itertools.islice(endless(training), int(limit))))
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
        for batch in together if math.isinf(limit) else itertools.islice(together, int(limit)):
            yield batch[0] if combined else batch
        if batch is None:
            raise UsageError("data: the training loader has no batch; give it at least batch_size samples")


def loaders_of(data: Data, trainer: pl.Trainer | None) -> tuple[Iterable[Any], Iterable[Any] | None]:
    """Return the training loader and the first validation loader, if there is any, of data that are set up for it.

    Raises:
        UsageError: for a tuple that is none of training and validation data.
    """
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
        parts = data if isinstance(data, tuple) else (data,)
        if not 1 <= len(parts) <= 2:
            raise UsageError(
                f"data=a tuple of {len(parts)}: give (training, validation), each a loader or a list of them"
            )
        training, validation = (*parts, None)[:2]
    if isinstance(validation, list | tuple | dict):
        validation = CombinedLoader(validation) if validation else None
    if isinstance(validation, CombinedLoader):
        validation = validation.flattened[0]
    return training, validation


def _validation(data: pl.LightningDataModule | pl.LightningModule) -> Any:
    try:
        return data.val_dataloader()
    except MisconfigurationException:
        return None


def already_set_up(data: pl.LightningDataModule, training: Iterable[Any]) -> pl.LightningDataModule:
    """Return a copy of a data module that hands out this loader, and is not set up or torn down again."""
    data = copy.copy(data)
    for name in ("prepare_data", "setup", "teardown"):
        setattr(data, name, lambda *_, **__: None)
    data.train_dataloader = lambda: training  # type: ignore[method-assign]
    return data
