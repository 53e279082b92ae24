"""The wheel alone, in an empty folder of an environment that knows nothing of this clone, with Python and no more."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from environment import copy_of_this, environment, install, others, run, wheel

pytestmark = pytest.mark.slow

MINE = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int = 32) -> None:
        super().__init__()
        self.batch_size = batch_size
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(960, 8, generator=generator)
        self.samples = TensorDataset(inputs, (inputs[:, :2].prod(dim=1) > 0).long())

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.samples, 100)


class Model(pl.LightningModule):
    def __init__(self, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))

    def training_step(self, batch, batch_idx):
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.network(batch[0])
        self.log("val/loss", torch.nn.functional.cross_entropy(logits, batch[1]))
        self.log("val/accuracy", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
"""

CONFIG = """
experiment: mine
model: {class_path: mine.Model}
data: {class_path: mine.Data}
trainer: {max_epochs: 3, accelerator: cpu}
"""


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel."""
    place = tmp_path_factory.mktemp("wheel")
    built = wheel(copy_of_this(place / "source"), place / "dist")
    found = environment(place / "environment", others(place / "libraries"))
    install(found, built, cwd=place)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty one, with no project above it."""
    (tmp_path / "pyproject.toml").write_text("[tool.unstall]\n")  # the tests' own one lies above
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_it_says_what_it_can_and_what_is_public(programs: Path, folder: Path) -> None:
    assert "lr_find" in run(programs / "unstall", "--help", cwd=folder).stdout
    code = "import unstall; print(unstall.__file__, *unstall.__all__)"
    file, *names = run(programs / "python", "-c", code, cwd=folder).stdout.split()
    assert Path(file).is_relative_to(programs.parent)
    assert {"find_learning_rate", "diagnose", "Diagnosis"} <= set(names)


def test_it_trains_finds_and_diagnoses_what_is_mine(programs: Path, folder: Path) -> None:
    (folder / "mine.py").write_text(MINE)
    (folder / "mine.yaml").write_text(CONFIG)
    fitted = folder / run(programs / "unstall", "fit", "-c", "mine.yaml", cwd=folder).stdout.split()[-1]
    assert {"config.yaml", "metrics.csv"} <= {file.name for file in fitted.iterdir()}
    assert {file.name for file in (fitted / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert len((fitted / "metrics.csv").read_text().splitlines()) == 4
    said = run(programs / "unstall", "lr_find", "-c", "mine.yaml", "--steps=140", cwd=folder).stdout
    found = folder / said.split()[-1]
    assert re.search(r"^\s+lr: \d", (found / "lr_find.yaml").read_text(), re.MULTILINE)
    run(programs / "unstall", "diagnose", fitted, cwd=folder)
    assert (fitted / "diagnosis.json").is_file()
    assert {file.name for file in folder.iterdir()} - {"__pycache__"} == {"mine.py", "mine.yaml", "logs"}


def test_the_demo_without_its_configs_says_what_to_do_in_a_line(programs: Path, folder: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([programs / "unstall", "demo"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "configs" in done.stderr
    assert not list(folder.iterdir())
