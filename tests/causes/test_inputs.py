"""The batch."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, Lit, X
from causes.modules import faults, findings

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
    ],
)
def test_shown(inputs: Tensor, labels: Tensor, fault: str) -> None:
    assert fault in faults(Lit(3, F.cross_entropy), inputs, labels)


def test_few_samples_and_samples_that_are_meant_to_be_alike_show_nothing() -> None:
    assert faults(Lit(3, F.cross_entropy), torch.zeros(1, 4), LABELS[:1]) == set()
    assert faults(Lit(3, F.cross_entropy), torch.zeros(2, 4), LABELS[:2]) == set()
    prices, shares = X[:1].expand(32, 4), torch.full((32, 3), 1 / 3)
    assert "inputs that are all alike" not in faults(Lit(3, F.mse_loss), prices, shares)


class Wide(Lit):
    def __init__(self) -> None:
        super().__init__(3, F.cross_entropy)
        self.net[0] = nn.Linear(40, 8)


class Masked(Wide):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0].nan_to_num(neginf=0.0)[:, :40] / 32), batch[1])


def test_labels_that_contradict_each_other() -> None:
    images = torch.randn(16, 40, generator=torch.Generator().manual_seed(1))
    (found,) = findings(Wide(), torch.cat([images, images]), LABELS)
    assert found.fault == "labels that contradict each other"
    assert found.sentence.startswith("32 of 32 samples")
    assert faults(Wide(), torch.cat([images, images]), torch.cat([LABELS[:16], LABELS[:16]])) == set()
    assert faults(Wide(), torch.cat([images[:6], torch.randn(26, 40)]), LABELS) == set()
    masks = torch.cat([images, images[:, :20]], 1).masked_fill(torch.rand(16, 60) < 0.1, -torch.inf)
    assert faults(Masked(), masks.repeat(2, 1) + torch.arange(32)[:, None], LABELS) == set()
    flags = (X > 0).float()
    assert faults(Lit(3, F.cross_entropy), flags, LABELS) == set()  # few flags: noise in the labels is usual


def test_a_scale_within_the_module_counts() -> None:
    class Scaling(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0] / 100), batch[1])

    assert faults(Scaling(3, F.cross_entropy), 100 * X, LABELS) == set()


def test_usual_inputs_show_nothing() -> None:
    assert faults(Lit(3, F.cross_entropy), X, LABELS) == set()
    assert faults(Lit(3, F.cross_entropy), X.sigmoid(), LABELS) == set()


def test_sentences_say_how_much() -> None:
    (found,) = findings(Lit(3, F.cross_entropy), BROKEN, LABELS)
    assert found.sentence == "1 of 128 numbers in the inputs are not finite"
    assert findings(Lit(3, F.cross_entropy), torch.zeros_like(X), LABELS)[0].sentence.startswith("Every input is 0:")


def test_numbers_that_are_filled_or_left_out_before_they_count() -> None:
    class Filling(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            known = ~batch[1].isnan()
            return F.mse_loss(self.net(batch[0].nan_to_num())[known], batch[1][known])

    assert faults(Filling(4, F.mse_loss), BROKEN, BROKEN) == set()
    (found,) = findings(Lit(4, F.mse_loss), X, BROKEN)
    assert found.sentence == "1 of 128 numbers in the targets are not finite"


def test_a_cast_to_integers_and_its_repaired_twin() -> None:
    class Images(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0].float()), batch[1])

    images = X.sigmoid()
    assert faults(Images(3, F.cross_entropy), images.int(), LABELS) == {"constant inputs", "inputs that are all alike"}
    assert faults(Images(3, F.cross_entropy), images, LABELS) == set()


def test_constant_numbers_beside_something_else_are_no_constant_inputs() -> None:
    class Conditioned(Lit):
        def __init__(self) -> None:
            super().__init__(3, F.cross_entropy)
            self.embed = nn.Embedding(5, 8)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            hidden = self.net[:2](batch[0]) + self.embed(batch[2])
            return F.cross_entropy(self.net[2](hidden), batch[1])

    class Weighted(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]) * batch[2], batch[1])

    ones = torch.ones_like(X)
    assert faults(Conditioned(), ones, LABELS, torch.arange(32) % 5) == set()
    assert faults(Weighted(3, F.cross_entropy), ones, LABELS, X[:, :1]) == set()


def test_far_from_unit_scale_in_images_and_tokens_are_not_looked_at() -> None:
    class Convolution(Lit):
        def __init__(self) -> None:
            super().__init__(3, F.cross_entropy)
            self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))

    class Words(Lit):
        def __init__(self) -> None:
            super().__init__(3, F.cross_entropy)
            self.net = nn.Sequential(nn.Embedding(1000, 4), nn.Flatten(), nn.Linear(16, 3))

    images = torch.randint(0, 256, (32, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    assert faults(Convolution(), images, LABELS) == {"inputs far from unit scale"}
    assert faults(Convolution(), images / 255, LABELS) == set()
    assert faults(Words(), torch.arange(128).reshape(32, 4) * 7, LABELS) == set()
