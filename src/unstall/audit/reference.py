"""What a loss is to be compared with: the best prediction that looks at no input, for the loss that a module has."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from unstall.audit.comparison import Comparison
from unstall.audit.record import tensors_in

Kind = Literal["classes", "binary", "squares"]

CLOSE = 0.01
"""Share by which a loss may differ from the formula: what clamps and half precision change."""


@dataclass(frozen=True)
class Reference:
    """How to compute the loss of the best constant prediction.

    Args:
        kind: `classes`: the entropy of the labels, each counted with its weight; `binary`: that of each column of zeros
            and ones, on average; `squares`: the variance of each column, on average.
        part: Which tensor of the batch holds the targets, in the order of `tensors_in`.
        one_hot: Whether it holds a column of zeros and ones for each class.
        weights: Of the classes in the loss; empty: all are the same.
    """

    kind: Kind
    part: int
    one_hot: bool = False
    weights: tuple[float, ...] = ()

    def targets(self, batch: Any) -> Tensor | None:
        """Return the targets of a batch, classes as their numbers; None if it has no such tensor."""
        found = next(itertools.islice(tensors_in(batch), self.part, None), None)
        return found.argmax(1) if found is not None and self.one_hot else found


def reference_of(comparison: Comparison, parts: Sequence[Tensor], loss: float) -> Reference | None:
    """Return the reference of a loss, or None if none is known: of an unusual loss, or of targets that are computed.

    Args:
        comparison: What the loss compares.
        parts: The tensors of the batch.
        loss: What it was. A loss that is more than the comparison, or less, has another reference.
    """
    weights = _class_weights(comparison)
    kind, targets = _kind(comparison, weights, loss), comparison.classes
    if kind is None:
        return None
    wanted = (targets if targets is not None and kind == "classes" else comparison.target).detach().flatten()
    for part, tensor in enumerate(parts):
        one_hot = kind == "classes" and tensor.shape == comparison.prediction.shape
        held = tensor.argmax(1) if one_hot else tensor
        if held.numel() == wanted.numel() and torch.equal(held.flatten().to(wanted.dtype), wanted):
            return Reference(kind, part, one_hot, () if weights is None else tuple(weights.tolist()))
    return None


def error_share(comparison: Comparison, pull: Tensor, loss: float) -> float | None:
    """Return which share of a loss is the error of the prediction, once that is as good as a constant's.

    The rest, such as a penalty, does not depend on the prediction. The weight of the error in the loss is read off the
    gradient: that of the plain formula times the weight. None where no formula gives that gradient.

    Args:
        comparison: What the loss compares.
        pull: Gradient of the loss at the prediction.
        loss: What it was.
    """
    if comparison.weighted or not comparison.prediction.is_floating_point():
        return None
    prediction, target = comparison.prediction.detach().float(), comparison.target.detach()
    with torch.enable_grad():
        for kind, value in _values(prediction.requires_grad_(), target, comparison.classes, None):
            (plain,) = torch.autograd.grad(value, prediction, retain_graph=True)
            weight = float((plain * pull).sum() / plain.square().sum())
            if weight > 0 and float((weight * plain - pull).norm()) <= CLOSE * float(pull.norm()):
                rest, constant = (
                    loss - weight * float(value.detach()),
                    weight * _constant(kind, target, comparison.classes),
                )
                return constant / (constant + max(0.0, rest)) if constant > 0 else None
    return None


def _constant(kind: Kind, target: Tensor, labels: Tensor | None) -> float:
    """Return what the best constant prediction costs in a batch."""
    if kind == "squares":
        return float((target.float() - target.float().mean(0)).square().mean())
    ones = target.float().mean(0)
    shares = torch.stack([ones, 1 - ones])
    if kind == "classes":
        assert labels is not None
        counts = torch.bincount(labels.flatten()).double()
        shares = (counts / counts.sum())[:, None]
    return float(torch.special.entr(shares).sum(0).mean())


def _class_weights(comparison: Comparison) -> Tensor | None:
    """Return the weights of the classes in the loss; None if all are the same."""
    given = comparison.call.inputs[2:] if comparison.loss in ("cross_entropy", "nll_loss") else ()
    return given[0].detach().float() if given and bool((given[0] != given[0][0]).any()) else None


def _kind(comparison: Comparison, weights: Tensor | None, loss: float) -> Kind | None:
    """Return the kind whose formula gives the loss, by whatever functions it was computed."""
    if comparison.weighted or comparison.call.arguments.get("label_smoothing"):
        return None
    if not comparison.prediction.is_floating_point():
        return None
    values = _values(comparison.prediction.detach().float(), comparison.target.detach(), comparison.classes, weights)
    return next((kind for kind, value in values if abs(float(value) - loss) <= CLOSE * abs(loss)), None)


def _values(
    prediction: Tensor, target: Tensor, labels: Tensor | None, weights: Tensor | None
) -> Iterator[tuple[Kind, Tensor]]:
    """Yield what each kind of loss would be, of logits, of logarithms of probabilities and of probabilities."""
    low, high = prediction.min(), prediction.max()
    if labels is not None:
        yield "classes", F.cross_entropy(prediction, labels, weights)
        if low >= 0 and high <= 1:
            yield "classes", F.nll_loss(prediction.log(), labels, weights)
    if prediction.shape != target.shape or not target.is_floating_point():
        return
    target = target.float()
    if labels is None and bool(((target == 0) | (target == 1)).all()):
        yield "binary", F.binary_cross_entropy_with_logits(prediction, target)
        if high <= 0:
            yield "binary", F.binary_cross_entropy(prediction.exp(), target)
        if low >= 0 and high <= 1:
            yield "binary", F.binary_cross_entropy(prediction, target)
    yield "squares", F.mse_loss(prediction, target)
