"""Batches of any structure: a tensor, or tuples, lists and mappings of them, as a `DataLoader` yields them."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from unstall.data import samples_in


def classes_in(targets: Tensor) -> Tensor | None:
    """Return the class of each sample, shape ``(samples,)``; None if the targets are none.

    Whole numbers, one for each sample; zeros and ones of any type, as a loss of two classes takes them; or a row for
    each sample with a single one in it.
    """
    flat = targets.squeeze(1) if targets.ndim == 2 and targets.shape[1] == 1 else targets
    if flat.ndim == 1:
        return flat if not flat.is_floating_point() or bool(((flat == 0) | (flat == 1)).all()) else None
    marked = flat.ndim == 2 and bool(((flat == 0) | (flat == 1)).all() and (flat.sum(1) == 1).all())
    return flat.argmax(1) if marked else None


def take_samples(batches: Iterable[Any], count: int) -> list[Any]:
    """Return the first batches that have `count` samples together, or all if they are fewer."""
    taken, samples = [], 0
    for batch in batches:
        taken.append(batch)
        samples += samples_in(batch)
        if samples >= count:
            break
    return taken


def can_be_one(batches: Sequence[Any]) -> bool:
    """Return whether batches can be merged: all their tensors have a row for each sample, alike but for their number.

    Not so where each batch is padded to its longest, and for graphs and packed sequences, whose numbers refer to one
    another.
    """
    return len(batches) == 1 or (_alike(batches) and all(len(set(_lengths(batch))) == 1 for batch in batches))


def _alike(batches: Sequence[Any]) -> bool:
    first = batches[0]
    if any(type(batch) is not type(first) for batch in batches) or isinstance(first, PackedSequence):
        return False
    if isinstance(first, Tensor):
        return first.ndim > 0 and all(batch.shape[1:] == first.shape[1:] for batch in batches)
    if isinstance(first, Mapping):
        same = all(batch.keys() == first.keys() for batch in batches)
        return same and all(_alike([batch[key] for batch in batches]) for key in first)
    if isinstance(first, list | tuple):
        return all(len(batch) == len(first) for batch in batches) and all(map(_alike, zip(*batches, strict=True)))
    return isinstance(first, str | bytes | int | float | bool | None)


def _lengths(batch: Any) -> Iterator[int]:
    if isinstance(batch, Tensor):
        yield len(batch) if batch.ndim else 0
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    for part in parts:
        yield from _lengths(part)


def same_structure(batch: Any, other: Any) -> bool:
    """Return whether a step that is made for one batch may find in the other what it looks for."""
    if isinstance(batch, Tensor):
        kinds = isinstance(other, Tensor) and batch.is_floating_point() == other.is_floating_point()
        return kinds and batch.ndim == other.ndim
    if isinstance(batch, Mapping):
        keys = isinstance(other, Mapping) and batch.keys() <= other.keys()
        return keys and all(same_structure(value, other[key]) for key, value in batch.items())
    if isinstance(batch, list | tuple):
        length = isinstance(other, list | tuple) and len(batch) == len(other)
        return length and all(map(same_structure, batch, other))
    return isinstance(other, type(batch))


def concatenated(batches: Sequence[Any]) -> Any:
    """Merge batches that can be one along their first dimension; what is no tensor is taken from the first."""
    first = batches[0]
    if len(batches) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(batches))
    if isinstance(first, Mapping):
        return _replaced(first, {key: concatenated([batch[key] for batch in batches]) for key in first})
    if isinstance(first, list | tuple):
        parts = [concatenated(part) for part in zip(*batches, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def first_samples(batches: Sequence[Any], count: int) -> Any:
    """Return one batch of the first `count` samples; the whole of the first batch where batches cannot be merged."""
    rows = len(set(_lengths(batches[0]))) == 1 and _alike(batches[:1])
    if not rows or not can_be_one(batches[:count]):
        return batches[0]
    return apply_to_collection(concatenated(batches[:count]), Tensor, lambda tensor: tensor[:count])


def select(batch: Any, indices: Tensor) -> Any:
    """Return the batch of these samples."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor[indices.to(tensor.device)])


def with_inputs(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the batch with its first floating-point tensor changed, which are the inputs by custom."""
    if isinstance(batch, Mapping):
        name = next((key for key, value in batch.items() if _is_float(value)), None)
        return batch if name is None else _replaced(batch, {name: change(batch[name])})
    if isinstance(batch, (tuple, list)) and batch and _is_float(batch[0]):
        parts = change(batch[0]), *batch[1:]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return change(batch) if _is_float(batch) else batch


def blank(batch: Any) -> Any:
    """Return the batch with inputs of zeros: all that can be learned from it is the best constant prediction."""
    return with_inputs(batch, torch.zeros_like)


def scaled(batch: Any, factor: float) -> Any:
    """Return the batch with its inputs multiplied."""
    return with_inputs(batch, lambda inputs: inputs * factor)


def inputs_of(batch: Any) -> Tensor | None:
    """Return what `with_inputs` would change; None if there is nothing of the kind."""
    seen: list[Tensor] = []
    with_inputs(batch, lambda inputs: seen.append(inputs) or inputs)  # type: ignore[func-returns-value]
    return seen[0] if seen else None


def scale_of_inputs(batch: Any) -> float | None:
    """Return the root mean square of the inputs."""
    inputs = inputs_of(batch)
    return None if inputs is None else float(inputs.square().mean().sqrt())


def _replaced(batch: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    """Return a mapping of the same class with other values: some are asked for attributes, too."""
    if not isinstance(batch, MutableMapping):
        return {**batch, **values}
    changed = copy.copy(batch)
    changed.update(values)
    return changed


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
