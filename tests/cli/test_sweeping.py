"""`unstall sweep`: what is wrong is said before the first trial; every trial is a run, and the best one an overlay."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

from unstall.cli.entry import main
from unstall.cli.sweeping import Options, goal, words_of_fit
from unstall.errors import UsageError

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")
SPACE = """
experiment: searched
method: grid
metric: val/accuracy
space:
  model.lr: [0.03, 1.0e-7]
trainer: {max_epochs: 1}
"""


@pytest.fixture
def command(place: Path) -> list[str]:
    (place / "space.yaml").write_text(SPACE)
    return ["sweep", "-c", "mine.yaml", "-c", "space.yaml", "--workers=1"]


def options(**given: Any) -> Options:
    left = {"space": {}, "method": "tpe", "trials": None, "metric": None, "mode": None, "prune": "none"}
    return Options(**{**left, "workers": None, "storage": None, **given})


def test_a_trial_begins_with_the_words_that_are_not_the_sweeps_own(command: list[str]) -> None:
    fit, flag, first, other, second = words_of_fit([*command, "--method", "grid"])
    assert [fit, flag, first, other] == ["fit", "-c", "mine.yaml", "-c"]
    assert yaml.safe_load(second) == {"experiment": "searched", "trainer": {"max_epochs": 1}}


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ("val/f1", True)),
        ({"mode": "min"}, ("val/f1", False)),
        ({"metric": "val/f1"}, ("val/f1", True)),
        ({"metric": "valid_loss"}, ("valid_loss", False)),
        ({"metric": "val_acc"}, ("val_acc", True)),
    ],
)
def test_the_goal_is_what_was_asked_for_or_what_the_checkpoints_keep(
    given: dict[str, str], found: tuple[str, bool]
) -> None:
    trainer: Any = SimpleNamespace(callbacks=[pl.Callback(), ModelCheckpoint(monitor="val/f1", mode="max")])
    assert goal(options(**given), trainer) == found


@pytest.mark.parametrize(
    ("given", "said"),
    [({}, "metric: no checkpoint"), ({"metric": "val/f1"}, "mode: is val/f1"), ({"mode": "best"}, "mode=best")],
)
def test_a_goal_that_nothing_says_is_asked_for(given: dict[str, str], said: str) -> None:
    trainer: Any = SimpleNamespace(callbacks=[])
    with pytest.raises(UsageError, match=said):
        goal(options(**given), trainer)


@needs_optuna
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("space: {model.nonsense: [1]}", "model.nonsense: no such setting"),
        ("space: {model.hidden: [8, many]}", "model.hidden=many: expected int"),
        ("space: {model.lr: []}", "space.model.lr=[]: is empty"),
        ("method: best", "method=best: is not known"),
        ("prune: early", "prune=early: is not known"),
        ("trials: 3", "trials=3: a grid"),
        ("workers: 0", "workers=0: give at least 1"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_trial(
    text: str, said: str, command: list[str], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (place / "space.yaml").write_text(yaml.safe_dump(yaml.safe_load(SPACE) | yaml.safe_load(text)))
    with pytest.raises(SystemExit) as ended:
        main(command[:-1])
    assert ended.value.code == 2
    err = capfd.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not list(place.glob("logs/searched/*/study.db"))
    assert not list(place.glob("logs/searched/2*"))


@pytest.mark.slow
@needs_optuna
def test_every_trial_is_a_run_and_the_best_is_an_overlay(
    command: list[str], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    main(command)
    folder = place / "logs" / "searched"
    runs = sorted(folder.glob("2*"))
    assert len(runs) == 2
    for run in runs:
        assert {"config.yaml", "metrics.csv", "hparams.yaml", "diagnosis.json"} <= {file.name for file in run.iterdir()}
    assert yaml.safe_load((folder / "sweep/best.yaml").read_text()) == {"model": {"init_args": {"lr": 0.03}}}
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == str(folder.relative_to(place) / "sweep")
    assert "2/2" in err
    main(command)  # nothing is left to do
    assert sorted(folder.glob("2*")) == runs
    main(["fit", "-c", "mine.yaml", "-c", str(folder / "sweep/best.yaml"), "--trainer.max_epochs=1"])
    with pytest.raises(SystemExit):
        main([*command, "--model.hidden=8"])
    assert "model.init_args.hidden was 16 and is 8" in capfd.readouterr().err
