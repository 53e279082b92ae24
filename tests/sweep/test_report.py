"""What is said of a study: the best first, what became of the others, and an overlay that gives the same run."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sweep.searcher import plan
from unstall.sweep.report import best_settings, overlay, progress, ranked, table
from unstall.sweep.study import ERROR, Shared, open_study
from unstall.sweep.trial import Watch
from unstall.sweep.worker import work

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def searched(folder: Path) -> Shared:
    """A grid of four: the second fails, the third is given up."""
    shared = open_study(plan(f"sqlite:///{folder / 'study.db'}", "grid"))
    shared.fill()

    def train(settings: dict[str, Any], watch: Watch) -> None:
        number = watch.trial.number
        if number == 1:
            raise ValueError("too wide")
        if number == 2:
            watch.pruned = True
        watch.best = float(number + 1)

    work(shared, train)
    return shared


def shown_by(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(renderable)
    return console.file.getvalue()  # type: ignore[attr-defined]


@needs_optuna
def test_the_best_is_first_and_the_others_are_counted(tmp_path: Path) -> None:
    shared = searched(tmp_path)
    assert [trial.value for trial in ranked(shared)] == [1.0, 4.0]
    best = best_settings(shared)
    assert best is not None
    assert best[1] == {"a.lr": 0.001, "b": 1}
    text = shown_by(table(shared))
    assert "The best of 4 trials" in text
    assert "1 ended early" in text
    assert "1 failed, the first: ValueError: too wide" in " ".join(text.split())
    assert ERROR == "error"


@needs_optuna
def test_progress_ends_at_what_is_made_and_shows_the_best(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=150, force_terminal=True)
    with progress(searched(tmp_path), console):
        pass
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "val/loss 1.0000: lr 0.001, b 1" in text
    assert "4/4" in text


def test_an_overlay_goes_where_the_config_has_the_settings() -> None:
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.9}}
    config = {
        "model": {"class_path": "mine.Module", "init_args": {"optimizer": optimizer, "width": 8}},
        "data": {"class_path": "mine.Data", "init_args": {"batch_size": 32}},
        "trainer": {"max_epochs": 3},
    }
    assert overlay(
        config, ["model.optimizer.lr", "data.batch_size", "trainer.max_epochs", "model.depth", "data.a.b"]
    ) == {
        "model": {"init_args": {"optimizer": {"init_args": {"lr": 0.1}}}},
        "data": {"init_args": {"batch_size": 32}},
        "trainer": {"max_epochs": 3},
    }
    both = overlay(config, ["model.optimizer", "model.optimizer.lr"])
    assert both == {"model": {"init_args": {"optimizer": optimizer}}}
    assert overlay(config, ["model", "model.width"]) == {"model": config["model"]}
