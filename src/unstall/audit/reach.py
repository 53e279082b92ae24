"""What the prediction is computed from: which weights, and whether the inputs still tell the samples apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from unstall.audit.comparison import Comparison
from unstall.audit.flow import Flow
from unstall.audit.record import Call

ALIKE, APART = 1e-4, 1e-2
"""Spread over the samples, as a share of the size, below which they are all alike, and above which they are not. What
loses them in one call goes from one to the other; layers in which a signal fades do so little by little."""


def drawn(weight: Tensor) -> bool:
    """Return whether a weight ends where a uniform draw does: that of torch's layers, or `xavier_uniform_`.

    A layer that has learned goes beyond.
    """
    if weight.ndim < 2:
        return True
    fan_in, fan_out, most = weight[0].numel(), weight.numel() / weight.shape[1], float(weight.detach().abs().max())
    recurrent = [len(weight) / gates for gates in (1, 3, 4)]
    bounds = [(6 / (fan_in + fan_out)) ** 0.5, *(width**-0.5 for width in (fan_in, *recurrent))]
    return any(0.8 * bound < most < 1.0001 * bound for bound in bounds)


def used(
    names: Sequence[str], weights: Mapping[str, Tensor], flow: Flow, compared: Comparison | None
) -> tuple[str, ...]:
    """Return those of some weights that the prediction is computed from, if most of their matrices look as drawn."""
    if compared is None or not names:
        return ()
    calls = flow.before(compared.prediction, compared.call)
    taken = {id(tensor) for call in calls for tensor in call.inputs if id(tensor) in flow.parameters}
    found = [name for name in names if id(weights[name]) in taken]
    matrices = [drawn(weights[name]) for name in found if weights[name].ndim > 1]
    return tuple(found) if matrices and 2 * sum(matrices) > len(matrices) else ()


def taker(names: Sequence[str], weights: Mapping[str, Tensor], flow: Flow) -> Call | None:
    """Return the first call that takes one of some weights."""
    wanted = {id(weights[name]) for name in names}
    calls = (call for call in flow.recording.calls if any(id(tensor) in wanted for tensor in call.inputs))
    return next((call.detached() for call in calls), None)


def loses_samples(flow: Flow, compared: Comparison | None, samples: int | None) -> Call | None:
    """Return the call that is given samples that differ and returns the same for all, on the way to the last layer."""
    if compared is None or compared.layer is None or samples is None or samples < 4:
        return None
    given = [_spread(each, samples) for each in compared.layer.inputs if id(each) not in flow.parameters]
    if not given or any(spread is None or spread > ALIKE for spread in given):
        return None
    for call in (each for tensor in compared.layer.inputs for each in flow.before(tensor, compared.layer)):
        after = _spread(call.outputs[0], samples)
        before = [_spread(each, samples) for each in call.inputs if id(each) not in flow.parameters]
        if after is not None and after <= ALIKE and any(spread is not None and spread > APART for spread in before):
            weights = [each for each in call.inputs if id(each) in flow.parameters and each.ndim > 1]
            # Weights that begin at zero, as those of an adapter or of a residual branch do, will not stay there.
            return None if any(not weight.any() for weight in weights) else call.detached()
    return None


def _spread(tensor: Tensor, samples: int) -> float | None:
    """Return how far samples are from the first, over the largest number; None without samples or other than zeros."""
    axis = next((axis for axis, size in enumerate(tensor.shape) if size == samples), None)
    if axis is None or tensor.layout != torch.strided or tensor.is_complex():
        return None
    values = tensor.detach().double()
    size = float(values.abs().max())
    return float((values - values.narrow(axis, 0, 1)).abs().max()) / size if 0 < size < float("inf") else None
