"""A report is written whole, and reads the same in the terminal."""

import json
import math
from pathlib import Path

import pytest
import yaml

from unstall.errors import UsageError
from unstall.forks.report import command, read_signals, summary, table, write_report
from unstall.forks.tried import Fork, Report
from unstall.trials import Score
from unstall.watch import Cause, Evidence, Signals, Verdict, name_cause
from unstall.watch.callback import write_verdict

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
    write_verdict(tmp_path, name_cause(signals), signals)
    assert read_signals(tmp_path) == signals
    (tmp_path / "diagnosis.json").write_text('{"signals": {"from": "elsewhere"}}')
    with pytest.raises(UsageError, match=r"diagnosis\.json"):
        read_signals(tmp_path)


@pytest.mark.parametrize("text", ['{"signals": {"step": "many"}}', "[" * 100_000, '{"signals": 3}', "\0"])
def test_a_damaged_diagnosis_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "diagnosis.json").write_text(text)
    with pytest.raises(UsageError, match=r"diagnosis\.json: not a diagnosis"):
        read_signals(tmp_path)
