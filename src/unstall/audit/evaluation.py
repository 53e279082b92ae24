"""What steps in evaluation mode show: whether the loss is a sum over the samples, and whether samples are mixed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from types import EllipsisType
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from unstall.audit.comparison import ACTIVATIONS, SHAPES, Comparison, find_comparison
from unstall.audit.flow import Flow
from unstall.audit.record import Call, tensors_in
from unstall.audit.stand_in import StandIn
from unstall.trials import unchanged_random_state

SEPARATE = {
    *ACTIVATIONS,
    *SHAPES,
    *(
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "neg",
        "pow",
        "square",
        "sqrt",
        "rsqrt",
        "exp",
        "log",
        "abs",
        "clone",
        "half",
    ),
    *("cat", "stack", "chunk", "split", "unbind", "expand", "repeat", "long", "type", "bfloat16", "detach"),
    *("max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d", "interpolate", "pad"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d"),
}
"""Functions that keep samples apart, unless a dimension is mistaken for another."""

REDUCTIONS = {
    *("mean", "sum", "amax", "amin", "max", "min", "std", "var", "norm", "logsumexp", "normalize"),
    *("softmax", "log_softmax"),
}
"""Functions that keep samples apart if they run over another dimension than the first."""

ALONG_A_DIMENSION = {"lstm": 3, "gru": 3, "rnn_tanh": 3, "rnn_relu": 3, "multi_head_attention_forward": 3} | {
    f"conv{n}d": n + 2 for n in (1, 2, 3)
}
"""Layers that mix what lies along a dimension, with the dimensions of a batch for them."""


def in_evaluation(stand_in: StandIn, batch: Any, samples: int | None) -> tuple[bool | None, bool | None, float | None]:
    """Return whether the loss is a sum, whether samples are mixed by mistake, and the loss in evaluation mode.

    Args:
        stand_in: The copy, in evaluation mode from then on.
        batch: It is not changed.
        samples: In it.
    """

    def step(change: Callable[[Tensor], Tensor]) -> tuple[Flow, Comparison | None, float]:
        changed = apply_to_collection(
            copy.deepcopy(batch), Tensor, lambda part: change(part) if part.ndim and len(part) == samples else part
        )
        parts = list(tensors_in(changed))
        with stand_in.evaluating():
            recording, loss = stand_in.step(changed)
            flow = Flow(recording, parts, stand_in.module.parameters())
            return flow, find_comparison(flow, loss), float(loss)

    compared: Comparison | None = None
    loss = summed = None
    with suppress(Exception):  # a step that does not work in evaluation mode, or on half a batch: nothing is said of it
        flow, compared, loss = step(lambda part: part)
    if samples is None or samples < 4 or not loss:
        return None, None, loss
    with suppress(Exception):
        half = samples // 2
        halves = [step(lambda part: part[:half])[2], step(lambda part: part[half : 2 * half])[2]]
        whole = loss if samples == 2 * half else step(lambda part: part[: 2 * half])[2]
        summed = abs(sum(halves) - whole) < 0.01 * abs(whole)
    with suppress(Exception):
        if compared is not None and _keeps_apart(flow, compared, samples):
            mixed = _differs(compared, step(lambda part: torch.cat([part[-1:], part[1:]]))[1], samples)
            if mixed and _differs(compared, step(lambda part: part)[1], samples):
                mixed = None  # a step that draws numbers of its own
            return summed, mixed, loss
    return summed, None, loss


def in_both_modes(stand_in: StandIn, batch: Any) -> tuple[float, float]:
    """Return the loss of a batch in training and in evaluation mode.

    Args:
        stand_in: A copy in training mode.
        batch: It is not changed.

    Raises:
        Exception: whatever the module's own step raises.
    """
    modes = [(part, part.training) for part in stand_in.module.modules()]
    with stand_in.evaluating():  # first: training mode moves running statistics
        _, evaluation = stand_in.step(copy.deepcopy(batch))
    for part, mode in modes:
        part.training = mode
    with unchanged_random_state(), torch.no_grad():
        _, training = stand_in.step(copy.deepcopy(batch))
    return float(training), float(evaluation)


def _differs(one: Comparison, other: Comparison | None, samples: int) -> bool | None:
    """Return whether predictions differ for samples but the first, whose data were exchanged; None if unknown."""
    prediction = one.prediction
    if other is None or prediction.shape != other.prediction.shape or not prediction.is_floating_point():
        return None
    if prediction.ndim == 0 or len(prediction) != samples or samples in prediction.shape[1:]:
        return None  # a matrix of similarities depends on all samples by design
    change = (prediction[1:] - other.prediction[1:]).abs().max()
    return bool(change > 1e-3 * prediction.abs().max().clamp(min=1e-12))


def _keeps_apart(flow: Flow, compared: Comparison, samples: int) -> bool:
    """Return whether samples could meet on the way to the prediction by mistake only.

    By design they meet where they are mixed up, drawn, weighed with one another or averaged, or where the batch is one
    sequence or one set.
    """
    target = compared.target
    for call in flow.before(compared.prediction, compared.call):
        data = [tensor for tensor in call.inputs if id(tensor) in flow.given and tensor.ndim]
        if not data:
            continue
        first = data[0]
        if any(len(tensor) == 1 for tensor in data if tensor.is_floating_point()):
            return False
        if call.name in ALONG_A_DIMENSION:
            places = target.ndim > 1 and first.shape[:2] == target.shape[:2]  # each has a target: which are samples?
            if places or first.ndim < ALONG_A_DIMENSION[call.name] or 1 in first.shape[:2]:
                return False
        elif call.name == "batch_norm":
            if call.arguments.get("training"):
                return False
        elif not flow.is_layer(call) and not _separate(call, first):
            return False
    return True


def _separate(call: Call, first: Tensor) -> bool:
    """Return whether a function does the same to each sample, if the first dimension is that of the samples."""
    if call.name == "getitem":
        index = call.arguments.get(1)
        parts = index if isinstance(index, tuple) else [index]
        return len(call.inputs) == 1 and all(isinstance(part, int | slice | EllipsisType | None) for part in parts)
    if call.name in REDUCTIONS:
        over = call.arguments.get("dim", call.arguments.get(1))
        dimensions = over if isinstance(over, list | tuple) else [over]
        return all(isinstance(each, int) and each % first.ndim for each in dimensions)
    return call.name in SEPARATE
