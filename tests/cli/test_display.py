"""What the terminal is told."""

import io
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

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
    assert program("tensorboard", "tensorboard.main") == f"{sys.executable} -m tensorboard.main"
    spaced = tmp_path / "my tools" / "python"
    spaced.parent.mkdir()
    spaced.write_text("")
    spaced.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(spaced))
    assert program() == f"'{spaced}' -m unstall"
    monkeypatch.setenv("PATH", str(spaced.parent))
    assert program() == "python -m unstall"  # in an activated environment
    monkeypatch.setattr(sys, "argv", [str(spaced.with_name("unstall"))])
    monkeypatch.setenv("PATH", "")
    assert program("tensorboard") == "'my tools/tensorboard'"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_shows_what_the_epoch_came_to_and_is_off_without_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, default_root_dir=tmp_path)
    module, bar = pl.LightningModule(), ProgressBar()
    bar.setup(trainer, module, "fit")
    assert bar.is_disabled
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    bar = ProgressBar()
    bar.setup(trainer, module, "fit")
    assert bar.is_enabled
    measured = {"val_auroc": torch.tensor(0.75), "train_loss": torch.tensor(0.5), "train_loss_step": torch.tensor(9.0)}
    monkeypatch.setattr(pl.Trainer, "callback_metrics", measured)
    assert "ProcessingSpeedColumn" not in {type(column).__name__ for column in bar.configure_columns(trainer)}
    bar.on_train_epoch_end(trainer, module)
    assert bar.get_metrics(trainer, module) == {"train_loss": "0.5000", "val_auroc": "0.7500"}


def test_the_bar_shows_no_version_number_and_the_profiler_does_nothing(tmp_path: Path) -> None:
    trainer = pl.Trainer(logger=pl.loggers.CSVLogger(tmp_path), accelerator="cpu", enable_progress_bar=False)
    assert "v_num" not in ProgressBar().get_metrics(trainer, pl.LightningModule())
    with NoProfiler().profile("anything") as nothing:
        assert nothing is None
