"""The picture has a map for each pair, a colour for each outcome and a mark for each cause."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from sweep.searcher import plan
from unstall.runs import png
from unstall.sweep.picture import draw, importances
from unstall.sweep.report import made
from unstall.sweep.study import Shared, open_study
from unstall.sweep.trial import Watch
from unstall.sweep.worker import work

pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def searched(folder: Path, space: Any, method: str) -> Shared:
    """The outcome is the first setting's number; what is over 3 is too high."""
    shared = open_study(plan(f"sqlite:///{folder / 'study.db'}", method, trials=8, space=space))
    shared.fill()

    def train(settings: dict[str, Any], watch: Watch) -> None:
        watch.best = float(settings["a.lr"])
        if watch.best > 3:
            watch.trial.set_user_attr("cause", "learning rate too high")

    work(shared, train)
    return shared


def test_lists_are_squares_with_the_outcome_as_colour_and_the_cause_as_mark(tmp_path: Path) -> None:
    shared = searched(tmp_path, [{"a.lr": [1, 2, 4], "b": ["x", "y"]}], "grid")
    figure = draw(shared)
    assert figure is not None
    axes = figure.axes[0]
    (image,) = axes.get_images()
    assert image.get_array().tolist() == [[1, 2, 4], [1, 2, 4]]  # type: ignore[union-attr]
    marked = {tuple(mark.get_offsets()[0]) for mark in axes.collections}  # type: ignore[index]
    assert marked == {(2.0, 0.0), (2.0, 1.0)}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["learning rate too high"]
    assert axes.get_xlabel().startswith("a.lr")
    assert png(figure).startswith(b"\x89PNG")
    shares = importances(shared, made(shared))
    assert shares["a.lr"] > 0.9


def test_parts_of_the_same_settings_share_a_map(tmp_path: Path) -> None:
    figure = draw(searched(tmp_path, [{"a.lr": [1, 2], "b": ["x"]}, {"b": ["y"], "a.lr": [2]}], "grid"))
    assert figure is not None
    (axes,) = [axes for axes in figure.axes if axes.get_xlabel()]
    (image,) = axes.get_images()
    assert image.get_array().filled(-1).tolist() == [[1, 2], [-1, 2]]  # type: ignore[union-attr]


def test_ranges_are_points_on_their_own_scale_and_every_pair_has_a_map(tmp_path: Path) -> None:
    space = {"a.lr": {"low": 0.1, "high": 10.0, "log": True}, "b": [1, 2], "c": {"low": 0, "high": 5}}
    figure = draw(searched(tmp_path, space, "random"))
    assert figure is not None
    maps = [axes for axes in figure.axes if axes.get_xlabel()]
    assert len(maps) == 3
    scales = {axes.get_xlabel().split()[0]: axes.get_xscale() for axes in maps}
    assert scales.get("a.lr", "log") == "log"
    assert all(axes.collections for axes in maps)
    assert png(figure).startswith(b"\x89PNG")


def test_one_setting_has_no_pair(tmp_path: Path) -> None:
    assert draw(searched(tmp_path, {"a.lr": [1, 2]}, "grid")) is None
