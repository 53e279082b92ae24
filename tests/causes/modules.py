"""Which faults show in a module, with their sentences put together."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from audit.modules import Lit
from unstall.audit import observe
from unstall.causes import FAULTS, Finding, find

Loss = Callable[[Tensor, Tensor], Tensor]


def findings(module: Any, *batch: Any, optimizers: Any = ()) -> list[Finding]:
    """What is found in a step on a batch of these parts; no check fails, and no sentence lacks a value."""
    seen = observe(module, list(batch), optimizers)
    for fault in FAULTS:
        fault.check(seen)
    found = find(FAULTS, seen)
    for finding in found:
        assert finding.where
        assert finding.change
        assert "{" not in finding.where.replace(finding.site.code if finding.site else "", "")
    return found


def faults(module: Any, *batch: Any, optimizers: Any = ()) -> set[str]:
    """The names of what is found."""
    return {str(finding.fault) for finding in findings(module, *batch, optimizers=optimizers)}


class OfPlaces(Lit):
    """The same for each place of a sequence `(batch, time, features)`: its outputs are `(batch, time, outputs)`."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(self.net(batch[0][..., :4]), batch[1])


def of(outputs: int, loss: Loss, *batch: Tensor) -> set[str]:
    """The names of what is found in the smallest module with such a loss."""
    return faults(Lit(outputs, loss), *batch)
