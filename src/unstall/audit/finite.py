"""Where a loss or its gradient stops being finite, though all that the step was given is."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from unstall.audit.flow import Flow
from unstall.audit.record import Call

STEEP = ("sqrt", "rsqrt", "norm", "vector_norm", "pow", "log", "log2", "log10", "div", "reciprocal", "std", "cdist")
"""Functions whose slope is not finite at zero; the norm's is none there either, and it is that of a root."""

NARROW = (*STEEP, "softmax", "log_softmax", "mean", "var", "acos", "asin", "cross_entropy", "nll_loss", "normalize")
"""Functions that have no finite value for some finite numbers, such as zero over zero or the mean of nothing."""

FILLING = ("masked_fill", "where", "full", "full_like", "new_full", "fill")
"""Functions that may be asked for infinity, as in a mask."""


def stumble(flow: Flow, loss: Tensor, given: Iterable[Tensor], weights: Iterable[Tensor]) -> Call | None:
    """Return the call that has no finite value, or no finite slope, of what it is given; None if all is finite.

    Args:
        flow: Of one step, after its backward pass.
        loss: What it returned.
        given: The parts of the batch. Where these are not finite, nothing else is to blame.
        weights: With their gradients.
    """
    weights = list(weights)
    if not all(map(_is_finite, (*given, *weights))):
        return None
    known = {id(call) for call in flow.before(loss)}
    spoilt = (c for c in flow.recording.calls if id(c) in known and c.name not in FILLING and _spoils(c))
    if not bool(loss.isfinite()):
        first = next(spoilt, None)
        return first.detached() if first is not None and first.name in NARROW else None
    if all(weight.grad is None or _is_finite(weight.grad) for weight in weights):
        return None
    for call in flow.before(loss):
        if call.name in STEEP and not all(bool(each.all()) for each in call.inputs):
            return call.detached()
    # What is not finite may be left out of the loss, and its gradient still be no number: zero times infinity.
    return next((call.detached() for call in spoilt if call.name in NARROW), None)


def _spoils(call: Call) -> bool:
    """Return whether what a call returns is not finite, though what it is given is, or is as a softmax may have it."""
    if all(map(_is_finite, call.outputs)):
        return False
    if "softmax" in call.name:
        return not any(bool(each.isnan().any()) for each in call.inputs)
    return all(map(_is_finite, call.inputs))


def _is_finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or tensor.layout != torch.strided or bool(tensor.isfinite().all())
