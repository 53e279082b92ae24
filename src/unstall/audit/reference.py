"""What a loss is to be compared with: the best prediction that looks at no input, for the loss that a module has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from unstall.audit.comparison import Comparison
from unstall.audit.record import tensors_in

Kind = Literal["classes", "binary", "squares"]


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


def reference_of(comparison: Comparison, parts: Sequence[Tensor]) -> Reference | None:
    """Return the reference of a loss, or None if none is known: of an unusual loss, or of targets that are computed.

    Args:
        comparison: What the loss compares.
        parts: The tensors of the batch.
    """
    kind, targets = _kind(comparison), comparison.labels
    if kind is None:
        return None
    weights = comparison.call.inputs[2] if len(comparison.call.inputs) > 2 else None
    if weights is not None and (kind != "classes" or weights.shape != comparison.logits.shape[1:2]):
        return None
    wanted = (comparison.target if targets is None else targets).detach().flatten()
    for part, tensor in enumerate(parts):
        one_hot = kind == "classes" and tensor.shape == comparison.logits.shape
        held = tensor.argmax(1) if one_hot else tensor
        if held.numel() == wanted.numel() and torch.equal(held.flatten().to(wanted.dtype), wanted):
            return Reference(
                kind,
                part,
                one_hot,
                () if weights is None or bool((weights == weights[0]).all()) else tuple(weights.tolist()),
            )
    return None


def _kind(comparison: Comparison) -> Kind | None:
    call = comparison.call
    if call.arguments.get("reduction", "mean") != "mean":
        return None
    if comparison.labels is not None:
        whole = comparison.loss in ("cross_entropy", "nll_loss", "gather", "mul") and not comparison.complement
        return "classes" if whole and not call.arguments.get("label_smoothing") else None
    if comparison.prediction.shape != comparison.target.shape or not comparison.target.is_floating_point():
        return None
    zeros_and_ones = bool(((comparison.target == 0) | (comparison.target == 1)).all())
    if comparison.loss.startswith("binary_cross_entropy") or (comparison.complement and comparison.loss == "mul"):
        return "binary" if zeros_and_ones else None
    return "squares" if comparison.loss == "mse_loss" or (comparison.loss == "sub" and comparison.squared) else None
