"""The batch: what the first layers are given, and the labels."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from unstall.audit import Observation
from unstall.causes.cause import Fault, Shown


def not_finite(seen: Observation) -> Shown:
    """Numbers that are not finite, in what the first layers are given or in the targets."""
    compared = seen.comparison
    named = [("inputs", tensor) for tensor in _floating(seen)]
    if compared is not None and compared.target.is_floating_point():
        named.append(("targets", compared.target))
    for name, tensor in named:
        count = int((~tensor.isfinite()).sum())
        if count:
            return {"site": None, "count": count, "what": name, "all": tensor.numel()}
    return None


MANY = 16
"""Numbers below which all of them may be the same by chance: a few flags of a few samples."""


def constant(seen: Observation) -> Shown:
    """All that the prediction can know of several samples is the same number."""
    tensors = [tensor for tensor in _known(seen) if tensor.numel()]
    if not tensors or seen.samples == 1 or any(bool((t != t.flatten()[0]).any()) for t in tensors):
        return None
    if max(tensor.numel() for tensor in tensors) < MANY:
        return None
    return {"site": None, "value": float(tensors[0].flatten()[0])}


def all_alike(seen: Observation) -> Shown:
    """All samples of the batch have the same inputs, and not the same targets."""
    tensors = _known(seen)
    if (seen.samples or 0) < 4 or not tensors or any(not t.ndim or len(t) != seen.samples for t in tensors):
        return None
    targets = seen.comparison.target if seen.comparison is not None else None
    if targets is not None and targets.ndim and len(targets) == seen.samples and _all_alike(targets):
        return None
    return {"site": None, "samples": seen.samples} if all(map(_all_alike, tensors)) else None


def contradicted(seen: Observation) -> Shown:
    """Half of the samples, and more, have the same inputs as another one of the batch, and another target."""
    compared, tensors = seen.comparison, _known(seen)
    samples = 0 if compared is None or not compared.target.ndim else len(compared.target)
    if compared is None or samples < 4 or not tensors or any(not t.ndim or len(t) != samples for t in tensors):
        return None
    rows = [tensor.detach().reshape(samples, -1).float().nan_to_num(0, 1, -1) for tensor in tensors]  # of masks
    if sum(row.shape[1] for row in rows) < MANY or all(map(_all_alike, rows)):
        return None
    # Equal rows have equal sums of multiples; of others hardly two have.
    sums = sum(row @ torch.linspace(1, 2, row.shape[1], device=row.device).sin() for row in rows)
    _, same = torch.unique(sums, return_inverse=True)
    targets, places = compared.target.reshape(samples, -1), torch.arange(samples, device=same.device)
    first = torch.full_like(places, samples).scatter_reduce(0, same, places, "amin")
    unlike = (targets != targets[first[same]]).any(1)
    count = int(torch.isin(same, same[unlike]).sum())
    return {"site": None, "count": count, "samples": samples} if 2 * count >= samples else None


def far_from_unit_scale(seen: Observation) -> Shown:
    """Inputs whose size is far from 1, where initial weights are made for 1."""
    for tensor in _floating(seen):
        size = float(tensor.square().mean().sqrt())
        if size > 10 or 0 < size < 0.02:
            return {"site": None, "size": size}
    return None


def features_of_different_scales(seen: Observation) -> Shown:
    """Columns of a table whose spreads differ by a factor of a thousand: the largest hides the others."""
    for tensor in _floating(seen):
        if tensor.ndim != 2 or len(tensor) < 8 or tensor.shape[1] < 2:
            continue
        spread = tensor.std(0)
        spread = spread[spread > 0]
        if len(spread) > 1 and float(spread.max() / spread.median()) > 1000:
            return {"site": None, "smallest": float(spread.min()), "largest": float(spread.max())}
    return None


def _known(seen: Observation) -> list[Tensor]:
    """Return what of the batch the prediction is made of; nothing if it is not known what that is."""
    known = [*seen.inputs, *seen.beside] if seen.comparison is not None else []
    return known if all(map(_is_dense, known)) else []


def _floating(seen: Observation) -> Iterator[Tensor]:
    return (tensor for tensor in seen.inputs if tensor.is_floating_point() and tensor.numel() and _is_dense(tensor))


def _all_alike(samples: Tensor) -> bool:
    return bool((samples == samples[:1]).all())


def _is_dense(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided


INPUT_FAULTS = (
    Fault(
        "numbers that are not finite",
        not_finite,
        "{count} of {all} numbers in the {what} are not finite",
        "fill or drop them before training",
        "torch.nan_to_num(inputs)",
        certain=True,
        mend="inputs",
    ),
    Fault(
        "constant inputs",
        constant,
        "Every input is {value:g}: there is nothing in them to learn from",
        "look at how they are loaded; a cast to integers turns all of 0 to 1 into 0",
        certain=True,
    ),
    Fault(
        "inputs that are all alike",
        all_alike,
        "All {samples} samples of the batch have the same inputs",
        "look at how they are loaded",
        certain=True,
    ),
    Fault(
        "labels that contradict each other",
        contradicted,
        "{count} of {samples} samples of the batch have the same inputs as another one, and another target",
        "look at how inputs and labels are paired, and at the paths that files are read from",
    ),
    Fault(
        "inputs far from unit scale",
        far_from_unit_scale,
        "The inputs have a size of {size:.3g} (root mean square), and initial weights are made for 1",
        "standardise them with the mean and standard deviation of the training set",
        "inputs = (inputs - mean) / std",
        mend="inputs",
    ),
    Fault(
        "features on scales of their own",
        features_of_different_scales,
        "The spreads of the inputs' features go from {smallest:.2g} to {largest:.2g}: the largest hides the others",
        "standardise each feature",
        "inputs = (inputs - mean) / std",
        mend="inputs",
    ),
)
