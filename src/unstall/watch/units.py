"""Units that give the same output for every input, seen during ordinary forward passes."""

import torch
from torch import Tensor, nn

UNITS_WATCHED = 1000
"""Inputs after which a unit that never changed its output counts as dead."""


WATCH_EVERY, WATCH_AT, WATCH_BATCHES = 100, 10, 64
"""Units are watched over the first batch, and from batches 10, 110, 210, ... on until enough inputs, or 64 batches,
have passed: 1 % of the time of a step of a 784-512-10 network (`benchmarks/diagnosis.py overhead`)."""


class UnitWatch:
    """Counts, during ordinary forward passes in training mode, the units whose output never changes.

    A unit with a constant output passes nothing on: a ReLU at zero, a sigmoid or tanh saturated on one side, or any
    unit behind zero weights. Only modules of `torch.nn.modules.activation` can be watched, not functions.

    Args:
        module: The network; its activation modules get forward hooks while the watch is on.
    """

    KEPT = ("dead_at_start", "dead", "_watched")

    def __init__(self, module: nn.Module) -> None:
        self.activations = [
            part
            for part in module.modules()
            if type(part).__module__ == nn.ReLU.__module__
            and not any(True for _ in part.parameters())
            and "Softm" not in type(part).__name__
        ]
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._ranges: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        self.inputs = self.batches = self._watched = 0
        self.dead_at_start: Tensor | None = None
        self.dead: Tensor | None = None

    def start(self) -> None:
        """Forget what was seen and attach the hooks."""
        self.stop()
        self._ranges, self.inputs, self.batches = {}, 0, 0
        self._handles = [part.register_forward_hook(self._see) for part in self.activations]

    def stop(self) -> Tensor | None:
        """Detach the hooks; return the share of constant units in the worst layer, if two inputs or more were seen."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        shares = [(low == high).float().mean() for low, high in self._ranges.values()]
        return torch.stack(shares).max() if self.inputs > 1 else None

    def after_batch(self) -> None:
        """Keep the shares of the first batch and of the latest inputs, and detach and attach the hooks in time."""
        if self.dead_at_start is None:
            self.dead_at_start = self.stop() if self.inputs > 1 else None
        elif self.inputs >= UNITS_WATCHED or self.batches == WATCH_BATCHES:
            self.dead = self.stop()
            self.inputs = self.batches = 0
        if self._watched % WATCH_EVERY == WATCH_AT:
            self.start()
        self._watched += 1

    def _see(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if not module.training or not isinstance(output, Tensor) or output.ndim < 2:
            return
        # A unit is a channel of an image (batch, channel, height, width), else the last dimension.
        unit = 1 if output.ndim > 3 else output.ndim - 1
        others = [dimension for dimension in range(output.ndim) if dimension != unit]
        low, high = output.detach().amin(others), output.detach().amax(others)
        layer = id(module), len(low)  # one module may serve layers of several widths
        if layer in self._ranges:
            low, high = torch.minimum(low, self._ranges[layer][0]), torch.maximum(high, self._ranges[layer][1])
        self._ranges[layer] = low, high
        if module is self.activations[0]:
            self.inputs += len(output)
            self.batches += 1
