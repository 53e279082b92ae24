"""One training step on one batch, observed on a copy of the module: no trace of it is left in the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn

from unstall.audit.comparison import Comparison, find_comparison
from unstall.audit.record import Call, Recording, tensors_in
from unstall.audit.reference import Reference, reference_of
from unstall.audit.stand_in import StandIn
from unstall.trials import unchanged_random_state

CUTS = (
    "detach",
    "data",
    "argmax",
    "argmin",
    "round",
    "sign",
    "floor",
    "ceil",
    "item",
    "tolist",
    "numpy",
    "long",
    "int",
)
"""Functions of torch through which no gradient goes."""


@dataclass(frozen=True)
class Observation:
    """What one training step showed.

    Args:
        loss: Of the batch, in training mode.
        samples: In the batch: the common length of its tensors; None if they have none.
        comparison: What the loss compares; None if nothing of the batch.
        inputs: What the first layers with weights are given, as they get it.
        without_gradient: Names of the parameters that require a gradient and got none.
        zero_gradient: Names of those whose gradient is exactly zero.
        parameters: Names of all that require a gradient.
        frozen: Names of those that do not.
        not_held: Names of the parameters that no optimizer holds, though they require a gradient.
        foreign: How many parameters of the optimizers are none of the module's.
        unregistered: Shapes of the weights that the step used and the module does not know of.
        cut: The call that no gradient passes, on the way to the loss; None if there is none.
        twins: Layers all of whose units have the same weights, so that all compute the same.
        toward_target: Share of the samples whose loss falls if the prediction moves toward the target; None if unknown.
        summed: Whether the loss is a sum over the samples, not a mean; None if unknown.
        mixed: Whether the prediction for a sample depends on another sample's data; None if unknown.
        evaluation_loss: Of the same batch in evaluation mode; None if it could not be had.
        reference: What the loss is to be compared with; None if it is not known.
        dropout: The largest share of units that the step drops; 0 if it drops none.
    """

    loss: float
    samples: int | None
    comparison: Comparison | None
    inputs: tuple[Tensor, ...] = ()
    without_gradient: tuple[str, ...] = ()
    zero_gradient: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    foreign: int = 0
    unregistered: tuple[tuple[int, ...], ...] = ()
    cut: Call | None = None
    twins: tuple[str, ...] = ()
    toward_target: float | None = None
    summed: bool | None = None
    mixed: bool | None = None
    evaluation_loss: float | None = None
    reference: Reference | None = None
    dropout: float = 0.0


def observe(
    module: pl.LightningModule,
    batch: Any,
    optimizers: Sequence[torch.optim.Optimizer] = (),
    trainer: pl.Trainer | None = None,
) -> Observation:
    """Make one training step of a copy of a module, without an optimizer's, and say what it showed.

    Args:
        module: In the state in which a fit would make its first step. It is not changed.
        batch: As `training_step` gets it: transferred, after the transfer hooks.
        optimizers: Those of the fit; empty: nothing is said of what they hold.
        trainer: What `self.trainer` is to the copy.

    Raises:
        Exception: whatever the module's own step raises.
    """
    held = {id(weight) for optimizer in optimizers for group in optimizer.param_groups for weight in group["params"]}
    own = dict(module.named_parameters())
    not_held = tuple(name for name, weight in own.items() if weight.requires_grad and id(weight) not in held)
    foreign = len(held - {id(weight) for weight in own.values()})
    subject = StandIn(module, trainer)
    with unchanged_random_state(), torch.inference_mode(False), torch.enable_grad():
        recording, loss = subject.step(batch)
        weights = dict(subject.module.named_parameters())
        every = list({id(leaf): leaf for leaf in [*weights.values(), *_leaves(loss)]}.values())
        parts = list(tensors_in(batch))
        comparison = find_comparison(recording, loss, parts, every)
        if comparison is not None and comparison.logits.requires_grad:
            comparison.logits.retain_grad()
        if loss.requires_grad:
            torch.autograd.backward(loss)
        learning = {name: weight for name, weight in weights.items() if weight.requires_grad}
        gradient = None if comparison is None else comparison.logits.grad
        known = {id(weight) for weight in weights.values()}
        samples = _samples(parts)
        summed, mixed, evaluation_loss = _in_evaluation(subject, batch, samples)
        return Observation(
            loss=float(loss.detach()),
            samples=samples,
            comparison=comparison,
            inputs=tuple(_inputs(recording, parts, every)),
            without_gradient=tuple(name for name, weight in learning.items() if weight.grad is None),
            zero_gradient=tuple(n for n, w in learning.items() if w.grad is not None and not w.grad.any()),
            parameters=tuple(learning),
            frozen=tuple(name for name in weights if name not in learning),
            not_held=not_held if optimizers else (),
            foreign=foreign,
            unregistered=tuple(tuple(leaf.shape) for leaf in every if id(leaf) not in known),
            cut=_cut(recording, loss),
            twins=tuple(_twins(subject.module)),
            toward_target=None if comparison is None else _toward_target(comparison, gradient),
            summed=summed,
            mixed=mixed,
            evaluation_loss=evaluation_loss,
            dropout=max((_dropped(call) for call in recording.calls), default=0.0),
            reference=None if comparison is None else reference_of(comparison, parts),
        )


def _in_evaluation(subject: StandIn, batch: Any, samples: int | None) -> tuple[bool | None, bool | None, float | None]:
    """Return whether the loss is a sum, whether samples are mixed, and the loss in evaluation mode."""

    def step(change: Callable[[Tensor], Tensor]) -> tuple[Tensor | None, float]:
        changed = apply_to_collection(
            batch, Tensor, lambda tensor: change(tensor) if tensor.ndim and len(tensor) == samples else tensor
        )
        with subject.evaluating():
            recording, loss = subject.step(changed)
            weights: list[Tensor] = list(subject.module.parameters())
            comparison = find_comparison(recording, loss, list(tensors_in(changed)), weights)
            return (None if comparison is None else comparison.prediction), float(loss)

    prediction: Tensor | None = None
    loss = summed = None
    with suppress(Exception):  # a step that does not work in evaluation mode, or on half a batch: nothing is said of it
        prediction, loss = step(lambda tensor: tensor)
    if samples is None or samples < 4 or not loss:
        return None, None, loss
    with suppress(Exception):
        half = samples // 2
        halves = [step(lambda tensor: tensor[:half])[1], step(lambda tensor: tensor[half : 2 * half])[1]]
        whole = loss if samples == 2 * half else step(lambda tensor: tensor[: 2 * half])[1]
        summed = abs(sum(halves) - whole) < 0.01 * abs(whole)
    with suppress(Exception):
        other, _ = step(lambda tensor: torch.cat([tensor[:-1], tensor[:1]]))
        return summed, _differs(prediction, other, samples), loss
    return summed, None, loss


def _differs(prediction: Tensor | None, other: Tensor | None, samples: int) -> bool | None:
    """Return whether predictions differ for all samples but the last, whose data were exchanged; None if unknown."""
    if prediction is None or other is None or prediction.shape != other.shape or not prediction.is_floating_point():
        return None
    if prediction.ndim == 0 or len(prediction) != samples or samples in prediction.shape[1:]:
        return None  # a matrix of similarities depends on all samples by design
    change = (prediction[:-1] - other[:-1]).abs().max()
    return bool(change > 1e-3 * prediction.abs().max().clamp(min=1e-12))


def _dropped(call: Call) -> float:
    """Return the probability with which a call drops a unit."""
    return float(call.arguments.get("p", call.arguments.get(1, 0.0))) if "dropout" in call.name else 0.0


def _samples(parts: Sequence[Tensor]) -> int | None:
    lengths = {len(part) for part in parts if part.ndim}
    return lengths.pop() if len(lengths) == 1 else None


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yield the tensors at which the gradients of a loss would end."""
    waiting, seen = [loss.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            yield variable
        waiting += [parent for parent, _ in node.next_functions]


def _inputs(recording: Recording, parts: Sequence[Tensor], weights: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield what layers are given that has not gone through another layer before."""
    given, learned = {id(part) for part in parts}, {id(weight) for weight in weights}
    parameters, seen = set(learned), set()
    for call in recording.calls:
        with_weights = any(id(tensor) in parameters for tensor in call.inputs)
        for tensor in call.inputs:
            if with_weights and id(tensor) in given and id(tensor) not in learned and id(tensor) not in seen:
                seen.add(id(tensor))
                yield tensor
        for origin in given, learned:
            if any(id(tensor) in origin for tensor in call.inputs):
                origin |= {id(output) for output in call.outputs}


def _cut(recording: Recording, loss: Tensor) -> Call | None:
    """Return a call on the way to the loss that took a tensor with a gradient and returned one without."""
    waiting, seen = [loss], {id(loss)}
    while waiting:
        call = recording.maker_of(waiting.pop(0))
        if call is None:
            continue
        if call.name in CUTS and any(tensor.requires_grad for tensor in call.inputs):
            return call
        for tensor in call.inputs:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                waiting.append(tensor)
    return None


def _twins(module: nn.Module) -> Iterator[str]:
    """Yield the layers whose units all have the same weights and the same gradient, if they have any."""
    for name, weight in module.named_parameters():
        if weight.ndim < 2 or len(weight) < 2 or weight.grad is None or not weight.grad.any():
            continue
        both = weight.detach().flatten(1), weight.grad.flatten(1)
        if all(bool((rows == rows[:1]).all()) for rows in both):
            yield name


def _toward_target(comparison: Comparison, gradient: Tensor | None) -> float | None:
    """Return the share of samples whose loss falls when the last layer's output moves toward the target.

    Of classes, toward the right one and away from the mean of all; of numbers, toward the number.
    """
    logits, labels = comparison.logits, comparison.labels
    if gradient is None or not gradient.any():
        return None
    if labels is not None:
        direction = (
            nn.functional.one_hot(labels, logits.shape[1]).movedim(-1, 1).to(gradient.dtype) - 1 / logits.shape[1]
        )
    elif comparison.target.numel() == logits.numel():
        wanted = comparison.target.reshape(logits.shape).to(gradient.dtype)
        if comparison.likelihood or comparison.activation is not None:
            if not bool(((wanted >= 0) & (wanted <= 1)).all()):
                return None
            direction = wanted - wanted.mean()
        else:
            direction = wanted - comparison.prediction.detach().reshape(logits.shape)
    else:
        return None
    gains = (-gradient * direction).flatten(1).sum(1) if gradient.ndim > 1 else -gradient * direction
    moving = gains[gains != 0]
    return float((moving > 0).float().mean()) if len(moving) else None
