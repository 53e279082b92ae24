"""Batches as a fit would see them, from any collection of loaders."""

from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler

from unstall.errors import UsageError
from unstall.trials.loaders import already_set_up, endless, loaders_of

SHORT: Any = DataLoader(torch.arange(2), 1)  # type: ignore[arg-type]
LONG: Any = DataLoader(torch.arange(3), 1)  # type: ignore[arg-type]


class Data(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def setup(self, stage: str) -> None:
        self.calls.append(stage)

    def train_dataloader(self) -> Any:
        return SHORT

    def val_dataloader(self) -> Any:
        return [LONG, SHORT]


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (lambda: {"a": SHORT, "b": LONG}, [{"a": 0, "b": 0}, {"a": 1, "b": 1}, {"a": 0, "b": 2}, {"a": 0, "b": 0}]),
        (lambda: CombinedLoader([SHORT, LONG], "min_size"), [[0, 0], [1, 1], [0, 0], [1, 1]]),
        (lambda: CombinedLoader((SHORT, LONG), "max_size_cycle"), [(0, 0), (1, 1), (0, 2), (0, 0)]),
        (lambda: CombinedLoader(SHORT, "max_size_cycle"), [0, 1, 0, 1]),
        (lambda: SHORT, [0, 1, 0, 1]),
    ],
    ids=["mapping", "shortest", "longest", "one", "loader"],
)
def test_collections_are_unwrapped_as_by_lightning(make: Callable[[], Any], numbers: list[Any]) -> None:
    def first(batch: Any) -> Any:
        if isinstance(batch, dict):
            return {key: first(value) for key, value in batch.items()}
        return type(batch)(map(first, batch)) if isinstance(batch, list | tuple) else int(batch)

    assert [first(batch) for batch in islice(endless(make()), 4)] == numbers


def test_samplers_of_all_loaders_are_told_the_epoch() -> None:
    samplers = [DistributedSampler(range(4), 1, 0) for _ in range(2)]  # type: ignore[arg-type,var-annotated]
    loaders = [DataLoader(range(4), 2, sampler=sampler) for sampler in samplers]  # type: ignore[arg-type,var-annotated]
    assert len(list(islice(endless(loaders), 5))) == 5, "two an epoch"
    assert [sampler.epoch for sampler in samplers] == [2, 2]


def test_data_come_as_a_fit_takes_them() -> None:
    data = Data()
    assert loaders_of(data, None) == (SHORT, LONG)
    assert data.calls == ["fit"]
    assert loaders_of((SHORT, LONG), None) == (SHORT, LONG)
    assert loaders_of(SHORT, None) == (SHORT, None)
    for several in ({"a": LONG, "b": SHORT}, CombinedLoader([LONG, SHORT], "sequential")):
        assert loaders_of((SHORT, several), None) == (SHORT, LONG)
    assert loaders_of((SHORT, []), None) == (SHORT, None)
    again = already_set_up(data, LONG)
    again.setup("fit")
    assert again.train_dataloader() == LONG
    assert data.calls == ["fit"]


def test_no_batch_is_refused() -> None:
    with pytest.raises(UsageError, match="no batch"):
        next(endless([]))


def test_a_tuple_is_training_and_validation_data_or_training_data_alone() -> None:
    assert loaders_of((SHORT,), None) == (SHORT, None)  # type: ignore[arg-type]
    assert loaders_of((SHORT, LONG), None) == (SHORT, LONG)
    with pytest.raises(UsageError, match="data=a tuple of 3"):
        loaders_of((SHORT, LONG, LONG), None)  # type: ignore[arg-type]
