"""A space says what is wrong with it by name, and its words are those of the command line."""

from typing import Any

import pytest

from unstall.errors import UsageError
from unstall.sweep.space import Choices, Range, Space, words

ADAM = {"class_path": "torch.optim.Adam", "init_args": {"eps": 1e-7}}


@pytest.mark.parametrize(
    ("raw", "grid", "said"),
    [
        ({}, False, "holds no settings"),
        ({"a": []}, False, r"space.a=\[\]: is empty"),
        ({"a": {"low": 1, "high": 1}}, False, "space.a: is empty, low=1 is not below high=1"),
        ({"a": {"low": 2.0, "high": 1}}, False, "space.a: is empty"),
        ({"a": {"low": 0, "high": 1, "log": True}}, False, "space.a.low=0: a logarithmic range"),
        ({"a": {"low": "x", "high": 1}}, False, "space.a.low=x: is no number"),
        ({"a": {"low": 0, "high": float("inf")}}, False, "space.a.high=inf: is no number"),
        ({"a": {"low": 0, "hihg": 1}}, False, "space.a=.*: is no range"),
        ({"a": 3}, False, "space.a=3: is no range"),
        ({"a": {"low": 0, "high": 1, "log": "maybe"}}, False, "space.a.log=maybe"),
        ({"a": {"low": 0, "high": 1}}, True, "space.a: a grid has a number of points"),
        ({"a": {"low": 0, "high": 1, "points": 1}}, True, "space.a.points=1"),
        ([{"a": [1]}, {"b": [1]}], False, "only a grid"),
        ({"logs_dir": ["x", "y"]}, False, "space.logs_dir: is where the runs"),
    ],
)
def test_what_cannot_be_searched_is_said_by_name(raw: Any, grid: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Space(raw, grid)


def test_a_grid_has_every_combination_once() -> None:
    space = Space([{"a": [1, 2], "b": ["x", "y"]}, {"a": [2, 3]}, {"a": [1], "b": ["x"]}], grid=True)
    assert space.grid() == [
        *({"a": a, "b": b} for a in (1, 2) for b in "xy"),
        {"a": 2},
        {"a": 3},
    ]


def test_points_of_a_range_are_evenly_spaced() -> None:
    assert Range(1e-6, 1.0, log=True, points=4).grid() == [1e-6, 1e-4, 1e-2, 1.0]
    assert Range(0.0, 1.0, points=3).grid() == [0.0, 0.5, 1.0]
    assert Range(1, 8, log=True, points=4).grid() == [1, 2, 4, 8]
    assert Range(1, 3, points=9).grid() == [1, 2, 3]


def test_a_class_is_called_by_its_name_and_arguments() -> None:
    labels = list(Choices.of(["torch.optim.SGD", ADAM, None, True, 0.1, [784, 10], "he_normal"]).values)
    assert labels == ["SGD", "Adam(eps=1e-07)", None, True, 0.1, "[784, 10]", "he_normal"]


def test_values_of_one_name_keep_both() -> None:
    labels = Choices.of(["torch.optim.Adam", "mine.Adam", ADAM]).values
    assert list(labels.values()) == ["torch.optim.Adam", "mine.Adam", ADAM]


def test_a_class_comes_before_its_arguments() -> None:
    assert words({"model.optimizer.lr": 0.1, "model.optimizer": ADAM, "b": None, "c": "SGD"}) == [
        "--b=null",
        "--c=SGD",
        '--model.optimizer={"class_path": "torch.optim.Adam", "init_args": {"eps": 1e-07}}',
        "--model.optimizer.lr=0.1",
    ]


def test_every_value_is_probed_and_names_may_have_their_init_args() -> None:
    space = Space({"model.init_args.lr": {"low": 1, "high": 5}, "model.width": [8, 16, 32]})
    probed = [settings for _, settings in space.probes()]
    assert {settings["model.lr"] for settings in probed} == {1, 5}
    assert {settings["model.width"] for settings in probed} == {8, 16, 32}
