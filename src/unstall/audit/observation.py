"""One training step on one batch, observed on a copy of the module: no trace of it is left in the run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unstall.audit.comparison import LOSSES, RECURRENT, Comparison, find_comparison
from unstall.audit.evaluation import in_evaluation
from unstall.audit.finite import stumble
from unstall.audit.flow import Flow
from unstall.audit.reach import drawn, loses_samples, taker, used
from unstall.audit.record import Call, tensors_in
from unstall.audit.reference import Reference, error_share, reference_of
from unstall.audit.series import Series, in_series
from unstall.audit.stand_in import StandIn
from unstall.trials import unchanged_random_state

CUTS = ("detach", "data", "argmax", "argmin", "round", "sign", "floor", "ceil", "long", "int")
"""Functions of torch through which no gradient goes."""

MULTIPLYING = ("linear", "conv1d", "conv2d", "conv3d", "matmul", "mm", "addmm", "lstm", "gru", "rnn_tanh", "rnn_relu")
"""Functions that take a weight with a row for each unit."""

DIFFERENCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "gaussian_nll_loss")
"""Losses that are least where the prediction is the target."""


@dataclass(frozen=True)
class Observation:
    """What one training step showed.

    Args:
        loss: Of the batch, in training mode.
        samples: In the batch: the common length of its tensors; None if they have none.
        comparison: What the loss compares; None if nothing of the batch.
        inputs: What the first layers with weights are given, as they get it.
        beside: What else of the batch enters on the way to the prediction: masks, edges of a graph, indices.
        without_gradient: Names of the parameters that require a gradient and got none.
        zero_gradient: Names of those whose gradient is exactly zero.
        parameters: Names of all that require a gradient.
        frozen: Names of those that do not.
        not_held: Names of the parameters that no optimizer holds, though they require a gradient.
        drawn: Whether those look as they were drawn; others have learned elsewhere, and may be kept on purpose.
        unreached: Names of the parameters as drawn that the prediction is computed from, and that got no gradient.
        reached_last: The first call that takes one of these; None if there is none.
        frozen_as_drawn: Names of the frozen parameters that the prediction is computed from, if they look as drawn.
        loses_samples: The call that is given samples that differ and returns the same for all of them; or None.
        series: The layers, if there is no activation between them; None if there is one.
        stumble: The call that has no finite value or slope of what it is given; None if all is finite.
        error_share: What the comparison is of the loss; the rest are penalties and other terms. None if unknown.
        foreign: How many parameters of the optimizers are none of the module's.
        unregistered: Shapes of the weights, as drawn, that the step used and neither the module nor an optimizer knows.
        cut: The call that no gradient passes, on the way to the loss; None if there is none.
        twins: Weights of layers but the last, all of whose units are the same, and so compute the same.
        toward_target: Share of the samples whose loss falls if the prediction moves toward the target; None if unknown.
        summed: Whether the loss is a sum over the samples, not a mean; None if unknown.
        mixed: Whether the prediction for a sample depends on another sample's data; None if unknown.
        rearranged: The reshape that exchanges the samples with another dimension, as a permutation should, or the
            recurrence that reads along the samples; or None.
        evaluation_loss: Of the same batch in evaluation mode; None if it could not be had.
        reference: What the loss is to be compared with; None if it is not known.
        dropout: The largest share of units that the step drops; 0 if it drops none.
        at_rest: Whether the loss is zero, and stays so where the prediction changes: nothing is to be corrected here.
    """

    loss: float
    samples: int | None
    comparison: Comparison | None
    inputs: tuple[Tensor, ...] = ()
    beside: tuple[Tensor, ...] = ()
    without_gradient: tuple[str, ...] = ()
    zero_gradient: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()
    not_held: tuple[str, ...] = ()
    drawn: bool = True
    unreached: tuple[str, ...] = ()
    reached_last: Call | None = None
    frozen_as_drawn: tuple[str, ...] = ()
    loses_samples: Call | None = None
    series: Series | None = None
    stumble: Call | None = None
    error_share: float | None = None
    foreign: int = 0
    unregistered: tuple[tuple[int, ...], ...] = ()
    cut: Call | None = None
    twins: tuple[str, ...] = ()
    toward_target: float | None = None
    summed: bool | None = None
    mixed: bool | None = None
    rearranged: Call | None = None
    evaluation_loss: float | None = None
    reference: Reference | None = None
    dropout: float = 0.0
    at_rest: bool = False


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
    stand_in = StandIn(module, trainer, optimizers)
    held = {id(each): each for optimizer in optimizers for group in optimizer.param_groups for each in group["params"]}
    own = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    not_held = {name: weight for name, weight in own.items() if optimizers and id(weight) not in held}
    with unchanged_random_state(), torch.inference_mode(False), torch.enable_grad():
        given = copy.deepcopy(batch)
        parts = list(tensors_in(given))
        samples = _samples(parts)
        recording, loss = stand_in.step(given)
        weights = dict(stand_in.module.named_parameters())
        known = {id(each) for each in [*weights.values(), *parts, *map(stand_in.copy_of, held.values())]}
        # A parameter that the step has made itself is one of a layer that is new in every step.
        strange = [leaf for leaf in _leaves(loss) if id(leaf) not in known]
        others = [leaf for leaf in strange if isinstance(leaf, nn.Parameter) or recording.maker_of(leaf) is None]
        flow = Flow(recording, parts, [*weights.values(), *others, *map(stand_in.copy_of, held.values())])
        compared = find_comparison(flow, loss)
        if compared is not None and compared.prediction.requires_grad:
            compared.prediction.retain_grad()
        if loss.requires_grad:
            torch.autograd.backward(loss)
        learning = {name: weight for name, weight in weights.items() if weight.requires_grad}
        untouched = tuple(name for name, weight in learning.items() if weight.grad is None)
        unreached = used([name for name in untouched if name not in not_held], weights, flow, compared)
        pull = None if compared is None else compared.prediction.grad
        inputs, beside = _inputs(flow, compared)
        summed, mixed, evaluation_loss = in_evaluation(stand_in, batch, samples)
        return Observation(
            loss=float(loss.detach()),
            samples=samples,
            comparison=None if compared is None else compared.detached(),
            inputs=inputs,
            beside=beside,
            without_gradient=untouched,
            zero_gradient=tuple(n for n, w in learning.items() if w.grad is not None and not w.grad.any()),
            parameters=tuple(learning),
            frozen=tuple(name for name in weights if name not in learning),
            not_held=tuple(not_held),
            drawn=all(drawn(weight) for name, weight in not_held.items() if name not in untouched),
            unreached=unreached,
            reached_last=taker(unreached, weights, flow),
            frozen_as_drawn=used([name for name in weights if name not in learning], weights, flow, compared),
            loses_samples=loses_samples(flow, compared, samples),
            series=in_series(flow, compared, weights),
            stumble=stumble(flow, loss, parts, weights.values()),
            foreign=len(held.keys() - {id(weight) for weight in module.parameters()}),
            unregistered=tuple(tuple(leaf.shape) for leaf in others) if all(map(drawn, others)) else (),
            cut=_cut(flow, loss),
            twins=tuple(_twins(weights, flow, compared)),
            toward_target=None if compared is None else _toward_target(compared),
            summed=summed,
            mixed=mixed,
            rearranged=_rearranged(flow, loss, samples, compared),
            evaluation_loss=evaluation_loss,
            dropout=max((_dropped(call) for call in recording.calls), default=0.0),
            at_rest=not loss and (pull is None or not bool(pull.any())),
            reference=None if compared is None else reference_of(compared, parts, float(loss.detach())),
            error_share=None if compared is None or pull is None else error_share(compared, pull, float(loss.detach())),
        )


def _dropped(call: Call) -> float:
    """Return the probability with which a call drops a unit."""
    drops = "dropout" in call.name and call.arguments.get("training", call.arguments.get(2, True))
    return float(call.arguments.get("p", call.arguments.get(1, 0.0))) if drops else 0.0


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


def _inputs(flow: Flow, compared: Comparison | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return what of the batch layers are given, and what else of it meets what is learned before the prediction."""
    inputs: dict[int, Tensor] = {}
    beside: dict[int, Tensor] = {}
    before = () if compared is None else flow.before(compared.prediction, compared.call)
    for call in flow.recording.calls if compared is None else reversed([*before]):
        places = [place for place, tensor in enumerate(call.inputs) if id(tensor) in flow.parameters]
        # After its first parameter a layer is given masks and states, if the parameter is not what comes first.
        end = places[0] if places and places[0] else len(call.inputs)
        for place, tensor in enumerate(call.inputs):
            if flow.is_data(tensor) and (places or any(map(flow.is_learned, call.inputs))):
                (inputs if places and place < end else beside)[id(tensor)] = tensor.detach()
    return tuple(inputs.values()), tuple(beside.values())


def _cut(flow: Flow, loss: Tensor) -> Call | None:
    """Return a call on the way to the loss that took a tensor with a gradient and returned one without."""
    for call in flow.before(loss):
        if call.name in CUTS and any(tensor.requires_grad for tensor in call.inputs):
            return call.detached()
    return None


def _rearranged(flow: Flow, loss: Tensor, samples: int | None, compared: Comparison | None) -> Call | None:
    """Return what takes the samples for something else: a reshape to the same sizes in another order, or a recurrence
    that reads along them.
    """
    for call in flow.before(loss):
        read = call.inputs[0].shape if call.name in RECURRENT and call.arguments.get(8) is False else ()  # batch_first
        if (
            compared is not None
            and len(read) == 3
            and read[0] == samples
            and read[1] not in (1, *compared.target.shape)
        ):
            return call.detached()
        if call.name not in ("view", "reshape") or not call.outputs[0].ndim:
            continue
        before, after = tuple(call.inputs[0].shape), tuple(call.outputs[0].shape)
        if before[:1] == (samples,) and after[0] != samples and sorted(before) == sorted(after):
            return call.detached()
    return None


def _twins(weights: Mapping[str, Tensor], flow: Flow, compared: Comparison | None) -> Iterator[str]:
    """Yield the layers but the last whose units all have the same weights and the same gradient, if they have any.

    The units of the last may have the same targets, and what is merely added or looked up has no units.
    """
    layers = {id(tensor) for call in flow.recording.calls if call.name in MULTIPLYING for tensor in call.inputs}
    last = {*map(id, compared.layer.inputs)} if compared is not None and compared.layer is not None else set()
    for name, weight in weights.items():
        if id(weight) not in layers - last or weight.ndim < 2 or len(weight) < 2:
            continue
        both = [] if weight.grad is None or not weight.grad.any() else [weight.detach(), weight.grad]
        if both and all(bool((rows == rows[:1]).all()) for rows in both):
            yield name


def _toward_target(compared: Comparison) -> float | None:
    """Return the share of samples whose loss falls when the prediction moves toward the target.

    Of classes, toward the right one and away from the mean of all; of numbers, toward the number. None where more than
    that decides on the loss, or where the loss is of another kind.
    """
    gradient, target = compared.prediction.grad, compared.target
    if gradient is None or not gradient.isfinite().all() or not gradient.any():
        return None
    if not compared.alone or compared.weighted or compared.call.in_place:
        return None
    if compared.loss not in LOSSES and compared.likelihood and not compared.unchanged_from(compared.logarithms[-1]):
        return None  # minus the logarithm, say
    if compared.likelihood and compared.labels is not None:
        classes = gradient.shape[1]
        direction = nn.functional.one_hot(compared.labels, classes).movedim(-1, 1).to(gradient.dtype) - 1 / classes
    elif target.shape != gradient.shape or target.is_complex():
        return None
    elif compared.likelihood and bool(((target >= 0) & (target <= 1)).all()):
        direction = target - target.to(gradient.dtype).mean()
    elif compared.loss in DIFFERENCES or compared.squared:
        direction = target - compared.prediction.detach()
    else:
        return None
    gains = (-gradient * direction).flatten(1).sum(1) if gradient.ndim > 1 else -gradient * direction
    moving = gains[gains != 0]
    return float((moving > 0).float().mean()) if len(moving) else None
