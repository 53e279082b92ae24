"""What a loss compares: the prediction, how it came out of the last layer, and the target.

Seen from the calls of one training step, not guessed from the batch: an autoencoder that is given labels compares with
its input, and a loss written by hand is found like `cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from unstall.audit.flow import Flow
from unstall.audit.record import Call, Site

LOSSES = {
    "cross_entropy": "logits",
    "nll_loss": "log-probabilities",
    "binary_cross_entropy": "probabilities",
    "binary_cross_entropy_with_logits": "logits",
    "mse_loss": "numbers",
    "l1_loss": "numbers",
    "smooth_l1_loss": "numbers",
    "huber_loss": "numbers",
    "poisson_nll_loss": "numbers",
    "gaussian_nll_loss": "numbers",
    "kl_div": "log-probabilities",
}
"""torch's losses of a prediction and a target, with what each takes its first argument for (torch's documentation)."""

ACTIVATIONS = {
    **{"softmax": (0.0, 1.0), "sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)},
    **{"hardtanh": (-1.0, 1.0), "softsign": (-1.0, 1.0), "relu": (0.0, float("inf")), "relu6": (0.0, 6.0)},
    **{"softplus": (0.0, float("inf")), "elu": (-1.0, float("inf")), "leaky_relu": (-float("inf"), float("inf"))},
    **{"gelu": (-0.17, float("inf")), "silu": (-0.28, float("inf")), "selu": (-1.76, float("inf"))},
    **{"log_softmax": (-float("inf"), 0.0), "logsigmoid": (-float("inf"), 0.0)},
}
"""Activations with their ranges (torch's documentation; the least values of GELU and SiLU, rounded down)."""

RECURRENT = ("lstm", "gru", "rnn_tanh")
"""Layers whose outputs are between -1 and 1 (torch's documentation)."""

SHAPES = {
    *("squeeze", "unsqueeze", "view", "reshape", "flatten", "unflatten", "getitem", "transpose", "permute", "movedim"),
    *("T", "mT", "contiguous", "float", "double", "to", "clamp", "clip", "clamp_min", "dropout"),
}
"""What leaves values as they are, or within the range of an activation before."""

CASTS = {"long", "int", "bool", "half", "bfloat16", "type", "one_hot"}

LOGARITHMS = ("log", "log2", "log10", "log1p")
LIKELIHOODS = ("cross_entropy", "nll_loss", "kl_div", "binary_cross_entropy", "binary_cross_entropy_with_logits")

WEIGHING = ("mul", "div", "where", "getitem", "masked_select")
"""What the errors of single samples go through when some count less than others, or not at all."""


@dataclass(frozen=True)
class Comparison:
    """Where a prediction meets its target.

    Args:
        loss: The function of torch that compares, or what a loss written by hand does there (`mul`, `sub`).
        call: That call.
        prediction: What it is given, of the shape that it has there.
        target: What it is compared with.
        path: The calls from the last layer's output to the prediction, in order.
        logits: The output of the last layer that has weights; the prediction itself if there is none.
        layer: The call of that layer; None if there is none.
        complement: Whether the loss takes a logarithm of one minus a probability, too: a binary likelihood by hand.
        squared: Whether what the comparison returns is squared.
        weighted: Whether what it returns meets more of the batch: weights, a mask, an advantage.
        alone: Whether there is no other known loss beside it.
        computed: Whether the target is more than a part of the batch of another type or shape.
    """

    loss: str
    call: Call
    prediction: Tensor
    target: Tensor
    path: tuple[Call, ...]
    logits: Tensor
    layer: Call | None
    complement: bool = False
    squared: bool = False
    weighted: bool = False
    alone: bool = True
    computed: bool = False

    @property
    def site(self) -> Site | None:
        """The line that compares."""
        return self.call.site

    @property
    def activation(self) -> Call | None:
        """The first activation after the last layer; None if its output is used as it is."""
        return next((call for call in self.path if call.name in ACTIVATIONS), None)

    @property
    def units(self) -> int:
        """How many numbers the last layer returns for a sample, or for a place in it."""
        return self.logits.shape[-1] if self.logits.ndim > 1 else 1

    @property
    def labels(self) -> Tensor | None:
        """The target as class numbers `(batch, ...)`, of a prediction `(batch, classes, ...)`; None if it is none."""
        shape = self.prediction.shape
        if len(shape) != self.logits.ndim or (len(shape) > 2 and shape != self.logits.shape):
            return None  # places of a sequence, as samples
        return self._as_classes()

    @property
    def classes(self) -> Tensor | None:
        """The same, and also where the first dimension is that of all places, or where the classes were moved there."""
        shape, logits = self.prediction.shape, self.logits.shape
        if len(shape) < 2 or shape[1] not in logits[1:] or shape.numel() != logits.numel():
            return self.labels
        return self._as_classes()

    def _as_classes(self) -> Tensor | None:
        target, shape = self.target, self.prediction.shape
        if len(shape) < 2 or shape[1] < 2 or not target.numel() or target.is_complex():
            return None
        if target.shape == shape and bool(((target == 0) | (target == 1)).all()) and bool((target.sum(1) == 1).all()):
            return target.long().argmax(1)
        if target.shape == (shape[0], 1):  # an index for `gather`
            target = target[:, 0]
        whole = not target.is_floating_point() and target.dtype != torch.bool
        fits = (
            whole and target.shape == shape[:1] + shape[2:] and 0 <= int(target.min()) <= int(target.max()) < shape[1]
        )
        return target.long() if fits else None

    @property
    def output(self) -> Tensor:
        """What the module would take for its answer: what the last activation returns, logarithms aside."""
        activation = self.activation
        return self.logits if activation is None or activation.name.startswith("log") else activation.outputs[0]

    @property
    def logarithm(self) -> Call | None:
        """Where the logarithm of the prediction is taken by hand; None if it is not."""
        return next((call for call in self.path if call.name in LOGARITHMS), None)

    @property
    def likelihood(self) -> bool:
        """Whether the loss is a log-likelihood of classes: `cross_entropy` and its like, or the same by hand."""
        return self.loss in LIKELIHOODS or (self.loss not in LOSSES and bool(self.logarithms))

    @property
    def logarithms(self) -> list[Call]:
        """All logarithms on the path, those of a softmax or a sigmoid, too."""
        return [call for call in self.path if _is_logarithm(call)]

    def unchanged_from(self, call: Call) -> bool:
        """Whether what a call on the path returns is compared as it is, but for its shape."""
        return all(each.name in SHAPES for each in self.path[self.path.index(call) + 1 :])

    def detached(self) -> Comparison:
        """Return the same without the graph, as `Call.detached`."""
        return replace(
            self,
            call=self.call.detached(),
            prediction=self.prediction.detach(),
            target=self.target.detach(),
            path=tuple(call.detached() for call in self.path),
            logits=self.logits.detach(),
            layer=None if self.layer is None else self.layer.detached(),
        )


def find_comparison(flow: Flow, loss: Tensor) -> Comparison | None:
    """Return what a loss compares, or None if it compares nothing with a part of the batch.

    Args:
        flow: The origins of what the training step computed.
        loss: What it returned.
    """
    calls = list(flow.before(loss))
    known = [call for call in calls if call.name in LOSSES and len(call.inputs) > 1]
    for call in known[:1] or calls:
        predictions, targets = _sides(flow, call)
        if known and not targets and predictions:  # a consistency loss: both sides are learned, or neither is given
            targets = [tensor for tensor in call.inputs[1:2] if tensor is not predictions[0]]
        if not predictions or not targets:
            continue
        path, layer = flow.path(predictions[0], call)
        while not known and (deeper := _weighed(flow, call, path)) is not None:
            call = deeper
            predictions, targets = _sides(flow, call)
            path, layer = flow.path(predictions[0], call)
        return Comparison(
            loss=call.name,
            call=call,
            prediction=predictions[0],
            target=targets[0],
            path=path,
            logits=flow.main(path[0]) if path else predictions[0],
            layer=layer,
            complement=_complement(calls),
            squared=_squared(call, calls),
            weighted=_weighted(flow, call, calls),
            alone=len(known) < 2,
            computed=any(each.name not in SHAPES | CASTS for each in flow.before(targets[0], call)),
        )
    return None


def _sides(flow: Flow, call: Call) -> tuple[list[Tensor], list[Tensor]]:
    """Return what a call is given that is learned, and what of the batch."""
    return [each for each in call.inputs if flow.is_learned(each)], [each for each in call.inputs if flow.is_data(each)]


def _weighed(flow: Flow, call: Call, path: Sequence[Call]) -> Call | None:
    """Return the comparison whose result a call weighs or masks; None if that call is a comparison itself."""
    if call.name not in WEIGHING:
        return None
    for before in reversed(path):
        if before.name in ("sub", "gather", "mul", "getitem") and all(_sides(flow, before)):
            return before
        if _is_logarithm(before):
            break
    return None


def _is_logarithm(call: Call) -> bool:
    return call.name in (*LOGARITHMS, "log_softmax", "logsigmoid")


def _following(call: Call, calls: Sequence[Call]) -> list[Call]:
    return [each for each in calls if any(tensor is output for tensor in each.inputs for output in call.outputs)]


def _weighted(flow: Flow, call: Call, calls: Sequence[Call]) -> bool:
    """Return whether a part of the batch enters between a call and the loss."""
    waiting, seen = [call], {id(call)}
    while waiting:
        for each in _following(waiting.pop(), calls):
            if any(flow.is_data(tensor) for tensor in each.inputs):
                return True
            if id(each) not in seen:
                seen.add(id(each))
                waiting.append(each)
    return False


def _complement(calls: Sequence[Call]) -> bool:
    """Return whether there is a logarithm of one minus something, with or without a clamp between the two."""
    made = {id(call.outputs[0]): call for call in calls if not call.in_place}

    def source(call: Call, skipped: Callable[[str], bool]) -> Call | None:
        before = made.get(id(call.inputs[0])) if call.inputs else None
        while before is not None and skipped(before.name):
            before = made.get(id(before.inputs[0])) if before.inputs else None
        return before

    for call in calls:
        before = source(call, lambda name: name in (*SHAPES, "add")) if call.name in ("log", "log1p") else None
        if before is not None and before.name in (("neg",) if call.name == "log1p" else ("rsub", "sub")):
            return True
    return False


def _squared(comparing: Call, calls: Sequence[Call]) -> bool:
    """Return whether the next call squares what a comparison returns: `(a - b).square()`, `(a - b) ** 2`."""
    return any(
        call.name == "square" or (call.name == "pow" and 2 in call.arguments.values())
        for call in _following(comparing, calls)
    )
