"""A run that somebody sends, and what lies about in the folder where it is received."""

import shutil
import sys
from pathlib import Path

import pytest

EVIL = """
import os
open(os.environ["OWNED"], "w").close()
import pytorch_lightning as pl
import torch

class Net(torch.nn.Identity): pass
class Callback(pl.Callback): pass
class Data(pl.LightningDataModule): pass
class Module(pl.LightningModule): pass
def optimizer(parameters): return torch.optim.SGD(parameters, 0.1)
"""


@pytest.fixture
def sent(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's working folder, with a run under `logs` that was made elsewhere, and code beside and within it."""
    run = tmp_path / "logs/sent/x"
    shutil.copytree(trained, run)
    (tmp_path / "beside").mkdir()
    for place in (run, tmp_path / "beside", tmp_path):
        (place / "evil.py").write_text(EVIL)
    (run / "data.yaml").write_text("class_path: logs.sent.x.evil.Data\n")
    monkeypatch.setenv("OWNED", str(tmp_path / "owned"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # nobody's key yet: the run is not ours
    (tmp_path / "data").symlink_to(trained.parents[2] / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if Path(place) != Path.cwd()])
    return run
