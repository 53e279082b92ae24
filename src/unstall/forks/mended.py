"""Faults that were found, each mended in a copy of the run: what is changed, and nothing is trained here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unstall.audit import tensors_in
from unstall.forks.changes import network_settings, with_relu_after, with_usual_momentum
from unstall.forks.subject import Subject, screening_steps
from unstall.forks.targets import AsTargetsAsk, Task, Wrapped, with_balance
from unstall.forks.tried import Mended, Setting
from unstall.trials import can_be_one, concatenated, copied, inputs_of, samples_in, select, with_inputs

LITTLE_DECAY = 1e-4

NO_ACTIVATION = "identity", "linear"
"""What a setting calls no activation."""

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
            configured = group.pop("initial_lr", group["lr"])  # a schedule has changed the rate already
            group["lr"] = group.get("max_lr", configured)
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
    if kind in ("output", "balance") and task is not None:
        loss = {"classes": "cross_entropy", "binary": "binary_cross_entropy_with_logits"}.get(task.kind)
        name = f"the last layer's output with {loss or 'the mean square of standardised targets'}"
        if kind == "output":
            return Mended(name, AsTargetsAsk(module, task))
        weighted = with_balance(task, subject.as_seen(subject.batches))
        return Mended(f"{name}, rare classes weighted", AsTargetsAsk(module, weighted)) if loss else None
    if kind == "inputs":
        if task is not None and _targets_are_inputs(subject, task):
            return None  # what is compared with would change along with them
        return Mended("inputs standardised", module, standardiser(subject.batches))
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
    if kind == "activation":
        return _with_activations(subject, module)
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


def _with_activations(subject: Subject, module: pl.LightningModule) -> Mended | None:
    """Return a copy with activations where the step shows that there are none; None if there is no place for them."""
    series = None if subject.observation is None else subject.observation.series
    changed = None if series is None else with_relu_after(module, series.places)
    named = str(network_settings(subject.config).get("activation")).lower() in NO_ACTIVATION
    settings = ((("network.activation", "activation"), "relu", "model"),) if named else ()
    return None if changed is None else Mended("a ReLU after each layer but the last", changed, settings=settings)


def _longer(subject: Subject) -> Mended | None:
    """Return the run gone on with, or at four times its length if that is within what is tried here."""
    if subject.start is None and subject.horizon > subject.long:
        return None
    more = LONGER * subject.long / subject.horizon
    factor = math.ceil(1 + more) if subject.start is not None and math.isfinite(more) else LONGER
    settings, rates = _epochs(subject, factor), (subject.rate,)
    name = f"{factor} times the steps"
    return Mended(name, subject.module, passes=LONGER, start=subject.start, rates=rates, settings=settings)


def prolonged(subject: Subject, mended: Mended | None = None) -> Mended | None:
    """Return a mended copy, or the run itself, from its start at so many times its length; None if that is long enough.

    A run of fewer steps than a comparison may have is given as many, and four times its own at least.
    """
    if subject.horizon > subject.long:
        return None
    factor = max(LONGER, math.ceil(4 * screening_steps(subject.batch_size) / subject.long))
    name = f"{factor} times the steps"
    if mended is None:
        return Mended(name, subject.module, passes=factor, settings=_epochs(subject, factor))
    settings = (*mended.settings, *_epochs(subject, factor)) if mended.settings else ()
    return replace(mended, change=f"{mended.change}, {name}", passes=factor, rates=(), settings=settings)


def _epochs(subject: Subject, factor: int) -> tuple[Setting, ...]:
    epochs = subject.config.get("trainer", {}).get("max_epochs")
    known = isinstance(epochs, int) and epochs > 0
    return ((("max_epochs",), epochs * factor, "trainer"),) if known else ()


def _targets_are_inputs(subject: Subject, task: Task) -> bool:
    batch = subject.first_batch
    return list(tensors_in(batch))[task.part] is inputs_of(batch)


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


def standardiser(batches: Sequence[Any]) -> Callable[[Any], Any]:
    """Return what brings the inputs of a batch to mean 0 and standard deviation 1: each column of a table, else all."""
    seen = [inputs for batch in batches[:64] if (inputs := inputs_of(batch)) is not None]
    if not seen or not can_be_one(seen):
        return lambda batch: batch
    inputs = torch.cat([part.detach().float() for part in seen])
    inputs = inputs[inputs.isfinite().flatten(1).all(1)] if inputs.ndim > 1 else inputs
    mean, spread = (inputs.mean(0), inputs.std(0)) if inputs.ndim == 2 else (inputs.mean(), inputs.std())
    spread = torch.where(spread > 0, spread, torch.ones_like(spread))
    return lambda batch: with_inputs(batch, lambda each: torch.nan_to_num((each - mean) / spread))


def shuffled(batches: Sequence[Any]) -> list[Any]:
    """Return as many batches of the same samples, drawn without replacement."""
    sizes = [samples_in(batch) for batch in batches]
    order = torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0))
    return [select(concatenated(batches), part) for part in torch.split(order, sizes)]
