"""Faults that were found, each mended in a copy that is trained and measured beside the run."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unstall.audit import Observation
from unstall.causes import Finding
from unstall.forks.remedies import at_rates
from unstall.forks.subject import Subject
from unstall.forks.targets import AsTargetsAsk, Task, Wrapped, quality
from unstall.forks.tried import Fork
from unstall.trials import Score, StepOptions, concatenated, samples_in, select, with_inputs

GAIN = 0.05
"""Share of right answers, or of the variance explained, by which a mended copy must be better: five points, as for a
stall (`Judge.mends`)."""

USUAL_RATES = 1e-3, 1e-2, 1e-1


@dataclass(frozen=True)
class Mended:
    """A fault mended.

    Args:
        change: In words.
        module: The mended copy, or the run's own module.
        transform: What is done to each batch.
        options: How steps are made; None: as in the run.
        shuffled: Whether the samples are drawn anew.
    """

    change: str
    module: pl.LightningModule
    transform: Callable[[Any], Any] = lambda batch: batch
    options: StepOptions | None = None
    shuffled: bool = False


def optimizer_of(configured: Any) -> torch.optim.Optimizer:
    """Return the first optimizer of what `configure_optimizers` returns, in any of Lightning's forms."""
    while not isinstance(configured, torch.optim.Optimizer):
        configured = configured["optimizer"] if isinstance(configured, dict) else configured[0]
    return configured


class Reconfigured(Wrapped):
    """A module whose optimizer has no schedule, or no more than a little weight decay."""

    def __init__(self, inner: pl.LightningModule, decay: float | None = None) -> None:
        super().__init__(copy.deepcopy(inner))
        self.decay = decay

    def configure_optimizers(self) -> Any:
        """Return the optimizer alone."""
        optimizer = optimizer_of(self.inner.configure_optimizers())
        for group in optimizer.param_groups:
            group["lr"] = group.pop("initial_lr", group["lr"])  # a schedule has changed the rate already
            if self.decay is not None:
                group["weight_decay"] = min(group.get("weight_decay", 0.0), self.decay)
        return optimizer


def mend(kind: str, subject: Subject, task: Task | None) -> Mended | None:
    """Return a copy of the run with one kind of fault mended; None if that cannot be done from here."""
    module = subject.module
    if kind == "output" and task is not None:
        loss = {"classes": "cross_entropy", "binary": "binary_cross_entropy_with_logits"}.get(task.kind)
        scaled = "the mean square of standardised targets"
        return Mended(f"the last layer's output with {loss or scaled}", AsTargetsAsk(module, task))
    if kind == "inputs":
        return Mended("inputs standardised", module, _standardiser(subject.batches))
    if kind == "schedule":
        return Mended("no schedule", Reconfigured(module))
    if kind == "decay":
        return Mended("weight decay 1e-4", Reconfigured(module, 1e-4))
    if kind == "clip":
        return Mended("no clipping", module, options=replace(subject.options, gradient_clip_val=None))
    if kind == "order":
        return Mended("samples shuffled", module, shuffled=True)
    if kind == "dropout":
        module = copy.deepcopy(module)
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.p = min(part.p, 0.1)
        return Mended("dropout 0.1", module)
    return None


def try_findings(
    subject: Subject, findings: Sequence[Finding], seen: Observation, task: Task | None
) -> tuple[Finding, Fork] | None:
    """Mend each fault in turn, train and measure; return the one that brings most, if that is enough to matter.

    Args:
        subject: The run.
        findings: The faults that show.
        seen: What one step showed.
        task: What the targets ask for; without it nothing can be measured.
    """
    if task is None:
        return None
    before = _before(subject, task)
    kinds = {finding.fault.mend: finding for finding in reversed(findings) if finding.fault.mend}
    best: tuple[Finding, Fork] | None = None
    for kind, finding in kinds.items():
        mended = mend(kind, subject, task)
        if mended is None or before is None:
            continue
        rate, score = _best_of(subject, mended, task)
        if score.accuracy is None:
            continue
        change = mended.change if subject.is_own(rate) else f"{mended.change}, learning rate {rate:.2g}"
        helps = score.accuracy - (before.accuracy or 0.0) > GAIN
        fork = Fork(change, before, score, None, finding.fault, helps, helps, mended.module)
        subject.forks.append(fork)
        if helps and (best is None or score.accuracy > (best[1].after.accuracy or 0.0)):
            best = finding, fork
    return best


def _before(subject: Subject, task: Task) -> Score | None:
    """Return what the run comes to unchanged, at its own or a usual rate, or as it stands."""
    _, score = _best_of(subject, Mended("", subject.module), task)
    if subject.start is not None:
        standing = quality(subject.module, subject.start.weights, subject.as_seen(subject.held_out), task)
        if standing is not None and standing > (score.accuracy or -math.inf):
            return Score(subject.control.held_out_loss, standing)
    return score if score.accuracy is not None else None


def _best_of(subject: Subject, mended: Mended, task: Task) -> tuple[float, Score]:
    grid = sorted({subject.rate, *USUAL_RATES})
    training = [mended.transform(batch) for batch in subject.training(subject.long)]
    if mended.shuffled:
        training = _shuffled(training)
    held_out = [mended.transform(batch) for batch in subject.held_out]
    scores: list[tuple[float, Score]] = []
    outcomes = subject.race(at_rates(*grid), training, (), mended.module, keep_state=True, options=mended.options)
    for rate, outcome in zip(grid, outcomes, strict=True):
        if outcome.state is not None:
            reached = quality(mended.module, outcome.state.weights, subject.as_seen(held_out), task)
            loss = outcome.losses[-1] if outcome.losses else math.inf
            scores.append((rate, Score(loss, reached)))
    known = [(rate, score) for rate, score in scores if score.accuracy is not None]
    return max(known, key=lambda pair: pair[1].accuracy or 0.0, default=(subject.rate, Score(math.inf)))


def _standardiser(batches: Sequence[Any]) -> Callable[[Any], Any]:
    """Return what brings the inputs of a batch to mean 0 and standard deviation 1: each column of a table, else all."""
    seen: list[Tensor] = []
    for batch in batches[:64]:
        with_inputs(batch, lambda inputs: seen.append(inputs) or inputs)  # type: ignore[func-returns-value]
    if not seen:
        return lambda batch: batch
    inputs = torch.cat([part.detach().float() for part in seen])
    inputs = inputs[inputs.isfinite().flatten(1).all(1)] if inputs.ndim > 1 else inputs
    mean, spread = (inputs.mean(0), inputs.std(0)) if inputs.ndim == 2 else (inputs.mean(), inputs.std())
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return lambda batch: with_inputs(batch, lambda each: torch.nan_to_num((each - mean) / spread))


def _shuffled(batches: Sequence[Any]) -> list[Any]:
    """Return as many batches of the same samples, drawn without replacement."""
    sizes = [samples_in(batch) for batch in batches]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
    return [select(concatenated(batches), part) for part in torch.split(order, sizes)]
