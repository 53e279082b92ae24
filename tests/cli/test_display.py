"""What the terminal is told."""

import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

from unstall.cli.display import NoProfiler, ProgressBar, program


def test_how_to_run_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    near = tmp_path / "bin" / "unstall"
    near.parent.mkdir()
    near.write_text("")
    near.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(near)])
    monkeypatch.setenv("PATH", "")
    assert program() == "bin/unstall"
    monkeypatch.setenv("PATH", str(near.parent))
    assert program() == "unstall"
    monkeypatch.setattr(sys, "argv", ["/x/unstall/__main__.py"])
    assert program() == f"{sys.executable} -m unstall"


def test_the_bar_shows_no_version_number_and_the_profiler_does_nothing(tmp_path: Path) -> None:
    trainer = pl.Trainer(logger=pl.loggers.CSVLogger(tmp_path), accelerator="cpu", enable_progress_bar=False)
    assert "v_num" not in ProgressBar().get_metrics(trainer, pl.LightningModule())
    with NoProfiler().profile("anything") as nothing:
        assert nothing is None
