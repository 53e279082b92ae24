"""Who learns."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, Lit, X
from causes.modules import faults


class Listed(Lit):
    """Layers in a plain list."""

    def __init__(self) -> None:
        super().__init__(3, F.cross_entropy)
        self.more = [nn.Linear(3, 3)]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.more[0](self.net(batch[0])), batch[1])


class Mixed(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0].reshape(4, len(batch[0])).T), batch[1])


def constant(module: Lit) -> Lit:
    for weight in module.parameters():
        nn.init.constant_(weight, 0.1)
    return module


def test_each_shows() -> None:
    plain = Lit(3, F.cross_entropy)
    head = [torch.optim.SGD(plain.net[2].parameters(), lr=1)]
    assert faults(plain, X, LABELS, optimizers=head) == {"parameters that no optimizer holds"}
    others = [torch.optim.SGD(Lit(3, F.cross_entropy).parameters(), lr=1)]
    assert "an optimizer of other parameters" in faults(plain, X, LABELS, optimizers=others)
    assert faults(Listed(), X, LABELS) == {"weights that the module does not know of"}
    assert "a graph that is cut" in faults(Lit(3, lambda out, y: F.cross_entropy(out.detach(), y)), X, LABELS)
    assert "no gradient anywhere" in faults(Lit(3, lambda out, y: F.cross_entropy(0 * out, y)), X, LABELS)
    assert "units that are all the same" in faults(constant(Lit(3, F.cross_entropy)), X, LABELS)
    assert faults(Mixed(3, F.cross_entropy), X, LABELS) == {"samples that are mixed"}
    dropping = Lit(3, F.cross_entropy)
    dropping.net.insert(2, nn.Dropout(0.9))
    assert faults(dropping, X, LABELS) == {"dropout too high"}


def test_what_is_meant_does_not() -> None:
    plain = Lit(3, F.cross_entropy)
    assert faults(plain, X, LABELS, optimizers=[torch.optim.SGD(plain.parameters(), lr=1)]) == set()
    plain.net[0].requires_grad_(False)  # a frozen backbone, whose head is trained
    assert faults(plain, X, LABELS, optimizers=[torch.optim.SGD(plain.net[2].parameters(), lr=1)]) == set()
    zero_head = Lit(3, F.cross_entropy)
    nn.init.zeros_(zero_head.net[2].weight)  # a layer that starts at zero, as in residual blocks
    assert faults(zero_head, X, LABELS) == set()
    normalised = Lit(3, F.cross_entropy)
    normalised.net.insert(1, nn.BatchNorm1d(8))
    assert faults(normalised, X, LABELS) == set()
