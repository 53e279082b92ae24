import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.forks.report import command, diagnose_run, read_signals, summary, table, write_report
from unstall.forks.tried import Fork, Report
from unstall.trials.judge import Score
from unstall.watch.callback import write_verdict
from unstall.watch.causes import Cause
from unstall.watch.rules import Evidence, Verdict, diagnose
from unstall.watch.signals import Signals

OVERLAY = {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.01}}}}}


def report(fix: bool = True) -> Report:
    verdict = Verdict(
        Cause.TOO_HIGH, 0.9, Cause.NON_FINITE, (Evidence("move", 50.0, 2.5),), "Too high", "lower it", 300
    )
    bad = Fork("learning rate 10", Score(3.0, 0.1), Score(math.inf))
    good = Fork("learning rate 0.01", Score(3.0, 0.1), Score(0.2, 0.95), OVERLAY, Cause.TOO_HIGH, helps=True)
    return Report(verdict, (bad, good), good if fix else None, "one thing")


def test_report_is_written_whole_and_reads_as_promised(tmp_path: Path) -> None:
    write_report(tmp_path, report(), Signals(step=300, move=50.0))
    text = (tmp_path / "diagnosis.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {"cause", "confidence", "runner_up", "evidence", "forks", "fix", "verified"} <= content.keys()
    assert content["cause"] == "learning rate too high"
    assert content["evidence"] == [{"signal": "move", "value": 50.0, "threshold": 2.5}]
    assert content["forks"][1] == {
        "change": "learning rate 0.01",
        "loss_before": 3.0,
        "loss_after": 0.2,
        "accuracy_before": 0.1,
        "accuracy_after": 0.95,
    }
    assert content["forks"][0]["loss_after"] is None
    assert content["fix"] == OVERLAY
    assert yaml.safe_load((tmp_path / "fix.yaml").read_text()) == OVERLAY
    assert (tmp_path / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {"diagnosis.json", "fix.yaml", "diagnosis.png"}
    assert read_signals(tmp_path) == Signals(step=300, move=50.0)


def test_a_fix_of_an_earlier_diagnosis_does_not_stay(tmp_path: Path) -> None:
    write_report(tmp_path, report())
    write_report(tmp_path, report(fix=False), verified={"fixed": {"val/accuracy": 0.9}})
    assert not (tmp_path / "fix.yaml").exists()
    content = json.loads((tmp_path / "diagnosis.json").read_text())
    assert content["fix"] is None
    assert content["verified"] == {"fixed": {"val/accuracy": 0.9}}


def test_table_and_summary_show_every_fork_the_fix_and_its_command(tmp_path: Path) -> None:
    lines = table(report()).splitlines()
    assert lines[0].split() == ["change", "loss", "before", "loss", "after", "accuracy", "before", "accuracy", "after"]
    assert lines[1].split()[3:] == ["3", "diverged", "0.100", "-"]
    assert lines[2].split()[3:] == ["3", "0.2", "0.100", "0.950", "<-", "fix"]
    text = summary(tmp_path, report())
    assert "90% sure" in text
    assert "move = 50 (threshold 2.5)" in text
    assert str(command(tmp_path, report())) in text
    assert command(tmp_path, report()) == f"unstall fit -c {tmp_path}/config.yaml -c {tmp_path}/fix.yaml"
    assert command(tmp_path, report(fix=False)) is None
    assert "No change helped: lower it." in summary(tmp_path, report(fix=False))


def test_signals_of_the_runs_own_callback_are_found_or_refused(tmp_path: Path) -> None:
    assert read_signals(tmp_path) is None
    signals = Signals(step=7, loss_ratio=1.0)
    write_verdict(tmp_path, diagnose(signals), signals)
    assert read_signals(tmp_path) == signals
    (tmp_path / "diagnosis.json").write_text('{"signals": {"from": "elsewhere"}}')
    with pytest.raises(UsageError, match=r"diagnosis\.json"):
        read_signals(tmp_path)


class Lit(pl.LightningModule):
    def __init__(self, rate: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 10))
        self.rate = rate

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)


class Data(pl.LightningDataModule):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        labels = torch.randint(10, (1500,), generator=generator)
        inputs = torch.randn(10, 20, generator=generator)[labels] + 0.5 * torch.randn(1500, 20, generator=generator)
        self.parts = TensorDataset(inputs[:1000], labels[:1000]), TensorDataset(inputs[1000:], labels[1000:])

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[0], 100, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.parts[1], 250)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")  # Lightning's
def test_a_run_folder_gets_the_whole_diagnosis(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    (tmp_path / "run").mkdir()
    config = {"model": {"class_path": "x.Lit", "init_args": {"rate": 1e-5, "lr": 1e-5}}}
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, default_root_dir=str(tmp_path))
    stalled = Lit(1e-5)
    checkpoint = {"state_dict": stalled.state_dict(), "optimizer_states": [], "lr_schedulers": []}
    found = diagnose_run(
        tmp_path / "run",
        stalled,
        Data(),
        trainer,
        config=config,
        rebuild=lambda overlay: Lit(overlay["model"]["init_args"]["lr"]),
        checkpoint=checkpoint,
    )
    assert found.verdict.cause == Cause.TOO_LOW
    assert found.fix is not None
    assert found.fix.overlay is not None
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"diagnosis.json", "diagnosis.png", "fix.yaml"} <= names
    assert any(name.startswith("events") for name in names)
    fixed = yaml.safe_load((tmp_path / "run/fix.yaml").read_text())
    assert fixed["model"]["init_args"]["lr"] > 1e-3
    assert any("from here on" in fork.change for fork in found.forks)
