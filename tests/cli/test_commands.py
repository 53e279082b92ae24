"""Every command on somebody's own module and data, from the base config of this package alone."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from unstall.cli.commands import CLI
from unstall.cli.entry import main

WHAT_A_RUN_KEEPS = {"config.yaml", "hparams.yaml", "metrics.csv", "diagnosis.json", "checkpoints"}


def last_line(capsys: pytest.CaptureFixture[str]) -> Path:
    return Path(capsys.readouterr().out.splitlines()[-1])


def test_fit_test_and_go_on(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=3"])
    run = last_line(capsys)
    assert run.parent == Path("logs/mine")
    assert {file.name for file in run.iterdir() if "events" not in file.name} == WHAT_A_RUN_KEEPS
    assert {file.name for file in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    main(["test", f"--ckpt_path={run}"])
    assert last_line(capsys) == run
    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=4"])
    assert last_line(capsys) == run
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 4


def test_find_a_rate_and_train_with_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lr_find", "-c", "mine.yaml", "--steps=140", "--fit=true"])
    run = last_line(capsys)
    rate = yaml.safe_load((run / "lr_find.yaml").read_text())["model"]["init_args"]["lr"]
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["lr"] == rate
    assert yaml.safe_load((run / "hparams.yaml").read_text())["learning_rate"] == rate


def test_a_stall_is_diagnosed_and_its_fix_is_a_config(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "-c", "mine.yaml", "--model.lr=1e-7"])
    run = last_line(capsys)
    main(["diagnose", str(run)])
    out = capsys.readouterr().out
    assert Path(out.splitlines()[-1]) == run
    assert json.loads((run / "diagnosis.json").read_text())["cause"] == "learning rate too low"
    command = next(line for line in out.splitlines() if " fit -c " in line)
    words = command.split()
    main(words[words.index("fit") :])
    assert yaml.safe_load((last_line(capsys) / "hparams.yaml").read_text())["learning_rate"] > 1e-4


RATES = """
import mine
import torch


class HardCoded(mine.Classifier):
    def __init__(self) -> None:
        super().__init__()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-7)


class Hundredth(mine.Classifier):
    def __init__(self, base_lr: float = 1e-5) -> None:
        super().__init__()
        self.base_lr = base_lr

    def configure_optimizers(self):
        head = {"params": self.network[2].parameters(), "lr": self.base_lr}
        return torch.optim.Adam([{"params": self.network[0].parameters()}, head], lr=self.base_lr / 100)
"""


def rates_of(run: Path) -> tuple[float, float]:
    """The rate in a run's table of hyper-parameters, and in its checkpoint."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]
    return yaml.safe_load((run / "hparams.yaml").read_text())["learning_rate"], state["param_groups"][0]["lr"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HardCoded", "Hundredth"])
def test_what_is_printed_trains_at_the_rate_that_was_found(
    name: str, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "rates.py").write_text(RATES)
    monkeypatch.delitem(sys.modules, "rates", raising=False)
    model = ["-c", "mine.yaml", f"--model=rates.{name}"]

    def take(printed: str) -> Path:
        words = next(line for line in printed.splitlines() if " fit -" in line).split()
        main(words[words.index("fit") :])
        return last_line(capsys)

    main(["lr_find", *model, "--steps=140"])
    printed = capsys.readouterr().out
    found = json.loads((Path(printed.splitlines()[-1]) / "lr_find.json").read_text())["learning_rate"]
    assert rates_of(take(printed)) == (pytest.approx(found), pytest.approx(found))

    main(["fit", *model])
    run = last_line(capsys)
    main(["diagnose", str(run)])
    printed = capsys.readouterr().out
    assert json.loads((run / "diagnosis.json").read_text())["cause"] == "learning rate too low"
    fixed = take(printed)
    raced = float(re.findall(r"learning rate (\S+)  .*<- fix", printed)[0])
    assert rates_of(fixed) == (pytest.approx(raced), pytest.approx(raced))

    main(["diagnose", str(fixed)])  # its own rate is the one that it was given
    assert json.loads((fixed / "diagnosis.json").read_text())["cause"] != "learning rate too low"


def test_without_a_model_the_setting_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["fit"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unstall: error: ")
    assert "model" in line
    assert not (place / "logs").exists()


def test_commands_are_lightnings_and_the_trainers() -> None:
    assert set(CLI.subcommands()) == {"fit", "validate", "test", "predict", "lr_find", "diagnose", "sweep"}


AVERAGED = """
trainer:
  callbacks+:
    - class_path: pytorch_lightning.callbacks.StochasticWeightAveraging
      init_args: {swa_lrs: 0.01, swa_epoch_start: 1}
"""
KEPT = """
trainer:
  callbacks+:
    - class_path: pytorch_lightning.callbacks.ModelCheckpoint
      init_args: {every_n_epochs: 1, save_top_k: -1, filename: "{epoch}", save_on_train_epoch_end: true}
"""


@pytest.mark.parametrize(("more", "epoch"), [(AVERAGED, 2), ("trainer: {check_val_every_n_epoch: 2}", 1)])
def test_the_config_that_was_saved_loads_and_the_run_goes_on_to_the_same_weights(
    more: str, epoch: int, place: Path
) -> None:
    (place / "more.yaml").write_text(more)
    (place / "kept.yaml").write_text(KEPT)
    main(["fit", "-c", "mine.yaml", "-c", "more.yaml", "-c", "kept.yaml", "--trainer.max_epochs=4"])
    (run,) = (place / "logs" / "mine").iterdir()
    whole = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    table = (run / "metrics.csv").read_text()
    main(["fit", f"--ckpt_path={run}/checkpoints/epoch={epoch}.ckpt"])
    assert list((place / "logs" / "mine").iterdir()) == [run]
    resumed = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for weight, value in whole.items():
        assert torch.equal(value, resumed[weight]), weight
    assert (run / "metrics.csv").read_text() == table
