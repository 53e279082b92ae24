"""The same start, the same batches, the same random numbers: K variants of one training run, side by side.

Whatever differs between their losses is then the work of what differs between the variants. The module is copied
for each variant, so that nothing of it can change: not its weights, buffers, modes, gradients, metrics or counters.
A step does what `Trainer.fit` does (transfer hooks, `training_step`, accumulation, clipping, precision, schedule),
except for the other hooks of the module and for callbacks, which may act on the world outside of the module.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torchmetrics import Metric

from unstall.errors import UsageError
from unstall.trials.batches import concatenated
from unstall.trials.optimization import Optimization, check_optimization
from unstall.trials.parallel import side_by_side
from unstall.trials.variants import MIXED, Outcome, StepOptions, Variant


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
            whole step are not used.
        held_out: batches that no variant trains on.
        options: how a step is made.
        device: where to train; where the module is, if None.
        trainer: what `self.trainer` is to the module meanwhile; must log nothing. None: not attached.
        keep_state: return each variant's final state, so that another race can continue it.

    Returns:
        One outcome per variant, in order.

    Raises:
        UsageError: for manual optimization, or not exactly one optimizer.
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
    python, numpy = random.getstate(), np.random.get_state()
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if mps is not None:
            torch.mps.set_rng_state(mps)


class _Runner:
    """One variant on its way: a copy of the module with its own optimizer and schedules."""

    def __init__(
        self,
        module: pl.LightningModule,
        variant: Variant,
        options: StepOptions,
        device: torch.device,
        trainer: pl.Trainer | None,
    ) -> None:
        self.variant, self.options, self.device = variant, options, device
        self.module = copy.deepcopy(module).to(device)  # a LightningModule leaves its trainer behind when copied
        self.module.trainer = trainer
        self.logged: dict[str, list[Any] | Metric] = {}
        for part in self.module.modules():
            if isinstance(part, pl.LightningModule):
                part.log = self._record  # type: ignore[method-assign]  # without a fit loop there is nowhere to log to
        if variant.start is not None:
            self.module.load_state_dict(variant.start.weights)
        if not self.module.training:
            self.module.train()
        self.optimization = Optimization(self.module, options, variant.start)
        if variant.learning_rate is not None:
            self.optimization.set_learning_rate(variant.learning_rate)

    def run(self, batches: Sequence[Any], held_out: Sequence[Any], keep_state: bool) -> Outcome:
        merge, accumulate = self.variant.merge, self.options.accumulate_grad_batches
        merged = [concatenated(batches[i : i + merge]) for i in range(0, len(batches) - merge + 1, merge)]
        look_every = 1 if self.device.type == "cpu" else 16  # a look makes an accelerator wait
        losses: list[Tensor] = []
        for step in range(len(merged) // accumulate):
            losses.append(self._step(merged[step * accumulate : (step + 1) * accumulate], step * accumulate))
            if step % look_every == 0 and not torch.isfinite(losses[-1]):
                break
            self.optimization.move_schedules(step + 1)
        values = torch.stack(losses).tolist() if losses else []
        finite = all(map(math.isfinite, values))
        held_out_losses = self._evaluate(held_out) if finite else []
        if not all(map(math.isfinite, held_out_losses)):
            finite, held_out_losses = False, []
        return Outcome(
            variant=self.variant,
            losses=values if finite else values[: [*map(math.isfinite, values), False].index(False)],
            held_out_losses=held_out_losses,
            held_out_metrics={name: _mean(logged) for name, logged in self.logged.items()},
            finite=finite,
            state=self.optimization.state(self.module.state_dict()) if keep_state and finite else None,
        )

    def _step(self, micro_batches: Sequence[Any], batch_idx: int) -> Tensor:
        return self.optimization.step(lambda i: self._loss(micro_batches[i], batch_idx + i), len(micro_batches))

    def _loss(self, batch: Any, batch_idx: int) -> Tensor:
        module = self.module
        batch = module.on_before_batch_transfer(batch, 0)
        batch = module.transfer_batch_to_device(batch, self.device, 0)
        batch = module.on_after_batch_transfer(batch, 0)
        dtype = MIXED.get(str(self.options.precision))
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            output = module.training_step(batch, batch_idx)
        loss = output["loss"] if isinstance(output, Mapping) else output
        if not isinstance(loss, Tensor):
            raise UsageError(f"model={type(module).__name__}: training_step returned {loss}; it must return a loss")
        if module.training and not loss.requires_grad:
            raise UsageError(f"model={type(module).__name__}: the loss requires no gradient; unfreeze a parameter")
        return loss

    @torch.no_grad()
    def _evaluate(self, held_out: Sequence[Any]) -> list[float]:
        self.module.eval()
        self.logged.clear()
        for part in self.module.modules():
            if isinstance(part, Metric):
                part.reset()
                part.sync_on_compute = False  # other processes may not come here
        return [self._loss(batch, i).item() for i, batch in enumerate(held_out)]

    def _record(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        if self.module.training:
            return
        if isinstance(value, Metric):
            self.logged[name] = value
        elif isinstance(value, int | float | Tensor):
            logged = self.logged.setdefault(name, [])
            assert isinstance(logged, list)
            logged.append(value)


def _mean(logged: list[Any] | Metric) -> float:
    return float(logged.compute()) if isinstance(logged, Metric) else fmean(map(float, logged))
