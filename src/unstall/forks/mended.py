"""Faults that were found, each mended in a copy that is trained and measured beside the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unstall.causes import TRIED_FAULTS, Fault, Finding
from unstall.find import merged
from unstall.forks.changes import overlay_of, with_usual_momentum
from unstall.forks.legs import Legs, Measure, looks
from unstall.forks.subject import Subject
from unstall.forks.targets import AsTargetsAsk, Task, Wrapped, quality
from unstall.forks.tried import Fork, Mended
from unstall.trials import (
    Outcome,
    Score,
    Variant,
    can_be_one,
    concatenated,
    copied,
    inputs_of,
    samples_in,
    select,
    with_inputs,
)
from unstall.watch import Cause

ROOM = 0.9
"""Share of right answers, or of the variance explained, from which on nothing more is looked for."""

GAIN = 0.05
"""Share of right answers, or of the variance explained, by which a mended copy must be better: five points, as for a
stall (`Judge.mends`)."""

USUAL_RATES = 1e-3, 1e-2, 1e-1

LITTLE_DECAY = 1e-4

COMPANIONS = ("inputs",), ("inputs", "optimizer")
"""What is mended along with the last layer's output where that alone leaves much to gain: faults come in company."""

LONGER = 4
"""How many times the steps of a comparison a run is gone on with, to see whether it only ended too early."""


def optimizer_of(configured: Any) -> Optimizer:
    """Return the first optimizer of what `configure_optimizers` returns, in any of Lightning's forms."""
    while not isinstance(configured, Optimizer):
        configured = configured["optimizer"] if isinstance(configured, dict) else configured[0]
    return configured


class Reconfigured(Wrapped):
    """A module whose optimizer is changed, and has no schedule.

    Args:
        inner: The module; a copy is made.
        change: Returns the optimizer to use in place of the module's own; its arguments are the copy and that one.
    """

    def __init__(self, inner: pl.LightningModule, change: Callable[[nn.Module, Optimizer], Optimizer]) -> None:
        super().__init__(copied(inner))
        self.change = change
        self.standardised = isinstance(inner, Wrapped) and inner.standardised

    def configure_optimizers(self) -> Any:
        """Return the optimizer alone."""
        optimizer = optimizer_of(self.inner.configure_optimizers())
        for group in optimizer.param_groups:
            group["lr"] = group.pop("initial_lr", group["lr"])  # a schedule has changed the rate already
        return self.change(self.inner, optimizer)


def mend(kind: str, subject: Subject, task: Task | None, module: pl.LightningModule | None = None) -> Mended | None:
    """Return a copy of the run with one kind of fault mended; None if that cannot be done from here.

    Args:
        kind: Of fault (`Fault.mend`).
        subject: The run.
        task: What its targets ask for.
        module: To be mended; None: the run's own.
    """
    module = subject.module if module is None else module
    if kind == "output" and task is not None:
        loss = {"classes": "cross_entropy", "binary": "binary_cross_entropy_with_logits"}.get(task.kind)
        scaled = "the mean square of standardised targets"
        return Mended(f"the last layer's output with {loss or scaled}", AsTargetsAsk(module, task))
    if kind == "inputs":
        return Mended("inputs standardised", module, _standardiser(subject.batches))
    if kind == "schedule":
        return Mended("no schedule", Reconfigured(module, lambda _, optimizer: optimizer))
    if kind == "decay":
        setting = (("optimizer.weight_decay", "weight_decay"), LITTLE_DECAY, "model")
        return Mended(f"weight decay {LITTLE_DECAY:g}", Reconfigured(module, _little_decay), settings=(setting,))
    if kind == "held":
        return Mended("an optimizer of all parameters", Reconfigured(module, _of_all))
    if kind == "frozen":
        return Mended("nothing frozen", Reconfigured(copied(module).requires_grad_(), _of_all))
    if kind == "modes":
        return None if (usual := with_usual_momentum(module)) is None else Mended("a usual momentum", usual)
    if kind == "optimizer":
        adam = Reconfigured(module, lambda _, own: torch.optim.Adam(_weights(own), lr=1e-3))
        return Mended("Adam", adam, rates=(1e-3, 1e-2))
    if kind == "clip":
        options = replace(subject.options, gradient_clip_val=None)
        return Mended("no clipping", module, options=options, settings=((("gradient_clip_val",), None, "trainer"),))
    if kind == "order":
        return Mended("samples shuffled", module, shuffled=True) if can_be_one(subject.batches) else None
    if kind == "dropout":
        module = copied(module)
        for part in module.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd):
                part.p = min(part.p, 0.1)
        return Mended("dropout 0.1", module, settings=((("network.dropout", "dropout"), 0.1, "model"),))
    return _longer(subject) if kind == "longer" else None


def mend_together(kinds: Sequence[str], subject: Subject, task: Task) -> Mended | None:
    """Return a copy of the run with several kinds of fault mended, of which one changes the batches at most."""
    whole = mend(kinds[0], subject, task)
    for kind in kinds[1:]:
        added = None if whole is None else mend(kind, subject, task, whole.module)
        if whole is None or added is None:
            return None
        transform = added.transform if kind == "inputs" else whole.transform
        rates = added.rates or whole.rates
        whole = replace(added, change=f"{whole.change}, {added.change}", transform=transform, rates=rates)
    return whole


def _longer(subject: Subject) -> Mended | None:
    """Return the run gone on with, or at four times its length if that is within what is tried here."""
    if subject.start is None and subject.horizon > subject.long:
        return None
    more = LONGER * subject.long / subject.horizon
    factor = math.ceil(1 + more) if subject.start is not None and math.isfinite(more) else LONGER
    epochs = subject.config.get("trainer", {}).get("max_epochs")
    known = isinstance(epochs, int) and epochs > 0
    settings = ((("max_epochs",), epochs * factor, "trainer"),) if known else ()
    name = f"{factor} times the steps"
    return Mended(name, subject.module, passes=LONGER, start=subject.start, rates=(subject.rate,), settings=settings)


def _little_decay(_: nn.Module, optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group["weight_decay"] = min(group.get("weight_decay", 0.0), LITTLE_DECAY)
    return optimizer


def _of_all(module: nn.Module, optimizer: Optimizer) -> Optimizer:
    held = {id(weight) for weight in _weights(optimizer)}
    left = [weight for weight in module.parameters() if weight.requires_grad and id(weight) not in held]
    optimizer.add_param_group({"params": left, "lr": optimizer.param_groups[0]["lr"]})
    return optimizer


def _weights(optimizer: Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def try_findings(
    subject: Subject,
    findings: Sequence[Finding],
    task: Task,
    before: Score,
    steps: int | None = None,
    rates: tuple[float, ...] = (),
) -> tuple[Finding, Fork] | None:
    """Mend each fault in turn, train and measure; return the one that brings most, if that is enough to matter.

    Args:
        subject: The run.
        findings: The faults that show.
        task: What the targets ask for.
        before: What the run comes to unchanged.
        steps: Of a trial; None: as many as are compared with the run.
        rates: To be tried; empty: what suits the kind of fault.
    """
    kinds = {finding.fault.mend: finding for finding in reversed(findings)}
    best: tuple[Finding, Fork] | None = None
    for kind, finding in kinds.items():
        mended = mend(kind, subject, task)
        if mended is not None and rates:
            mended = replace(mended, rates=rates)
        fork = None if mended is None else try_mended(subject, mended, task, before, finding.fault, steps)
        if fork is not None and fork.helps and (best is None or quality_of(fork.after) > quality_of(best[1].after)):
            best = finding, fork
    output = kinds.get("output")
    if output is None or rates or output.fault in TRIED_FAULTS:
        return best
    for companions in COMPANIONS:
        so_far = quality_of(before if best is None else best[1].after)
        together = mend_together(("output", *companions), subject, task) if so_far < ROOM else None
        fork = None if together is None else try_mended(subject, together, task, before, output.fault, steps)
        if fork is not None and fork.helps and quality_of(fork.after) > so_far + GAIN:
            best = output, fork
    return best


def try_mended(
    subject: Subject, mended: Mended, task: Task, before: Score, cause: Cause | Fault, steps: int | None = None
) -> Fork | None:
    """Train a mended copy and measure it, with a line in the subject's record; None if its answers are not seen.

    Args:
        subject: The run.
        mended: The copy.
        task: What the targets ask for.
        before: What the run comes to unchanged.
        cause: What is mended.
        steps: Of the trial; None: as many as are compared with the run.
    """
    rate, score = _best_of(subject, mended, task, steps)
    if score.accuracy is None:
        return None
    own = subject.is_own(rate) and mended.rates in ((), (subject.rate,))
    change = mended.change if own else f"{mended.change}, learning rate {rate:.2g}"
    overlays = [overlay_of(subject.config, names, value, place) for names, value, place in mended.settings]
    known = [overlay for overlay in overlays if overlay is not None]
    overlay = reduce(merged, known) if known and len(known) == len(overlays) else None
    helps = quality_of(score) - quality_of(before) > GAIN
    fork = Fork(
        change,
        before,
        score,
        overlay,
        cause,
        helps,
        helps,
        replace(mended, rates=(rate,)),
        None if own or overlay is None else rate,
        measure_of(subject, mended, task),
    )
    subject.forks.append(fork)
    return subject.forks[-1]


def quality_of(score: Score) -> float:
    """Return how good a score is; minus infinity where that is not known."""
    return -math.inf if score.accuracy is None else score.accuracy


def trained(subject: Subject, mended: Mended, task: Task, steps: int | None = None) -> list[tuple[float, Score]]:
    """Return the rates at which a copy was trained whose answers could be seen, and how good it was."""
    steps = steps or subject.long
    grid = mended.rates or tuple(sorted({subject.rate, *USUAL_RATES}))
    training = [mended.transform(batch) for batch in subject.training(steps)] * mended.passes
    if mended.shuffled:
        training = _shuffled(training)
    each = (mended.options or subject.options).accumulate_grad_batches

    def leg(variants: Sequence[Variant], first: int, last: int) -> list[Outcome]:
        variants = [replace(variant, start=variant.start or mended.start) for variant in variants]
        batches = training[first * each : last * each]
        return subject.race(variants, batches, (), mended.module, keep_state=True, options=mended.options)

    lengths = looks(subject.module, subject.short, len(training) // each)
    return [
        (rate or subject.rate, score)
        for rate, score in Legs(leg).best_measured(grid, lengths, measure_of(subject, mended, task))
    ]


def measure_of(subject: Subject, mended: Mended, task: Task) -> Measure:
    """Return what says how good weights of a mended copy are on the held-out batches."""
    held_out = [mended.transform(batch) for batch in subject.held_out]
    return lambda weights: quality(subject, mended.module, weights, held_out, task)


def _best_of(subject: Subject, mended: Mended, task: Task, steps: int | None = None) -> tuple[float, Score]:
    known = trained(subject, mended, task, steps)
    return max(known, key=lambda pair: quality_of(pair[1]), default=(subject.rate, Score(math.inf)))


def _standardiser(batches: Sequence[Any]) -> Callable[[Any], Any]:
    """Return what brings the inputs of a batch to mean 0 and standard deviation 1: each column of a table, else all."""
    seen = [inputs for batch in batches[:64] if (inputs := inputs_of(batch)) is not None]
    if not seen or not can_be_one(seen):
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
