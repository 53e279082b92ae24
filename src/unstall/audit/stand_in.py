"""A copy that stands in for a module: its steps are recorded, and leave no trace in the run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from torch import Tensor

from unstall.audit.comparison import Comparison, find_comparison
from unstall.audit.record import Recording, tensors_in
from unstall.trials import unchanged_random_state


def compared_in(module: pl.LightningModule, batch: Any) -> Comparison | None:
    """Return what the loss of a module compares, seen in one step of the module itself, in whatever mode it is."""
    with Recording() as recording:
        output = module.training_step(batch, 0)
    loss = output["loss"] if isinstance(output, Mapping) else output
    weights: list[Tensor] = list(module.parameters())
    return find_comparison(recording, loss, list(tensors_in(batch)), weights) if isinstance(loss, Tensor) else None


class _WithoutLoggers:
    """A trainer that answers as the fit's own does, and has no logger that a step could write to."""

    def __init__(self, trainer: pl.Trainer) -> None:
        self._trainer = trainer
        self.logger = DummyLogger()
        self.loggers = [self.logger]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)


class StandIn:
    """A copy of a module that logs nothing."""

    def __init__(self, module: pl.LightningModule, trainer: pl.Trainer | None) -> None:
        self.module = copy.deepcopy(module).train()
        for part in self.module.modules():
            if isinstance(part, pl.LightningModule):
                part.log = part.log_dict = lambda *_, **__: None  # type: ignore[method-assign,assignment]
        self.module.trainer = None if trainer is None else cast(pl.Trainer, _WithoutLoggers(trainer))

    def step(self, batch: Any) -> tuple[Recording, Tensor]:
        """Return the calls and the loss of a training step."""
        with Recording() as recording:
            output = self.module.training_step(batch, 0)
        loss = output["loss"] if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            raise TypeError(f"training_step returned {type(loss).__name__}")
        return recording, loss

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, and the same random numbers each time."""
        self.module.eval()
        with unchanged_random_state(), torch.no_grad():
            torch.manual_seed(0)
            yield
