"""`unstall sweep`: what is wrong is said before the first trial; every trial is a run, and the best one an overlay."""

import importlib.util
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint

from unstall.cli.entry import main
from unstall.cli.sweeping import Options, common_settings, files_and_options, goal, words_of_fit
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


def test_what_all_trials_have_in_common_is_told_from_what_was_typed(place: Path) -> None:
    common = {"space": {"model.lr": [1]}, "model": {"class_path": "mine.Classifier", "init_args": {"hidden": 4}}}
    callbacks = [{"class_path": "a.Callback", "init_args": {"name": "of more than 255 characters: " + 255 * "x"}}]
    (place / "space.yaml").write_text(yaml.safe_dump({**common, "trainer": {"callbacks+": callbacks}}))
    for flag in (["-c", "space.yaml"], ["--config=space.yaml"]):
        words = words_of_fit(["sweep", "-c", "mine.yaml", *flag, "--model.lr", "2"])
        assert common_settings(words) == {"model", "model.hidden", "trainer.callbacks"}
        assert files_and_options(words) == ["fit", "-c", "mine.yaml", "--model.lr", "2"]


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
    best = {"trainer": {"max_epochs": 1}, "model": {"init_args": {"lr": 0.03}}, "experiment": "searched"}
    assert yaml.safe_load((folder / "sweep/best.yaml").read_text()) == best
    out, err = capfd.readouterr()
    assert out.splitlines()[-1] == str(folder.relative_to(place) / "sweep")
    assert "2/2" in err
    main(command)  # nothing is left to do
    assert sorted(folder.glob("2*")) == runs
    with pytest.raises(SystemExit):
        main([*command, "--model.hidden=8"])
    assert "model.init_args.hidden was 16 and is 8" in capfd.readouterr().err


NETWORKS = """
import torch
from mine import Classifier


class Wide(torch.nn.Sequential):
    def __init__(self, width: int = 8) -> None:
        super().__init__(torch.nn.Linear(2, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))


class Straight(torch.nn.Linear):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(2, 2)
        self.weight.data *= scale


class Given(Classifier):
    def __init__(self, network: torch.nn.Module, lr: float = 0.03) -> None:
        super().__init__(lr=lr)
        self.network = network
"""
GIVEN = """
experiment: networks
method: grid
metric: val/loss
space:
  model.network: [swept_networks.Straight, {class_path: swept_networks.Wide, init_args: {width: 12}}]
  model.lr: [1.0e-6, 0.03]
model: {class_path: swept_networks.Given, init_args: {network: {class_path: swept_networks.Straight}}}
trainer: {max_epochs: 3}
"""


@pytest.mark.slow
@needs_optuna
def test_the_command_at_the_end_makes_the_best_trial_again(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (place / "swept_networks.py").write_text(NETWORKS)
    (place / "given.yaml").write_text(GIVEN)
    main(["sweep", "-c", "mine.yaml", "--config=given.yaml", "--workers=1", "--model.lr=9", "--data.batch_size=10"])
    (line,) = [line for line in capfd.readouterr().out.splitlines() if line.startswith("to train with it:")]
    words = shlex.split(line)
    main(words[words.index("fit") :])
    *trials, again = sorted(place.glob("logs/networks/2*"))
    assert len(trials) == 4
    best, made = (yaml.safe_load((run / "config.yaml").read_text()) for run in (trials[-1], again))
    assert made["model"]["init_args"]["network"] == {"class_path": "swept_networks.Wide", "init_args": {"width": 12}}
    assert made["model"]["init_args"]["lr"] == 0.03
    assert made == best
    assert (again / "metrics.csv").read_text() == (trials[-1] / "metrics.csv").read_text()
