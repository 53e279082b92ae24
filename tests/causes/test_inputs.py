"""The batch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from audit.modules import LABELS, Lit, X
from causes.modules import faults

BROKEN = X.clone()
BROKEN[3, 1] = torch.nan


@pytest.mark.parametrize(
    ("inputs", "labels", "fault"),
    [
        (BROKEN, LABELS, "numbers that are not finite"),
        (torch.zeros_like(X), LABELS, "constant inputs"),
        (X[:1].expand(32, 4), LABELS, "inputs that are all alike"),
        (100 * X, LABELS, "inputs far from unit scale"),
        (1e-3 * X, LABELS, "inputs far from unit scale"),
        (X * torch.tensor([1.0, 1.0, 1.0, 1e4]), LABELS, "features on scales of their own"),
        (X, 0 * LABELS, "a batch of one class"),
    ],
)
def test_shown(inputs: Tensor, labels: Tensor, fault: str) -> None:
    assert fault in faults(Lit(3, F.cross_entropy), inputs, labels)


def test_a_scale_within_the_module_counts() -> None:
    class Scaling(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0] / 100), batch[1])

    assert faults(Scaling(3, F.cross_entropy), 100 * X, LABELS) == set()


def test_usual_inputs_show_nothing() -> None:
    assert faults(Lit(3, F.cross_entropy), X, LABELS) == set()
    assert faults(Lit(3, F.cross_entropy), X.sigmoid(), LABELS) == set()
