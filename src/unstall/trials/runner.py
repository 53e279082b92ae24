"""The same start, the same batches, the same random numbers: K variants of one training run, side by side.

Whatever differs between their losses is then the work of what differs between the variants. The module is copied
for each variant, so that nothing of it can change: not its weights, buffers, modes, gradients, metrics or counters.
A step is made as `Trainer.fit` makes it (`lane.py`).
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from unstall.errors import UsageError
from unstall.trials.batches import can_be_one, concatenated
from unstall.trials.lane import Lane, in_fit
from unstall.trials.optimization import check_optimization
from unstall.trials.parallel import side_by_side
from unstall.trials.variants import Outcome, State, StepOptions, Variant


def race(
    module: pl.LightningModule,
    variants: Sequence[Variant],
    batches: Sequence[Any],
    held_out: Sequence[Any] = (),
    *,
    options: StepOptions = StepOptions(),
    device: torch.device | None = None,
    trainer: pl.Trainer | None = None,
    keep_state: bool = False,
) -> list[Outcome]:
    """Train every variant on the same batches in the same order, then measure its loss on the held-out ones.

    The loss of a held-out batch is what `training_step` returns in eval mode without gradients: every module has
    that step, and few return the loss of another. Random numbers are those that come next in the global generators,
    the same for every variant; the generators are left as they were.

    Args:
        module: any LightningModule with automatic optimization. It is left alone.
        variants: what to compare.
        batches: as a training `DataLoader` yields them; each variant sees each once. Those left over from a
            whole step are not used. Where those that a variant merges cannot be one batch, as when each is padded to
            its longest, their gradients are accumulated.
        held_out: batches that no variant trains on.
        options: how a step is made.
        device: where to train; where the module is, if None.
        trainer: what `self.trainer` is to the module meanwhile; must log nothing. None: not attached.
        keep_state: return each variant's final state, so that another race can continue it.

    Returns:
        One outcome per variant, in order.

    Raises:
        UsageError: for manual optimization, not exactly one optimizer, or a step that never returns a loss.
        Exception: whatever the module's own step raises at its initial weights. What it raises at others is taken as
            divergence.
    """
    check_optimization(module)
    where = device or module.device

    def run(i: int) -> Outcome:
        with unchanged_random_state(), torch.inference_mode(False), torch.enable_grad():
            return _Runner(module, variants[i], options, where, trainer).run(batches, held_out, keep_state)

    if where.type == "cpu":
        return side_by_side(run, len(variants))
    return [run(i) for i in range(len(variants))]


@contextmanager
def unchanged_random_state() -> Iterator[None]:
    """Put the global generators of Python, NumPy and torch (CPU, CUDA, MPS) back where they were."""
    states = _generators()
    try:
        yield
    finally:
        _set_generators(states)


def _generators() -> dict[str, Any]:
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "mps": torch.mps.get_rng_state() if torch.backends.mps.is_available() else None,
    }


def _set_generators(states: Mapping[str, Any]) -> None:
    if not states:
        return
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    if states["mps"] is not None:
        torch.mps.set_rng_state(states["mps"])


class _Runner:
    """One variant on its way."""

    def __init__(
        self,
        module: pl.LightningModule,
        variant: Variant,
        options: StepOptions,
        device: torch.device,
        trainer: pl.Trainer | None,
    ) -> None:
        self.module, self.variant, self.options = module, variant, options
        self.device, self.trainer = device, trainer

    def run(self, batches: Sequence[Any], held_out: Sequence[Any], keep_state: bool) -> Outcome:
        look_every = 1 if self.device.type == "cpu" else 16  # a look makes an accelerator wait
        losses: list[Tensor | None] = []
        evaluated: list[float] = []
        with self._lane(self.variant) as lane:
            if self.variant.start is not None:
                _set_generators(self.variant.start.generators)
            refused = False
            for number, together in enumerate(self._batches_of_steps(batches)):
                try:
                    loss = lane.step(together)
                except Exception as error:
                    self._show_unless_numbers_grew(error, lane.steps, partial(Lane.step, batches=together))
                    refused = True
                    break
                losses.append(loss)
                if number % look_every == 0 and loss is not None and not torch.isfinite(loss):
                    break
            values, generators = self._values(losses), _generators() if keep_state else {}
            if not refused and all(map(math.isfinite, values)):
                try:
                    evaluated = lane.evaluate(held_out)
                except Exception as error:
                    self._show_unless_numbers_grew(error, lane.steps, partial(Lane.evaluate, batches=held_out))
                    refused = True
                if not refused and held_out and not evaluated:
                    raise UsageError(f"{self._name}: training_step returned None in eval mode; it must return a loss")
            finite = not refused and all(map(math.isfinite, [*values, *evaluated]))
            return Outcome(
                variant=self.variant,
                losses=values if finite else values[: [*map(math.isfinite, values), False].index(False)],
                held_out_losses=evaluated if finite else [],
                held_out_metrics=lane.log.metrics if finite else {},
                finite=finite,
                state=replace(lane.state(), generators=generators) if keep_state and finite else None,
            )

    @property
    def _name(self) -> str:
        return f"model={type(self.module).__name__}"

    def _lane(self, variant: Variant) -> AbstractContextManager[Lane]:
        return in_fit(self.module, variant, self.options, self.device, self.trainer)

    def _batches_of_steps(self, batches: Sequence[Any]) -> list[list[Any]]:
        """Return the batches that each step sees: where those to be merged cannot be one batch, one after another."""
        merge, accumulate = self.variant.merge, self.options.accumulate_grad_batches
        groups = [batches[i : i + merge] for i in range(0, len(batches) - merge + 1, merge)]
        together = all(map(can_be_one, groups))
        merged = [[concatenated(group)] if together else list(group) for group in groups]
        starts = range(0, len(merged) - accumulate + 1, accumulate)
        return [list(itertools.chain.from_iterable(merged[i : i + accumulate])) for i in starts]

    def _show_unless_numbers_grew(self, error: Exception, steps: int, act: Callable[[Lane], object]) -> None:
        """Raise what a step raised if it does so at the initial weights, too: then what they became is not to blame.

        A module may refuse bad numbers, as a distribution does whose parameters are NaN: that trial has diverged.
        """
        if isinstance(error, UsageError):
            raise error
        try:
            with self._lane(Variant(start=State(self.module.state_dict(), steps=steps))) as fresh:
                act(fresh)
        except Exception:
            raise error from None

    def _values(self, losses: Sequence[Tensor | None]) -> list[float]:
        """Return the loss of each step; of one that the module skipped, the last before it, or else the first."""
        known = [loss for loss in losses if loss is not None]
        if not known:
            if len(losses) > 1:  # a single one may be skipped
                raise UsageError(f"{self._name}: training_step returned None for every batch; it must return a loss")
            return []
        values: list[float] = torch.stack(known).tolist()
        seen = itertools.accumulate(loss is not None for loss in losses)
        return [values[max(0, count - 1)] for count in seen]
