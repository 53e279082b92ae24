"""The demo: every run of it, in one command, and a table whose figures are those of the runs."""

import json
import re
from pathlib import Path

import pytest

from lesson import demo
from unstall import UsageError, read_metrics
from unstall.cli import main

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_demo_stalls_trains_diagnoses_and_tells(
    tmp_path: Path, tiny_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    Path("configs").symlink_to(ROOT / "configs")
    main(["demo", f"--data.data_dir={tiny_mnist_dir}", "--trainer.max_epochs=2", "--trainer.enable_progress_bar=false"])
    out = capsys.readouterr().out
    runs = {folder.parent.name: folder for folder in Path("logs").glob("*/*/")}
    assert set(runs) == {"lr_too_high", "lr_too_low", "mnist", "linear_baseline"}
    for experiment, folder in runs.items():
        row = demo.read_row(folder)
        metrics = read_metrics(folder / "metrics.csv")
        assert row.best_accuracy == max(epoch["val/accuracy"] for epoch in metrics)
        (line,) = [line for line in out.splitlines() if line.startswith(f"│ {experiment} ")]
        shown = line.replace("│", " ").split()
        assert shown[2:] == [f"{row.learning_rate:.1e}", "128", f"{row.best_accuracy:.4f}", f"{row.last_loss:.4g}"]
    for stalled in ("lr_too_high", "lr_too_low"):
        diagnosis = json.loads((runs[stalled] / "diagnosis.json").read_text())
        assert diagnosis["forks"]
        assert diagnosis["sentence"] in " ".join(out.split())
    assert (runs["mnist"] / "lr_find.yaml").is_file()
    assert Path("logs/lesson.png").read_bytes().startswith(b"\x89PNG")
    best = re.search(r"test --ckpt_path=(\S+)\ntry a rate", out)
    assert best
    main(["test", f"--ckpt_path={best[1]}"])


def test_demo_away_from_its_configs_says_where_to_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"^configs: no such folder in .*; clone the project.* go to its folder$"):
        demo.main([])


@pytest.mark.parametrize("option", ["--trainer.devices=2", "--trainer.num_nodes=2", "--trainer.devices=-1"])
def test_demo_in_several_processes_is_refused_before_its_first_run(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    with pytest.raises(UsageError, match=rf"^{option}: its lr_find and diagnose train in one process; leave it out"):
        demo.main([option])
    assert not Path("logs").exists()


def test_row_of_a_run_with_and_without_a_diagnosis(tmp_path: Path) -> None:
    folder = tmp_path / "logs" / "slow" / "a_run"
    folder.mkdir(parents=True)
    (folder / "metrics.csv").write_text(
        "epoch,train/loss,val/accuracy,prior_loss\n0,2.25,0.5,2.3\n1,2.125,0.25,2.3\n2,2.0,0.125,2.3\n"
    )
    (folder / "hparams.yaml").write_text("{optimizer: SGD, learning_rate: 0.5, batch_size: 8, widths: [784, 10]}")
    row = demo.read_row(folder)
    assert row == demo.Row("slow", "SGD", 0.5, 8, 0.5, 2.0, 2.3, ".")
    fork = {"change": "lr x10", "loss_before": 2.0, "loss_after": 0.123456}
    diagnosis = {"sentence": "The rate is too low", "fix": {"lr": 5}, "remedy": "lr x10", "forks": [fork]}
    (folder / "diagnosis.json").write_text(json.dumps(diagnosis))
    assert demo.read_row(folder).verdict == ("The rate is too low. Remedy, tried: lr x10, held-out loss 2 -> 0.123.")
    assert demo.table([row]).row_count == 1
    figure = demo.curves([folder, folder])
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[0.5, 0.25, 0.125]]
