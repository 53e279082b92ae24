"""Keeps a record of what happens around the steps: rates in force, clipping, gradients and batches out of order."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from unstall.audit import StandIn, in_both_modes, tensors_in
from unstall.causes import Course
from unstall.watch.losses import LossHistory
from unstall.watch.path import WeightPath

FIRST = 4
"""Batches, and backward passes, in which order is looked at."""


class CourseRecord:
    """What `Course` is made of. It costs a sum of floats a step; gradients are looked at with the weights.

    Args:
        optimizer: The fit's.
        clip: The limit of the gradient's norm, if the trainer clips by norm.
        epochs: The trainer's limit, if it has one.

    Attributes:
        trained: Batches that had a loss.
        skipped: Those for which the step returned None.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float | None, epochs: int | None = None) -> None:
        self.optimizer, self.clip, self.epochs = optimizer, clip, epochs
        first = optimizer.param_groups[0]
        self.rate = float(first.get("max_lr", first.get("initial_lr", first["lr"])))  # the first is OneCycleLR's
        self.steps, self.rates, self.backwards = 0, 0.0, 0
        self._steps_before = 0
        self.norms: list[Tensor] = []
        self._clipped, self._looks = 0.0, 0
        self.sums: list[float] = []
        self.leftover = self.zeroed = False
        self.trained = self.skipped = 0
        self.not_finite: int | None = None
        self.latest: Any = None
        self.modes: tuple[float, float] | None = None

    def before_backward(self, accumulated: int) -> None:
        """Look for gradients of an earlier step, unless they are accumulated on purpose."""
        stepped = self.steps > self._steps_before
        if 0 < self.backwards < FIRST and accumulated == 1 and stepped:
            self.leftover |= any(bool(gradient.any()) for gradient in self._gradients())
        self.backwards, self._steps_before = self.backwards + 1, self.steps

    def before_step(self, look: bool) -> None:
        """Note the rate in force; where the weights are looked at, the gradient's norm, too."""
        self.steps += 1
        self.rates += float(self.optimizer.param_groups[0]["lr"])
        if self.steps == 1 and self.backwards:
            self.zeroed = not any(bool(gradient.any()) for gradient in self._gradients())
        if look and self.clip:
            self.norms.append(torch.nn.utils.get_total_norm(self._gradients()))

    def after_batch(self, batch: Any, look_for_bad_numbers: bool) -> None:
        """Compare the first batches, and keep the latest; once a loss was not finite, look at the data, too."""
        self.latest = batch
        self.trained += 1
        if len(self.sums) < FIRST:
            self.sums.append(sum(float(part.double().sum()) for part in tensors_in(batch)))
        if look_for_bad_numbers and not self.not_finite:
            floating = [part for part in tensors_in(batch) if part.is_floating_point()]
            self.not_finite = sum(part.numel() - int(part.isfinite().sum()) for part in floating)

    def end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare training and evaluation mode on the latest batch: one pass each, on a copy."""
        batch, self.latest = self.latest, None
        if batch is None:
            return
        with suppress(Exception):  # a step that does not work on a copy: nothing is said of it
            self.modes = in_both_modes(StandIn(pl_module, trainer, trainer.optimizers), batch)

    def read(self, losses: LossHistory | None, path: WeightPath | None, repeats: bool, ended: bool) -> Course:
        """Return what is known. Synchronises.

        Args:
            losses: Of the run; None if they are not known.
            path: Of its weights; None likewise.
            repeats: Whether batches are meant to be the same, as under `overfit_batches`.
            ended: Whether the training has.
        """
        # Those since the last reading: a long run would else read all of them every time.
        self._clipped += sum(min(1.0, float(self.clip or 0.0) / max(norm, 1e-30)) for norm in map(float, self.norms))
        self._looks, self.norms = self._looks + len(self.norms), []
        commonest = None if losses is None else losses.targets.commonest
        same = len(self.sums) == FIRST and len(set(self.sums)) == 1 and not repeats
        batches = self.trained + self.skipped
        return Course(
            rate=self.rate,
            rate_share=self.rates / self.steps / self.rate if self.steps and self.rate else None,
            last_rate=float(self.optimizer.param_groups[0]["lr"]),
            clip_share=self._clipped / self._looks if self._looks else None,
            decay=max(float(group.get("weight_decay", 0.0)) for group in self.optimizer.param_groups),
            size_share=None if path is None else path.size_share(),
            leftover=self.leftover,
            zeroed=self.zeroed,
            skipped=self.skipped / batches if batches else None,
            repeated=same,
            label_spread=None if losses is None else losses.targets.label_spread(),
            commonest=commonest if ended or commonest != 1 else None,  # sorted data begin with one label, too
            not_finite=self.not_finite,
            still_falling=losses.falls_by() if ended and losses is not None else None,
            modes=self.modes if ended else None,
            scale=None if losses is None else losses.targets.baseline or next(iter(losses.first_losses), None),
            epochs=self.epochs if (self.epochs or -1) > 0 else None,
        )

    def _gradients(self) -> list[Tensor]:
        held = (weight for group in self.optimizer.param_groups for weight in group["params"])
        return [weight.grad for weight in held if weight.grad is not None]
