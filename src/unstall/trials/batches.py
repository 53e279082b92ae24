"""Batches of any structure: a tensor, or tuples, lists and mappings of them, as a `DataLoader` yields them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


def samples_in(batch: Any) -> int:
    """Return the length of the first tensor; 1 if there is none."""
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else 1
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, list | tuple) else ()
    return next((samples_in(part) for part in parts), 1)


def find_targets(batch: object) -> Tensor | None:
    """Return the targets: the second of a pair, or a mapping's entry of a usual name; else None."""
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in ("labels", "label", "targets", "target", "y") if name in batch), None)
    else:
        found = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
    return found if isinstance(found, Tensor) else None


def take_samples(batches: Iterable[Any], count: int) -> list[Any]:
    """Return the first batches that have `count` samples together, or all if they are fewer."""
    taken, samples = [], 0
    for batch in batches:
        taken.append(batch)
        samples += samples_in(batch)
        if samples >= count:
            break
    return taken


def concatenated(batches: Sequence[Any]) -> Any:
    """Merge batches of one structure along their first dimension; what is no tensor is taken from the first."""
    first = batches[0]
    if len(batches) == 1:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(batches))
    if isinstance(first, Mapping):
        return {key: concatenated([batch[key] for batch in batches]) for key in first}
    if isinstance(first, list | tuple):
        parts = [concatenated(part) for part in zip(*batches, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    return first


def first_samples(batches: Sequence[Any], count: int) -> Any:
    """Return one batch of the first `count` samples."""
    return apply_to_collection(concatenated(batches[:count]), Tensor, lambda tensor: tensor[:count])


def select(batch: Any, indices: Tensor) -> Any:
    """Return the batch of these samples."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor[indices.to(tensor.device)])


def with_inputs(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Return the batch with its first floating-point tensor changed, which are the inputs by custom."""
    if isinstance(batch, Mapping):
        name = next((key for key, value in batch.items() if _is_float(value)), None)
        return batch if name is None else {**batch, name: change(batch[name])}
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


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
