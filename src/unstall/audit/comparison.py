"""What a loss compares: the prediction, how it came out of the last layer, and the target.

Seen from the calls of one training step, not guessed from the batch: an autoencoder that is given labels compares with
its input, and a loss written by hand is found like `cross_entropy`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from unstall.audit.record import Call, Recording, Site

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
        """The target as class numbers `(batch, ...)`, of logits `(batch, classes, ...)`; None if there are none."""
        target, shape = self.target, self.logits.shape
        if len(shape) < 2 or shape[1] < 2:
            return None
        if target.shape == shape and bool(((target == 0) | (target == 1)).all()) and bool((target.sum(1) == 1).all()):
            return target.argmax(1)
        if target.shape == (shape[0], 1):  # an index for `gather`
            target = target[:, 0]
        whole = not target.is_floating_point() and not target.is_complex() and target.dtype != torch.bool
        fits = (
            target.shape == shape[:1] + shape[2:] and whole and int(target.min()) >= 0 and int(target.max()) < shape[1]
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
        return next((call for call in self.path if call.name in ("log", "log2", "log10", "log1p")), None)

    @property
    def likelihood(self) -> bool:
        """Whether the loss is a log-likelihood of classes: `cross_entropy` and its like, or the same by hand."""
        if self.loss in LOSSES:
            return self.loss in ("cross_entropy", "nll_loss", "kl_div") or self.loss.startswith("binary_cross")
        return self.logarithm is not None or any(call.name in ("log_softmax", "logsigmoid") for call in self.path)


def find_comparison(
    recording: Recording, loss: Tensor, batch: list[Tensor], weights: list[Tensor]
) -> Comparison | None:
    """Return what a loss compares, or None if it compares nothing with a part of the batch.

    Args:
        recording: The calls of the training step.
        loss: What it returned.
        batch: The tensors of the batch.
        weights: All parameters, those that get no gradient as well.
    """
    parameters = {id(weight) for weight in weights}
    given, learned = _origins(recording, {id(tensor) for tensor in batch}, parameters)
    calls = list(_ancestors(recording, loss, parameters))
    known = next((call for call in calls if call.name in LOSSES and len(call.inputs) > 1), None)
    for call in [known] if known is not None else calls:
        sides = [tensor for tensor in call.inputs if id(tensor) not in parameters]
        predictions = [tensor for tensor in sides if id(tensor) in learned]
        targets = [tensor for tensor in sides if id(tensor) in given and id(tensor) not in learned]
        if known is not None and not targets:  # a consistency loss: both sides are learned, or neither is of the batch
            targets = [tensor for tensor in sides[1:2] if tensor is not predictions[0]] if predictions else []
        if predictions and targets:
            path, layer = _path(recording, predictions[0], parameters, learned)
            logits = path[0].inputs[_index(path[0], learned, parameters)] if path else predictions[0]
            return Comparison(
                call.name,
                call,
                predictions[0],
                targets[0],
                path,
                logits,
                layer,
                _complement(calls),
                _squared(call, calls),
            )
    return None


def _origins(recording: Recording, batch: set[int], parameters: set[int]) -> tuple[set[int], set[int]]:
    """Return which tensors come from the batch, and which from parameters (whether or not a gradient reaches them)."""
    given, learned = set(batch), set(parameters)
    for call in recording.calls:
        for origin in given, learned:
            if any(id(tensor) in origin for tensor in call.inputs):
                origin |= {id(output) for output in call.outputs}
    return given, learned


def _ancestors(recording: Recording, loss: Tensor, parameters: set[int]) -> Iterator[Call]:
    """Yield the calls that led to a loss, the nearest first."""
    waiting, seen = deque([loss]), {id(loss)}
    while waiting:
        call = recording.maker_of(waiting.popleft())
        if call is None:
            continue
        yield call
        for tensor in call.inputs:
            if id(tensor) not in seen and id(tensor) not in parameters:
                seen.add(id(tensor))
                waiting.append(tensor)


def _path(
    recording: Recording, prediction: Tensor, parameters: set[int], learned: set[int]
) -> tuple[tuple[Call, ...], Call | None]:
    path: list[Call] = []
    tensor = prediction
    while (call := recording.maker_of(tensor)) is not None:
        if any(id(each) in parameters for each in call.inputs):
            return tuple(reversed(path)), call
        if not any(id(each) in learned for each in call.inputs):
            break
        path.append(call)
        tensor = call.inputs[_index(call, learned, parameters)]
    return tuple(reversed(path)), None


def _index(call: Call, learned: set[int], parameters: set[int]) -> int:
    """Return which input a call mainly is a function of: the largest that is learned."""
    sizes = [tensor.numel() if id(tensor) in learned and id(tensor) not in parameters else -1 for tensor in call.inputs]
    return sizes.index(max(sizes))


def _complement(calls: list[Call]) -> bool:
    """Return whether there is a logarithm of one minus something, with or without a clamp between the two."""
    made = {id(call.outputs[0]): call for call in calls}
    for call in calls:
        if call.name == "log1p":
            return True
        source = made.get(id(call.inputs[0])) if call.name == "log" and call.inputs else None
        if source is not None and source.name in ("clamp", "clip", "add") and source.inputs:
            source = made.get(id(source.inputs[0]))
        if source is not None and source.name in ("rsub", "sub"):
            return True
    return False


def _squared(comparing: Call, calls: list[Call]) -> bool:
    """Return whether the next call squares what a comparison returns: `(a - b).square()`, `(a - b) ** 2`."""
    following = [call for call in calls if any(tensor is comparing.outputs[0] for tensor in call.inputs)]
    return any(call.name == "square" or (call.name == "pow" and 2 in call.arguments.values()) for call in following)
