"""A project of somebody who has nothing of the lesson: a module and data of their own."""

import sys
from pathlib import Path

import pytest

MINE = """
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Points(pl.LightningDataModule):
    def __init__(self, batch_size: int = 20) -> None:
        super().__init__()
        self.save_hyperparameters()

    def loader(self, seed, shuffle=False):
        points = torch.randn(200, 2, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(points, (points.prod(1) > 0).long()), self.hparams.batch_size, shuffle)

    def train_dataloader(self):
        return self.loader(0, True)

    def val_dataloader(self):
        return self.loader(1)

    def test_dataloader(self):
        return self.loader(2)


class Classifier(pl.LightningModule):
    def __init__(self, hidden: int = 16, lr: float = 0.03) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Sequential(torch.nn.Linear(2, hidden), torch.nn.Tanh(), torch.nn.Linear(hidden, 2))

    def loss(self, batch, stage):
        inputs, labels = batch
        logits = self.network(inputs)
        loss = torch.nn.functional.cross_entropy(logits, labels)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        self.log(f"{stage}/accuracy", (logits.argmax(1) == labels).float().mean(), on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        return self.loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.loss(batch, "val")

    def test_step(self, batch, batch_idx):
        self.loss(batch, "test")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
"""
CONFIG = """
experiment: mine
model: {class_path: mine.Classifier}
data: {class_path: mine.Points}
trainer: {accelerator: cpu, max_epochs: 2, enable_progress_bar: false}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder, which is the working one; its pyproject.toml names no base config."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    (tmp_path / "pyproject.toml").write_text("[tool.unstall]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path
