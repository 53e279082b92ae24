"""Samples and targets in batches of any structure."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from unstall.data.samples import find_targets, samples_in


@dataclass
class Record:
    inputs: Tensor
    labels: Tensor | None


class Graphs:
    """Rows are nodes."""

    def __init__(self, count: int) -> None:
        self.nodes, self.num_graphs = torch.zeros(3 * count, 2), count


@pytest.mark.parametrize(
    ("batch", "found"),
    [
        ((torch.zeros(3, 2), torch.ones(3)), True),
        ({"input_ids": torch.zeros(3), "labels": torch.ones(3)}, True),
        (torch.zeros(3), False),
        ((torch.zeros(3), torch.zeros(3), torch.zeros(3)), False),
    ],
)
def test_targets_are_found_where_they_usually_are(batch: object, found: bool) -> None:
    targets = find_targets(batch)
    assert (targets is not None and torch.equal(targets, torch.ones(3))) == found


@pytest.mark.parametrize(
    ("batch", "samples"),
    [
        (torch.zeros(3, 2), 3),
        ((torch.zeros(3, 2), torch.zeros(3)), 3),
        ({"image": torch.zeros(5, 2)}, 5),
        ([{"image": torch.zeros(5, 2)}], 5),
        (torch.tensor(1.0), 1),
        ("text", 1),
        ((Graphs(4), None, torch.zeros(4)), 4),
        ((object(), torch.zeros(7)), 7),
        (pack_sequence([torch.zeros(3), torch.zeros(2)]), 2),
        (Record(torch.zeros(6, 2), None), 6),
    ],
)
def test_samples_are_counted_in_any_structure(batch: object, samples: int) -> None:
    assert samples_in(batch) == samples
