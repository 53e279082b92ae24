from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence

from unstall.data import find_targets
from unstall.trials.batches import (
    blank,
    can_be_one,
    classes_in,
    concatenated,
    first_samples,
    same_structure,
    scale_of_inputs,
    scaled,
    take_samples,
)


class Pair(NamedTuple):
    inputs: Tensor
    labels: Tensor


class Graphs:
    """Rows are nodes."""

    def __init__(self, count: int) -> None:
        self.nodes, self.num_graphs = torch.zeros(3 * count, 2), count


def test_batches_are_taken_until_there_are_enough_samples() -> None:
    loader = [(torch.zeros(10, 2), torch.zeros(10))] * 9
    assert len(take_samples(loader, 25)) == 3
    assert len(take_samples(loader, 1000)) == 9
    assert take_samples([], 25) == []


def test_first_samples_come_in_order_and_keep_the_structure() -> None:
    batches = [Pair(torch.full((3, 2), float(i)), torch.full((3,), i)) for i in range(4)]
    first = first_samples(batches, 7)
    assert isinstance(first, Pair)
    assert first.labels.tolist() == [0, 0, 0, 1, 1, 1, 2]
    assert first.inputs.shape == (7, 2)


@pytest.mark.parametrize(
    ("batches", "mergeable"),
    [
        ([(torch.zeros(3, 2), torch.zeros(3)), (torch.zeros(2, 2), torch.zeros(2))], True),
        ([{"x": torch.zeros(3, 2), "name": "a"}, {"x": torch.zeros(2, 2), "name": "b"}], True),
        ([(torch.zeros(3, 5), torch.zeros(3)), (torch.zeros(3, 4), torch.zeros(3))], False),
        ([(torch.zeros(5, 2), torch.zeros(3)), (torch.zeros(5, 2), torch.zeros(3))], False),
        ([(torch.zeros(3, 2), torch.tensor(0.5)), (torch.zeros(3, 2), torch.tensor(0.5))], False),
        ([{"x": torch.zeros(3)}, {"y": torch.zeros(3)}], False),
        ([Graphs(3), Graphs(3)], False),
        ([pack_sequence([torch.zeros(3)]), pack_sequence([torch.zeros(3)])], False),
        ([Graphs(3)], True),
    ],
)
def test_batches_are_merged_only_if_each_row_is_a_sample(batches: list[Any], mergeable: bool) -> None:
    assert can_be_one(batches) == mergeable
    if not mergeable:
        assert first_samples(batches, 2) is batches[0]


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ((torch.zeros(9, 2), {"y": torch.zeros(9).long(), "more": 1}), True),
        ((torch.zeros(9, 2), {"x": torch.zeros(9).long()}), False),
        ((torch.zeros(9, 2), {"y": torch.zeros(9)}), False),
        ((torch.zeros(9, 2, 1), {"y": torch.zeros(9).long()}), False),
        ((torch.zeros(9, 2),), False),
        (torch.zeros(9, 2), False),
    ],
)
def test_a_step_finds_in_another_batch_what_it_looks_for(other: Any, same: bool) -> None:
    assert same_structure([torch.zeros(3, 2), {"y": torch.zeros(3).long()}], other) == same


def test_merged_batches_keep_the_structure_and_what_is_no_tensor() -> None:
    merged = concatenated([{"inputs": torch.ones(2, 1), "name": "a"}, {"inputs": torch.zeros(1, 1), "name": "b"}])
    assert merged["inputs"].flatten().tolist() == [1, 1, 0]
    assert merged["name"] == "a"
    ordered = concatenated([OrderedDict(inputs=torch.ones(1))] * 2)
    assert isinstance(ordered, OrderedDict)
    assert isinstance(blank(ordered), OrderedDict)
    assert ordered["inputs"].tolist() == [1, 1], "and is left alone"


@pytest.mark.parametrize(
    "batch",
    [
        Pair(torch.full((2, 3), 4.0), torch.tensor([1, 2])),
        (torch.full((2, 3), 4.0), torch.tensor([1, 2])),
        {"labels": torch.tensor([1, 2]), "inputs": torch.full((2, 3), 4.0)},
    ],
)
def test_only_the_inputs_are_scaled_or_blanked(batch: object) -> None:
    assert scale_of_inputs(batch) == 4
    assert scale_of_inputs(scaled(batch, 0.5)) == 2
    assert scale_of_inputs(blank(batch)) == 0
    assert type(scaled(batch, 0.5)) is type(batch)
    if not isinstance(batch, dict):
        targets = find_targets(scaled(batch, 0.5))
        assert targets is not None
        assert targets.tolist() == [1, 2]
    assert scale_of_inputs((torch.tensor([1, 2]),)) is None


def test_classes_are_whole_numbers_or_zeros_and_ones() -> None:
    assert classes_in(torch.tensor([2, 0, 1])).tolist() == [2, 0, 1]  # type: ignore[union-attr]
    assert classes_in(torch.tensor([[1.0], [0.0]])).tolist() == [1, 0]  # type: ignore[union-attr]
    assert classes_in(torch.tensor([[0, 0, 1], [1, 0, 0]])).tolist() == [2, 0]  # type: ignore[union-attr]
    for numbers in (torch.tensor([0.0, 2.0]), torch.tensor([[1, 1], [0, 1]]), torch.zeros(2, 3, 3), torch.tensor(1)):
        assert classes_in(numbers) is None
