"""The loss of the best constant prediction, against plain formulas; and labels that come in order."""

import math
from statistics import fmean, pvariance

import pytest
import torch
from torch import nn

from unstall.watch.meter import Meter
from unstall.watch.targets import TargetCounts


def counted(targets: list[torch.Tensor], kind: str | None = None, weights: tuple[float, ...] = ()) -> TargetCounts:
    counts = TargetCounts()
    counts.kind, counts.class_weights = kind, weights
    for number, batch in enumerate(targets):
        counts.after_batch(batch)
        if number % 2:
            counts.flush()
    counts.flush()
    return counts


def entropy(*shares: float) -> float:
    return -sum(share / sum(shares) * math.log(share / sum(shares)) for share in shares)


def test_of_classes_it_is_the_entropy_with_their_weights() -> None:
    batches = [torch.tensor([0, 0, 1]), torch.tensor([0, 2, 2]), torch.tensor([0])]
    assert counted(batches).baseline == pytest.approx(entropy(4, 1, 2))
    assert counted(batches, "classes", (1.0, 4.0, 2.0)).baseline == pytest.approx(entropy(1, 1, 1))
    assert counted(batches, "classes", (1.0, 4.0, 2.0)).commonest is None
    assert counted(batches).commonest == 4 / 7
    zeros = [torch.zeros(3, dtype=torch.long)]
    assert counted(zeros, "classes").commonest == 1
    assert counted(zeros).commonest is None, "labels that nothing may look at"


def test_of_zeros_and_ones_it_is_the_mean_entropy_of_the_columns() -> None:
    ones = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    found = counted(list(ones.split(3)), "binary").baseline
    assert found == pytest.approx(fmean([entropy(1, 3), entropy(3, 1)]))


def test_of_numbers_it_is_the_mean_variance_of_the_columns_also_far_from_zero() -> None:
    numbers = 250_000 + torch.randn(100, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = counted(list(numbers.split(30)), "squares").baseline
    assert found == pytest.approx(fmean(pvariance(column.tolist()) for column in numbers.T), rel=1e-4)


def test_labels_in_order_differ_less_within_a_batch() -> None:
    labels = torch.arange(10).repeat(200)[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]
    drawn, in_order = counted(list(labels.split(32))), counted(list(labels.sort().values.split(32)))
    assert drawn.label_spread() == pytest.approx(1, abs=0.03)
    spread = in_order.label_spread()
    assert spread is not None
    assert spread < 0.2
    assert counted(list(labels[:96].split(32))).label_spread() is None  # too few batches to tell


NUMBERS = 3 + torch.randn(90, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
MANY = (NUMBERS > 3.2).double()
LABELS = (NUMBERS[:, 0] > 3).long() + (NUMBERS[:, 1] > 3).long()


@pytest.mark.parametrize(
    ("kind", "targets", "expected"),
    [
        ("classes", LABELS, entropy(*LABELS.bincount().tolist())),
        ("binary", MANY, fmean(entropy(ones, 90 - ones) for ones in MANY.sum(0).tolist())),
        ("squares", NUMBERS, fmean(pvariance(column.tolist()) for column in NUMBERS.T)),
    ],
)
def test_a_resumed_run_goes_on_counting(kind: str, targets: torch.Tensor, expected: float) -> None:
    first, second = (Meter(nn.Linear(2, 2)) for _ in range(2))
    for meter, batches in ((first, targets[:50].split(16)), (second, targets[50:].split(16))):
        if meter is second:
            second.load_state_dict(first.state_dict())
        meter.losses.targets.kind = kind
        for batch in batches:
            meter.after_batch(torch.tensor(1.0), batch, stepped=False)
    assert second.read().baseline == pytest.approx(expected)
