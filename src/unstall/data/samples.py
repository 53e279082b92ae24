"""What is in a batch of any structure: how many samples, and which targets."""

from collections.abc import Mapping, Sized
from dataclasses import is_dataclass
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def samples_in(batch: Any) -> int:
    """Return how many samples a batch has: what it says itself, or the length of its first tensor; 1 if neither."""
    return _samples(batch) or 1


def _samples(batch: Any) -> int | None:
    if isinstance(batch, PackedSequence):
        return int(batch.batch_sizes[0])
    if isinstance(batch, Tensor):
        return len(batch) if batch.ndim else None
    if isinstance(batch, Mapping):
        return next(filter(None, map(_samples, batch.values())), None)
    if isinstance(batch, list | tuple):
        return next(filter(None, map(_samples, batch)), None)
    # Of a graph, rows are nodes or edges: its batch says how many graphs it has.
    said = (getattr(batch, name, None) for name in ("num_graphs", "batch_size"))
    count = next((count for count in said if isinstance(count, int) and count > 0), None)
    if count is None and is_dataclass(batch):
        return len(batch) if isinstance(batch, Sized) else _samples(vars(batch))
    return count


def find_targets(batch: object) -> Tensor | None:
    """Return the targets: the second of a pair, or a mapping's entry of a usual name; else None."""
    if isinstance(batch, Mapping):
        found = next((batch[name] for name in ("labels", "label", "targets", "target", "y") if name in batch), None)
    else:
        found = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
    return found if isinstance(found, Tensor) else None
