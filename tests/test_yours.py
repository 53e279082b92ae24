"""One's own network, data and LightningModule, by class path: no edit of this project's files."""

import math
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unstall.callbacks import read_metrics
from unstall.cli import main

MINE = """
import math

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, hidden), nn.Linear(hidden, 2)

    def forward(self, points):
        return self.second(torch.tanh(self.first(points)))


class Moons(pl.LightningDataModule):
    def __init__(self, samples: int = 400, noise: float = 0.1, regression: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()

    def part(self, seed: int):
        generator = torch.Generator().manual_seed(seed)
        samples = self.hparams.samples
        angle = math.pi * torch.rand(samples, generator=generator)
        label = torch.randint(2, (samples,), generator=generator)
        sign = 1 - 2 * label
        points = torch.stack([angle.cos() * sign + label, angle.sin() * sign + 0.5 * label], 1)
        points += self.hparams.noise * torch.randn(points.shape, generator=generator)
        return TensorDataset(points, angle if self.hparams.regression else label)

    def train_dataloader(self):
        return DataLoader(self.part(0), 40, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.part(1), 100)

    def test_dataloader(self):
        return DataLoader(self.part(2), 100)


class Regression(pl.LightningModule):
    def __init__(self, hidden: int = 16, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layers = nn.Sequential(nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, 1))

    def loss(self, batch, stage):
        points, angle = batch
        loss = F.mse_loss(self.layers(points)[:, 0], angle)
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True, batch_size=len(angle))
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
CLASSIFICATION = """
experiment: moons
model:
  init_args:
    network:
      class_path: mine.Net
      init_args: {hidden: 32}
    optimizer:
      class_path: torch.optim.Adam
      init_args: {lr: 0.03}
data:
  class_path: mine.Moons
trainer: {accelerator: cpu, max_epochs: 20}
"""
REGRESSION = """
experiment: angles
model:
  class_path: mine.Regression
  init_args: {lr: 0.02}
data:
  class_path: mine.Moons
  init_args: {regression: true}
trainer: {accelerator: cpu, max_epochs: 20}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


@pytest.mark.parametrize(("config", "metric"), [(CLASSIFICATION, "val/accuracy"), (REGRESSION, "val/loss")])
def test_fit_and_test_with_nothing_of_ours(
    config: str, metric: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.yaml").write_text(config)
    main(["fit", "-c", "mine.yaml"])
    run = Path(capsys.readouterr().out.splitlines()[-1])
    rows = read_metrics(run / "metrics.csv")
    assert len(rows) == 20
    assert [row["samples_seen"] for row in rows] == [400 * epoch for epoch in range(1, 21)]
    if metric == "val/accuracy":
        assert rows[-1][metric] > 0.95
        assert rows[-1]["prior_loss"] == pytest.approx(math.log(2), abs=0.02)
        assert {row["learning_rate"] for row in rows} == {0.03}
    else:
        assert rows[-1][metric] < 0.4 < math.pi**2 / 12  # below the variance of the angles
        assert {row["learning_rate"] for row in rows} == {0.02}
    main(["test", f"--ckpt_path={run}"])
    assert Path(capsys.readouterr().out.splitlines()[-1]) == run
    tags = EventAccumulator(str(run)).Reload().Tags()
    assert {"train/loss", "val/loss", "test/loss", "learning_rate", "step/gradient_norm"} <= set(tags["scalars"])
    assert tags["graph"] == (metric == "val/accuracy")  # the regression has no `forward` to draw
    assert len(list(place.glob("logs/*/*"))) == 1


def test_a_stream_without_a_length_trains(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = """


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, samples) -> None:
        self.samples = samples

    def __iter__(self):
        return (self.samples[index] for index in range(len(self.samples)))
"""
    loader = "DataLoader(self.part(0), 40, shuffle=True)"
    assert loader in MINE
    (place / "mine.py").write_text(MINE.replace(loader, "DataLoader(Stream(self.part(0)), 40)") + stream)
    (place / "mine.yaml").write_text(CLASSIFICATION)
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=3"])
    rows = read_metrics(Path(capsys.readouterr().out.splitlines()[-1]) / "metrics.csv")
    assert [row["samples_seen"] for row in rows] == [400, 800, 1200]
    assert rows[-1]["val/accuracy"] > 0.6


def test_a_network_that_does_not_fit_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.yaml").write_text(CLASSIFICATION)
    (place / "mine.py").write_text(MINE.replace("nn.Linear(2, hidden), ", "nn.Linear(3, hidden), "))
    with pytest.raises(SystemExit):
        main(["fit", "-c", "mine.yaml"])
    err = capsys.readouterr().err
    assert err.startswith("unstall: error: model.network=Net(3 inputs) does not take inputs of shape (2,)")
    assert not (place / "logs").exists()
