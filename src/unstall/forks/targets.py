"""What the targets ask for: a loss of the last layer's own output that fits them, and a yardstick for any loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.audit import Comparison, Observation, Recording, compared_in, tensors_in
from unstall.forks.subject import Subject
from unstall.trials import State, Variant, copied, in_fit, inputs_of, training_step, unchanged_random_state


@dataclass(frozen=True)
class Task:
    """What a network is to learn, read off its targets.

    Args:
        kind: `classes`: one of several; `binary`: zeros and ones, each for itself; `numbers`: everything else.
        part: Which tensor of a batch holds the targets, in the order of `tensors_in`.
        weight: Name of the last layer's weight.
        classes: How many there are; 0 if the targets are no classes.
        one_hot: Whether the targets are a column of zeros and ones for each class.
        mean: Of the numbers, per column.
        spread: Their standard deviation.
        weights: What each class counts in the loss, or, per column, a one where a zero counts 1; None: all the same.
    """

    kind: Literal["classes", "binary", "numbers"]
    part: int
    weight: str
    classes: int = 0
    mean: Tensor | None = None
    spread: Tensor | None = None
    weights: Tensor | None = None
    one_hot: bool = False

    def targets(self, batch: Any) -> Tensor:
        """Return class numbers `(batch, ...)`, or numbers `(batch, columns)`."""
        held = list(tensors_in(batch))[self.part]
        if self.kind != "classes":
            return held.reshape(len(held), -1).float()
        if self.one_hot:
            return held.argmax(1)
        return held.reshape(
            len(held), *held.shape[2:] if held.ndim > 1 and held.shape[1] == 1 else held.shape[1:]
        ).long()

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        """Return the usual loss of such targets: cross-entropy, or the squares of standardised numbers."""
        targets = self.targets(batch)
        if self.kind == "classes":
            weights = None if self.weights is None else self.weights.to(logits)
            return F.cross_entropy(self.places(logits, targets), targets.flatten(), weights)
        if self.kind == "binary":
            weights = None if self.weights is None else self.weights.to(logits)
            return F.binary_cross_entropy_with_logits(logits.reshape(targets.shape), targets, pos_weight=weights)
        assert self.mean is not None
        assert self.spread is not None
        return F.mse_loss(logits.reshape(targets.shape), (targets - self.mean.to(targets)) / self.spread.to(targets))

    def places(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return logits `(places, classes)` in the order of the targets, whichever dimension the classes have."""
        last = logits.shape[-1] == self.classes and logits.shape[:-1].numel() == targets.numel()
        return (logits if last else logits.movedim(1, -1)).reshape(-1, self.classes)


def with_balance(task: Task, batches: Sequence[Any]) -> Task:
    """Return the task whose loss counts each class alike, however rare: weights are one over the share.

    Args:
        task: Of classes, or of zeros and ones.
        batches: Of training, as the step gets them.
    """
    targets = torch.cat([task.targets(batch) for batch in batches])
    if task.kind == "binary":
        ones = targets.sum(0).clamp(min=1)
        return replace(task, weights=(len(targets) - ones).clamp(min=1) / ones)
    counts = torch.bincount(targets[targets >= 0], minlength=task.classes).clamp(min=1)
    return replace(task, weights=counts.sum() / (len(counts) * counts))


def task_of(module: pl.LightningModule, seen: Observation, batches: Sequence[Any]) -> Task | None:
    """Return what the targets ask for; None if they are computed, or if the last layer's weight is not the module's.

    Args:
        module: Whose step was observed.
        seen: What it showed.
        batches: Of training, as the step gets them.
    """
    compared = seen.comparison
    if compared is None or compared.layer is None:
        return None
    shapes = {tuple(tensor.shape) for tensor in compared.layer.inputs}
    learning = ((name, weight) for name, weight in module.named_parameters() if weight.requires_grad)
    names = [name for name, weight in learning if weight.ndim > 1 and tuple(weight.shape) in shapes]
    classes = compared.classes
    wanted = (compared.target if classes is None else classes).detach().flatten()
    holding = [i for i, held in enumerate(tensors_in(batches[0])) if _holds(held, wanted, compared)]
    if not holding or not names:
        return None
    part = holding[-1]  # inputs that are to be returned come first
    each = [list(tensors_in(batch))[part].detach().cpu() for batch in batches]
    if not each[0].ndim:  # samples without a batch dimension
        return None
    held = torch.cat(each)
    if classes is not None:
        return Task("classes", part, names[-1], compared.prediction.shape[1], one_hot=each[0].numel() > wanted.numel())
    whole = bool((held == held.round()).all()) and float(held.min()) >= 0
    counted = compared.likelihood or not held.is_floating_point()
    if whole and counted and compared.units == 1 and 1 < float(held.max()) < 1000:
        return Task("classes", part, names[-1], int(held.max()) + 1)
    each_output = held.numel() == len(held) * max(1, compared.units) or each[0].shape == compared.prediction.shape
    if whole and float(held.max()) <= 1 and each_output:
        return Task("binary", part, names[-1])
    columns = held.reshape(len(held), -1).float()
    return Task("numbers", part, names[-1], 0, columns.mean(0), columns.std(0).clamp(min=1e-12))


def _holds(held: Tensor, wanted: Tensor, compared: Comparison) -> bool:
    if compared.labels is not None and held.ndim > 1 and held.shape == compared.logits.shape:
        held = held.argmax(1)
    return held.numel() == wanted.numel() and torch.equal(held.detach().flatten().to(wanted), wanted)


class Wrapped(pl.LightningModule):
    """A module within another that changes something about its steps or its optimizer."""

    standardised = False
    """Whether what it answers are standardised numbers, where the task is of numbers."""

    def __init__(self, inner: pl.LightningModule) -> None:
        super().__init__()
        self.inner = inner

    def on_train_start(self) -> None:
        self.inner.on_train_start()

    def on_train_epoch_start(self) -> None:
        self.inner.on_train_epoch_start()

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.inner.on_before_batch_transfer(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return self.inner.transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return self.inner.on_after_batch_transfer(batch, dataloader_idx)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.inner.on_train_batch_end(outputs, batch, batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.of_inner(batch, batch_idx)

    def of_inner(self, batch: Any, batch_idx: int) -> Any:
        """Return what the step of the module within returns; it logs through this one, which the trainer knows."""
        self.inner.log = self.log  # type: ignore[method-assign]
        return training_step(self.inner, batch, batch_idx)

    def configure_optimizers(self) -> Any:
        return self.inner.configure_optimizers()


class AsTargetsAsk(Wrapped):
    """The same network up to its last layer, whose output is compared with the targets as they ask.

    Args:
        inner: The module; its own loss is computed, and not used.
        task: What its targets ask for. Where the last layer has too few outputs for the classes, it is drawn anew.
    """

    standardised = True

    def __init__(self, inner: pl.LightningModule, task: Task) -> None:
        super().__init__(copied(inner))
        self.task = task
        place, _, _ = task.weight.rpartition(".")
        layer = self.inner.get_submodule(place)
        if task.kind == "classes" and isinstance(layer, nn.Linear) and layer.out_features < task.classes:
            parent, _, name = place.rpartition(".")
            wider = nn.Linear(layer.in_features, task.classes, device=layer.weight.device)
            setattr(self.inner.get_submodule(parent), name, wider)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss that the targets ask for."""
        weight = self.inner.get_parameter(self.task.weight)
        with Recording() as recording, suppress(Exception):  # its own loss may not take another number of outputs
            self.of_inner(batch, batch_idx)
        own = {id(parameter) for parameter in self.inner.parameters()}
        made = [
            call
            for call in recording.calls  # a penalty takes weights, too, and nothing else
            if any(tensor is weight for tensor in call.inputs) and any(id(tensor) not in own for tensor in call.inputs)
        ]
        return self.task.loss(made[-1].outputs[0], batch)


class LinearModel(Wrapped):
    """A linear model of the inputs, in the place of a module.

    Args:
        inner: The module, whose hooks bring the batches.
        task: What the targets ask for.
        batch: One as the step gets it, for the mean and spread of the inputs, and the number of outputs.
    """

    standardised = True
    mean: Tensor
    spread: Tensor

    def __init__(self, inner: pl.LightningModule, task: Task, batch: Any) -> None:
        super().__init__(copied(inner))
        self.task = task
        inputs = inputs_of(batch)
        assert inputs is not None
        columns = torch.nan_to_num(inputs.detach().flatten(1).float())
        self.register_buffer("mean", columns.mean(0))
        least = max(0.1 * float(columns.std(correction=0)), 1e-12)
        self.register_buffer("spread", columns.std(0, correction=0).clamp(min=least))
        outputs = task.classes if task.kind == "classes" else task.targets(batch)[0].numel()
        self.layer = nn.Linear(columns.shape[1], outputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss that the targets ask for."""
        inputs = inputs_of(batch)
        assert inputs is not None
        return self.task.loss(self.layer((inputs.flatten(1).float() - self.mean) / self.spread), batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return an optimizer of the linear model alone."""
        return torch.optim.Adam(self.layer.parameters(), lr=1e-2)


def quality(
    subject: Subject, module: pl.LightningModule, weights: Mapping[str, Any], held_out: Sequence[Any], task: Task
) -> float | None:
    """Return the share of right answers, or of the targets' variance that is explained, whatever the module's loss.

    Answers are balanced: each class counts alike, so that always to give the commonest is as good as any constant.

    Args:
        subject: The run.
        module: Its module, or a changed copy.
        weights: A state dict of it.
        held_out: Batches as a loader gives them.
        task: What the targets ask for.

    Returns:
        At most 1; None if the module's answers could not be seen.
    """
    answers, targets = [], []
    start = Variant(start=State(weights))
    with unchanged_random_state(), in_fit(module, start, subject.options, subject.where, subject.trainer) as lane:
        for batch in held_out:
            (seen,) = subject.as_seen([batch], lane.module)
            lane.module.eval()
            compared = compared_in(lane.module, seen)
            if compared is None:
                return None
            targets.append(task.targets(seen))
            answers.append(_answers(compared, task, targets[-1]))
    right, found = torch.cat(targets), torch.cat(answers)
    if right.numel() != found.numel():
        return None
    found = found.reshape(right.shape)
    if task.kind != "numbers":
        return balanced((found == right).float(), right)
    spread = (right - right.mean(0)).square().sum()
    if isinstance(module, Wrapped) and module.standardised:
        assert task.mean is not None
        assert task.spread is not None
        found = found * task.spread.to(found) + task.mean.to(found)
    return float(1 - (found - right).square().sum() / spread) if spread else None


def balanced(right: Tensor, targets: Tensor) -> float:
    """Return the mean over classes of the share of right answers."""
    _, labels, counts = torch.unique(targets, return_inverse=True, return_counts=True)
    return float((torch.bincount(labels.flatten(), right.flatten().double()) / counts).mean())


def _answers(compared: Comparison, task: Task, targets: Tensor) -> Tensor:
    output = compared.output.detach()
    if task.kind == "numbers":
        return compared.prediction.detach().reshape(len(output), -1)
    if task.kind == "classes" and output.ndim > 1 and output.numel() == task.classes * targets.numel():
        return task.places(output, targets).argmax(1).reshape(targets.shape)
    if compared.loss == "binary_cross_entropy_with_logits":
        output = output.sigmoid()
    return output.round() if task.kind == "classes" else (output > 0.5).float().reshape(len(output), -1)
