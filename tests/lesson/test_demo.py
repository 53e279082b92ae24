"""The demo: every run of it, in one command, and a table whose figures are those of the runs."""

import json
import re
from pathlib import Path

import pytest

from lesson.demo import read_row
from unstall.cli.program import main
from unstall.errors import UsageError
from unstall.runs.history import METRICS, read_metrics

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
        row = read_row(folder)
        metrics = read_metrics(folder / METRICS)
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
    from lesson.demo import demo

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="configs: no such folder"):
        demo(lambda command: tmp_path, [], "unstall")
