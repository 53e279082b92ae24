"""What a loss does with prediction and target: shapes, ranges, signs and scales that do not fit."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from unstall.audit import ACTIVATIONS, LOSSES, RECURRENT, SHAPES, Comparison, Observation
from unstall.causes.activations import logarithm_of_zero
from unstall.causes.cause import Fault, Shown

SAMPLED = 1_000_000
"""Targets of which values are counted."""


def labels_beyond_one_unit(seen: Observation) -> Shown:
    """Whole numbers as targets, more of them than one unit with a likelihood can tell apart."""
    compared = seen.comparison
    if compared is None or compared.units != 1 or compared.prediction.numel() != compared.target.numel():
        return None
    by_hand = compared.loss not in LOSSES and compared.likelihood
    of_classes = compared.complement or any(
        call.name in ("sigmoid", "softmax", "hardsigmoid") for call in compared.path
    )
    if not (compared.loss.startswith("binary_cross_entropy") or (by_hand and of_classes)):
        return None  # the logarithm of a rate, for instance, whose targets are counts
    if by_hand and compared.computed:  # weights of the classes, say, times the target
        return None
    target = compared.target.float()
    whole = bool((target == target.round()).all()) and float(target.max()) > 1 and float(target.min()) >= 0
    if not whole or len(torch.unique(target)) > 1000:
        return None
    return {"site": compared.site, "highest": int(target.max()), "classes": int(target.max()) + 1}


def target_out_of_range(seen: Observation) -> Shown:
    """Targets that the last activation can never return."""
    compared = seen.comparison
    if compared is None or compared.labels is not None or not compared.target.is_floating_point() or compared.weighted:
        return None  # what is out of range may count for nothing
    activation, target = compared.activation, compared.target
    low, high, name = 0.0, 1.0, compared.loss
    if activation is not None:
        name = activation.name
        named = compared.loss in LOSSES
        if named and compared.likelihood and name in ("log_softmax", "logsigmoid"):
            if compared.call.arguments.get("log_target"):
                return None
        elif named or compared.loss == "sub":
            if not compared.unchanged_from(activation):
                return None
            low, high = ACTIVATIONS[name]
        elif name not in ("softmax", "sigmoid") or compared.logarithm is None or compared.computed:
            return None  # like is not compared with like
        elif compared.units > 1 and bool((target == target.round()).all()) and float(target.min()) >= 0:
            return None  # how often each word occurs in a text
    elif compared.layer is not None and compared.layer.name in RECURRENT and _is_a_difference(compared):
        low, high, name = -1.0, 1.0, compared.layer.name  # its states
    elif not compared.loss.startswith("binary_cross_entropy"):
        return None
    least, most = float(target.min()), float(target.max())
    slack = 0.05 * (high - low) if high - low < 10 else 0.05
    if least >= low - slack and most <= high + slack:
        return None
    site = compared.site if activation is None else activation.site or compared.site
    return {"site": site, "activation": name, "low": low, "high": high, "least": least, "most": most}


def broadcast(seen: Observation) -> Shown:
    """A difference of (N, 1) and (N) is (N, N): every prediction is compared with every target."""
    compared = seen.comparison
    if compared is None or compared.likelihood or compared.loss not in (*LOSSES, "sub"):
        return None
    prediction, target = tuple(compared.prediction.shape), tuple(compared.target.shape)
    if len(prediction) == len(target) or 1 in (compared.prediction.numel(), compared.target.numel()):
        return None
    if compared.loss == "sub" and compared.path and compared.path[-1].name in ("unsqueeze", "getitem"):
        return None  # all pairs are meant
    result = _broadcast_size(prediction, target)
    if result is None or result <= max(compared.prediction.numel(), compared.target.numel()):
        return None
    return {"site": compared.site, "prediction": prediction, "target": target}


def wrong_sign(seen: Observation) -> Shown:
    """The loss of nearly every sample falls as the prediction moves away from its target."""
    if seen.toward_target is None or seen.toward_target > 0.1 or seen.comparison is None or (seen.samples or 0) < 4:
        return None
    return {"site": seen.comparison.site, "share": 1 - seen.toward_target}


def classes_as_numbers(seen: Observation) -> Shown:
    """The square or absolute difference to class labels: its gradient vanishes where a probability is far off."""
    compared = seen.comparison
    if compared is None or compared.likelihood or not _of_zeros_and_ones(compared.target):
        return None
    if compared.loss not in ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "sub"):
        return None
    if compared.target.numel() != compared.prediction.numel():
        return None
    return {"site": compared.site, "loss": "difference" if compared.loss == "sub" else compared.loss}


def labels_not_ones(seen: Observation) -> Shown:
    """Two values as targets of a binary likelihood, zero and one that is nearer to zero than to one."""
    compared = seen.comparison
    if compared is None or not compared.loss.startswith("binary_cross_entropy") or compared.weighted:
        return None
    values = torch.unique(compared.target.detach().float().flatten()[:SAMPLED]).tolist()
    if len(values) != 2 or values[0] != 0 or values[1] >= 0.5:
        return None
    return {"site": compared.site, "high": values[1]}


def target_far_off(seen: Observation) -> Shown:
    """Targets much larger than what the network returns at first: most of the training is spent on their size."""
    compared = seen.comparison
    if compared is None or compared.likelihood or compared.activation is not None:
        return None
    if not compared.target.is_floating_point() or compared.target.numel() < 2:
        return None
    size = float(compared.target.square().mean().sqrt())
    spread, predicted = float(compared.target.std()), float(compared.prediction.detach().square().mean().sqrt())
    if not size > 20 * max(predicted, 1.0) or spread == 0:
        return None
    return {"site": compared.site, "size": size, "spread": spread, "predicted": predicted}


def summed(seen: Observation) -> Shown:
    """A sum over the batch: its gradient, and with it the step, grows with the batch."""
    if not seen.summed or (seen.samples or 0) < 8 or seen.comparison is None:
        return None
    return {"site": seen.comparison.site, "samples": seen.samples}


def stumbles(seen: Observation) -> Shown:
    """A function that has no finite value or slope of finite numbers: the root of zero, the mean of nothing."""
    call = seen.stumble
    if call is None or logarithm_of_zero(seen) is not None:
        return None
    what = "The loss" if not math.isfinite(seen.loss) else "Its gradient"
    return {"site": call.site, "what": what, "function": call.name}


def weighted_down(seen: Observation) -> Shown:
    """Weights of the classes, in the loss, that take half of the little away that the rare ones have, or more."""
    compared = seen.comparison
    given = () if compared is None else compared.call.inputs[2:]
    if compared is None or not given or given[-1].ndim > 1 or len(compared.target) < 8:
        return None
    weights, target = given[-1].detach().float(), compared.target.detach()
    if compared.loss in ("cross_entropy", "nll_loss") and compared.labels is not None:
        shares = torch.bincount(compared.labels.flatten(), minlength=len(weights)).float()
        shares, weighted = shares / shares.sum(), shares * weights / (shares * weights).sum()
        rare, left = 1 - float(shares.max()), 1 - float(weighted[shares.argmax()])
    elif compared.loss == "binary_cross_entropy_with_logits" and _weighs_ones(compared, weights):
        ones = target.float().flatten(1).mean(0) if target.ndim > 1 else target.float().mean()
        weighted = ones * weights / (ones * weights + 1 - ones)
        rare, left = float(ones.mean()), float(weighted.mean())
    else:
        return None
    return {"site": compared.site, "share": rare, "left": left} if 0 < left < 0.5 * rare < 0.25 else None


def outweighed(seen: Observation) -> Shown:
    """Penalties and other terms that are more of the loss than the error of the prediction."""
    if seen.error_share is None or seen.error_share > 0.5 or seen.comparison is None or not seen.comparison.alone:
        return None
    return {"site": seen.comparison.site, "share": seen.error_share}


def _is_a_difference(compared: Comparison) -> bool:
    """Return whether what the last layer returns is compared as it is, by a difference."""
    shapes_only = all(call.name in SHAPES or call is compared.layer for call in compared.path)
    return shapes_only and (compared.loss == "sub" or (compared.loss in LOSSES and not compared.likelihood))


def _weighs_ones(compared: Comparison, weights: Tensor) -> bool:
    """Return whether the weights are those of the ones, `pos_weight`, and not those of the samples or columns."""
    formula, target = F.binary_cross_entropy_with_logits, compared.target.float()
    if weights.ndim and len(weights) != target.shape[-1]:
        return False
    expected = formula(compared.prediction.detach().float(), target, pos_weight=weights)
    return torch.allclose(expected, compared.call.outputs[0].detach().float(), rtol=0.01)


def _of_zeros_and_ones(target: Tensor) -> bool:
    return bool(((target == 0) | (target == 1)).all()) and len(torch.unique(target)) == 2


def _broadcast_size(left: tuple[int, ...], right: tuple[int, ...]) -> int | None:
    size = 1
    for a, b in zip(((1,) * 8 + left)[-8:], ((1,) * 8 + right)[-8:], strict=True):
        if a != b and 1 not in (a, b):
            return None
        size *= max(a, b)
    return size


LOSS_FAULTS = (
    Fault(
        "more classes than outputs",
        labels_beyond_one_unit,
        "The labels go up to {highest}, and one unit can tell 0 from 1",
        "give the network {classes} outputs and use cross_entropy",
        "F.cross_entropy(logits, labels)",
        certain=True,
        mend="output",
    ),
    Fault(
        "targets out of the output's range",
        target_out_of_range,
        "The targets go from {least:.4g} to {most:.4g}, and {activation} returns {low:g} to {high:g}",
        "leave the last activation out, or bring the targets into its range",
        certain=True,
        mend="output",
    ),
    Fault(
        "shapes that broadcast",
        broadcast,
        "The prediction is {prediction} and the target {target}: each prediction is compared with every target, and "
        "only the mean can be learned",
        "give both the same shape",
        "F.mse_loss(prediction.squeeze(1), target)",
        certain=True,
        mend="output",
    ),
    Fault(
        "loss of the wrong sign",
        wrong_sign,
        "The loss falls as the prediction gets worse, for {share:.0%} of the samples",
        "put a minus before it",
        "loss = -log_likelihood.mean()",
        certain=True,
        mend="output",
    ),
    Fault(
        "classes compared as numbers",
        classes_as_numbers,
        "The targets are classes, and the loss is a {loss}, which hardly moves an output that is far off",
        "use a cross-entropy of logits",
        "F.cross_entropy(logits, labels)",
        mend="output",
    ),
    Fault(
        "labels that are not zeros and ones",
        labels_not_ones,
        "The targets are 0 and {high:.3g}, and the loss takes 1 for yes: the best answer is no everywhere",
        "let the larger be 1; masks that are zeros and ones are divided by 255 once too often",
        "(mask > 0).float()",
        certain=True,
        mend="output",
    ),
    Fault(
        "targets of another scale than the output",
        target_far_off,
        "The targets have a size of {size:.3g} (spread {spread:.3g}), and the network returns {predicted:.2g} at first",
        "standardise them with the mean and standard deviation of the training set",
        "targets = (targets - mean) / std",
        mend="output",
    ),
    Fault(
        "a loss without a finite gradient",
        stumbles,
        "{what} is not finite, though all that the step is given is: `{function}` has no finite value or slope there",
        "keep what it is given away from there, by a small constant or a clamp",
        "(squares + 1e-8).sqrt(), total / count.clamp(min=1)",
        certain=True,
    ),
    Fault(
        "terms that outweigh the error",
        outweighed,
        "The error of the prediction is {share:.0%} of the loss; the rest, such as a penalty, does not depend on it",
        "give the other terms a smaller weight, and the error the sum or mean that they have",
        "loss = error + 1e-4 * penalty",
        mend="output",
    ),
    Fault(
        "rare classes that count still less",
        weighted_down,
        "What is rare makes up {share:.1%} of the labels of the batch, and the loss's weights leave {left:.1%} of it",
        "weight by one over the share, and not by the share",
        "pos_weight=(1 - shares) / shares",
        mend="balance",
    ),
    Fault(
        "a sum where a mean is meant",
        summed,
        "The loss is a sum over the {samples} samples of a batch: the step grows with the batch",
        "take the mean",
        "loss.mean()",
    ),
)
