"""Layers in series with nothing but linear functions between them: together they are one linear map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from unstall.audit.comparison import Comparison
from unstall.audit.flow import Flow
from unstall.audit.record import Call, Site

WEIGHTED = {
    *("linear", "matmul", "rmatmul", "mm", "bmm", "mv", "addmm", "baddbmm", "addmv", "einsum", "tensordot"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
}
"""Products with a weight, if one of their arguments is a weight."""

LINEAR = {
    *("embedding", "batch_norm", "dropout", "dropout1d", "dropout2d", "dropout3d", "mean", "sum", "pad", "interpolate"),
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "unfold", "fold", "pixel_shuffle", "pixel_unshuffle"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("view", "reshape", "flatten", "unflatten", "permute", "transpose", "swapaxes", "movedim", "T", "mT", "t"),
    *("squeeze", "unsqueeze", "expand", "repeat", "contiguous", "clone", "detach", "roll", "flip"),
    *("to", "float", "double", "half", "bfloat16", "type", "cpu", "cuda"),
    *("getitem", "index_select", "select", "narrow", "chunk", "split", "unbind"),
    *("mul", "multiply", "neg", "negative"),
}
"""Functions that are linear, up to a constant, in the only argument that depends on the batch."""

DIVISIONS = {"div", "divide", "true_divide"}

SUMS = {"add", "sub", "subtract", "rsub", "cat", "concat", "hstack", "vstack", "stack"}
"""Functions that are linear in all their arguments."""


@dataclass(frozen=True)
class Series:
    """Layers that follow one another with no activation between.

    Args:
        count: How many do, on the longest way from the inputs to the prediction.
        layers: Names of the modules that hold the weights, in the order of their calls.
        places: Names of the modules after which activations belong: each layer but the last, or the normalization that
            follows it. An empty one is that of a layer that is no module.
        site: The line that calls the first layer whose inputs are made by another.
    """

    count: int
    layers: tuple[str, ...]
    places: tuple[str, ...]
    site: Site | None


def in_series(flow: Flow, compared: Comparison | None, weights: Mapping[str, Tensor]) -> Series | None:
    """Return the layers of a network that is one linear map; None if it has an activation, or one layer in a row.

    Whatever is not known to be linear counts as an activation. What a network does before its first layer or after its
    last one does not count; nor do two layers of which the first has fewer outputs than both ends: a factorisation.

    Args:
        flow: The origins of what the training step computed.
        compared: What its loss compares.
        weights: All parameters by name.
    """
    if compared is None:
        return None
    before = {id(call) for call in flow.before(compared.prediction, compared.call)}
    calls = [call for call in flow.recording.calls if id(call) in before and _computes(flow, call)]
    layers = {id(call): call for call in calls if _has_weight(flow, call)}
    makers = {id(call): [id(flow.recording.maker_of(each, call)) for each in call.inputs] for call in calls}
    inner: set[int] = set()
    for call in reversed(calls):
        if id(call) in layers or id(call) in inner:
            inner |= {*makers[id(call)]}
    hidden = [call for place, call in layers.items() if place in inner]
    last = [call for place, call in layers.items() if place not in inner]
    within = inner | layers.keys()
    if not hidden or not all((_is_linear if id(call) in within else _joins_nothing)(flow, call) for call in calls):
        return None
    depth: dict[int, int] = {}
    for call in calls:
        depth[id(call)] = max((depth.get(each, 0) for each in makers[id(call)]), default=0) + (id(call) in layers)
    count = max(depth.values())
    if count == 2 and _narrows(flow, hidden, last):
        return None
    names = {id(weight): name for name, weight in weights.items()}
    places = [_place(flow, call, calls, names) for call in hidden]
    ends = {_owner(flow, call, names) for call in last}  # a module that is called twice cannot be both
    second = next(call for place, call in layers.items() if depth[place] > 1)
    owners = dict.fromkeys(_owner(flow, call, names) for call in layers.values())
    return Series(
        count=count,
        layers=tuple(filter(None, owners)),
        places=tuple(dict.fromkeys("" if place in ends else place for place in places)),
        site=second.site,
    )


def _computes(flow: Flow, call: Call) -> bool:
    """Return whether a call computes with weights, or what weights have made, from the batch."""
    return any(id(output) in flow.given and id(output) in flow.learned for output in call.outputs)


def _dependent(flow: Flow, call: Call) -> list[Tensor]:
    return [tensor for tensor in call.inputs if id(tensor) in flow.given]


def _has_weight(flow: Flow, call: Call) -> bool:
    """Return whether a call multiplies by a matrix that learns: a parameter, or what is computed from parameters."""
    given = _dependent(flow, call)
    learned = [tensor for tensor in call.inputs if id(tensor) in flow.learned and id(tensor) not in flow.given]
    return call.name in WEIGHTED and len(given) == 1 and any(each.requires_grad and each.ndim > 1 for each in learned)


def _is_linear(flow: Flow, call: Call) -> bool:
    given = _dependent(flow, call)
    if not call.outputs[0].is_floating_point() or any(_is_strange(flow, tensor, call) for tensor in call.inputs):
        return False
    if call.name in SUMS:
        return True
    if call.name in DIVISIONS:
        return len(given) == 1 and given[0] is call.inputs[0] and not call.arguments.get("rounding_mode")
    return len(given) == 1 and call.name in LINEAR | WEIGHTED


def _is_strange(flow: Flow, tensor: Tensor, call: Call) -> bool:
    """Return whether more was done to a tensor than is recorded: by an extension's function, or to a part of it."""
    maker = flow.recording.maker_of(tensor, call)
    if maker is None or id(tensor) not in flow.learned:
        return tensor.grad_fn is not None
    return id(tensor) in flow.given and tensor._version > maker.in_place


def _joins_nothing(flow: Flow, call: Call) -> bool:
    """Return whether a call after the last layers takes one thing, or a sum: a product of two is not linear."""
    return call.name in SUMS or len(_dependent(flow, call)) == 1


def _narrows(flow: Flow, first: list[Call], last: list[Call]) -> bool:
    ends = [_dependent(flow, call)[0] for call in first] + [call.outputs[0] for call in last]
    return max(call.outputs[0].numel() for call in first) < min(end.numel() for end in ends)


def _place(flow: Flow, call: Call, calls: list[Call], names: Mapping[int, str]) -> str:
    """Return the name of the module after which an activation belongs: a layer's, or of the normalization after it."""
    normalization = (each for each in calls if each.name == "batch_norm" and each.inputs[0] is call.outputs[0])
    after = next((name for each in normalization if (name := _owner(flow, each, names))), "")
    return after or _owner(flow, call, names)


def _owner(flow: Flow, call: Call, names: Mapping[int, str]) -> str:
    """Return the name of the module that holds the parameters of a call, such as those that its weight is made of."""
    own = [tensor for tensor in call.inputs if id(tensor) not in flow.given and id(tensor) in flow.learned]
    made = [tensor for each in own for maker in flow.before(each, call) for tensor in maker.inputs]
    name = next((names[id(tensor)] for tensor in [*own, *made] if id(tensor) in names), "")
    return name.partition(".parametrizations.")[0] if ".parametrizations." in name else name.rpartition(".")[0]
