"""The example that is no image: docs/table.md, as it stands there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from unstall.cli.entry import main
from unstall.runs import read_metrics

TEXT = (Path(__file__).parents[1] / "docs" / "table.md").read_text()
FILES = {name: text for text, name in re.findall(r"```\w+\n(# (bikes\.\w+)\n.*?)```", TEXT, re.DOTALL)}
COMMANDS = [shlex.split(line, comments=True)[1:] for line in re.findall(r"^unstall .*", TEXT, re.MULTILINE)]
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def test_it_is_short() -> None:
    assert sum(text.count("\n") for text in FILES.values()) <= 80


@pytest.mark.slow
def test_its_commands_do_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.unstall]\n")  # a project that has nothing of the lesson
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "bikes", raising=False)
    runs = []
    for words in COMMANDS:
        main([word if word != "logs/bikes/<run>" else str(runs[-1]) for word in words] + QUIET)
        out = capsys.readouterr().out
        runs.append(Path(out.splitlines()[-1]))
    trained, found, stalled, diagnosed = (read_metrics(run / "metrics.csv")[-1]["val_loss"] for run in runs)
    assert trained < 0.2
    assert found < 0.2
    assert stalled == diagnosed > 0.9
    assert yaml.safe_load((runs[1] / "lr_find.yaml").read_text())["model"]["init_args"]["lr"] > 1e-4
    assert json.loads((runs[3] / "diagnosis.json").read_text())["cause"] == "learning rate too low"
    assert yaml.safe_load((runs[3] / "fix.yaml").read_text())["model"]["init_args"]["lr"] > 1e-4
