"""A report is written whole, and reads the same in the terminal."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from unstall.errors import UsageError
from unstall.forks.report import command, picture, read_signals, rows_of, summary, table, write_report
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
    words = ["fit", "-c", f"{tmp_path}/config.yaml", "-c", f"{tmp_path}/fix.yaml"]
    assert command(tmp_path, report()) == words
    assert f"  unstall {' '.join(words)}" in text.splitlines()
    spaced = summary(Path("a b"), report(), "python -m unstall")
    assert "  python -m unstall fit -c 'a b/config.yaml' -c 'a b/fix.yaml'" in spaced.splitlines()
    assert command(tmp_path, report(fix=False)) == []
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


def test_rows_that_say_the_same_are_one() -> None:
    before, short = Score(2.0, 0.2), Score(2.5, 0.15)
    tried = [
        Fork("learning rate 1e-05, 80 steps", short, Score(2.2, 0.1)),
        Fork("learning rate 0.001, 80 steps", short, Score(2.1, 0.2)),
        Fork("learning rate 0.01, 80 steps", short, Score(0.5, 0.8), helps=True),
        Fork("learning rate 10, 80 steps", short, Score(math.inf)),
        Fork("learning rate 0.01", before, Score(0.3, 0.9), helps=True),
        Fork("learning rate 0.03", before, Score(0.4, 0.85), helps=True),
        Fork("batch size 512", before, Score(1.9, 0.2)),
        Fork("learning rate 0.1 from here on, 80 steps", before, Score(1.9, 0.2)),
        Fork("learning rate 1 from here on, 80 steps", before, Score(1.8, 0.1)),
    ]
    shown = rows_of(Report(report().verdict, tuple(tried), tried[4]))
    assert [name for name, _ in shown] == [
        "learning rate 1e-05, 0.001, 10, 80 steps (best: 0.001)",
        "learning rate 0.01",
        "learning rate 0.03",
        "batch size 512",
        "learning rate 0.1, 1 from here on, 80 steps (best: 0.1)",
    ]
    assert shown[0][1] is tried[1]
    assert shown[-1][1] is tried[7]


def test_what_decides_is_drawn_and_a_loss_that_rises_is_not_passed_over() -> None:
    helps = Fork("wider", Score(2.4, 0.1), Score(193.0, 0.9), cause=Cause.LOW_CAPACITY, helps=True)
    found = Report(report().verdict, (helps,), helps)
    assert table(found).splitlines()[1].endswith("<- fix (by accuracy, although the loss rises)")
    figure = picture(found)
    assert "accuracy" in figure.axes[0].get_xlabel()
    assert list(figure.axes[0].lines[0].get_xdata()) == [0.1, 0.9]
    assert figure.get_suptitle().endswith("the smallest change that helps: wider")
    by_loss = replace(helps, before=Score(2.0, 0.5), after=Score(0.5, 0.4))
    assert table(Report(report().verdict, (by_loss,), by_loss)).endswith("(by loss, although the accuracy falls)")


def test_without_accuracies_the_loss_is_drawn_also_below_zero_and_where_it_diverged() -> None:
    tried = Fork("a", Score(-2.0), Score(-3.0)), Fork("b", Score(-2.0), Score(math.inf))
    figure = picture(Report(report().verdict, tried, None))
    (axes,) = figure.axes
    assert "loss" in axes.get_xlabel()
    assert axes.get_xscale() == "linear"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["without the change", "with it", "diverged"]
