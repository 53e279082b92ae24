"""One's own network, data and LightningModule, by class path: no edit of this project's files."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import plugin_data_pb2

from unstall.cli.entry import main
from unstall.runs.history import read_metrics

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
TUTORIAL = """
class Tutorial(pl.LightningModule):  # as Lightning's tutorials write one
    def __init__(self, hidden: int = 16, learning_rate: float = 0.001) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(hidden)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss, on_epoch=True, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        logits = self.net(x)
        self.log_dict({"val_acc": (logits.argmax(1) == y).float().mean(), "val_loss": F.cross_entropy(logits, y)})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.learning_rate)


class SeveralLoaders(Moons):
    def val_dataloader(self):
        return [DataLoader(self.part(1), 100), DataLoader(self.part(2), 100)]


class NoValidation(pl.LightningDataModule):
    def train_dataloader(self):
        return Moons().train_dataloader()

    def test_dataloader(self):
        return Moons().test_dataloader()


class Scored(Tutorial):  # with loaders of its own, and no validation loss
    def train_dataloader(self):
        return Moons().train_dataloader()

    def val_dataloader(self):
        return Moons().val_dataloader()

    def validation_step(self, batch, batch_idx):
        self.log("f1", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())
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


OF_A_TUTORIAL = """
experiment: tutorial
model: {class_path: mine.Tutorial, init_args: {learning_rate: 0.03}}
data: {class_path: mine.Moons}
trainer: {accelerator: cpu, max_epochs: 3}
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


def fit(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, str]:
    main(["fit", "-c", "mine.yaml", *arguments])
    out = capsys.readouterr().out
    return Path(out.splitlines()[-1]), out


@pytest.mark.parametrize(("data", "ending"), [("Moons", ""), ("SeveralLoaders", "/dataloader_idx_0")])
def test_other_names_for_losses_do_as_well(
    data: str, ending: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "mine.py").write_text(MINE + TUTORIAL)
    (place / "mine.yaml").write_text(OF_A_TUTORIAL)
    run, out = fit(f"--data=mine.{data}", "--trainer.max_epochs=4", capsys=capsys)
    losses = [row[f"val_loss{ending}"] for row in read_metrics(run / "metrics.csv")]
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == losses.index(min(losses))
    assert f"best epoch {best['epoch'] + 1} of 4: val_loss{ending} {min(losses):#.4g}, val_acc{ending} 0." in out
    assert "to test it" not in out  # there is no `test_step`
    assert json.loads((run / "diagnosis.json").read_text())["signals"]["validation_loss"] == losses[-1]

    events = EventAccumulator(str(run), size_guidance={"tensors": 0}).Reload()
    curves = set(events.Tags()["scalars"])
    assert {"at_a_glance/1_train_loss_over_prior", "at_a_glance/2_val_loss_over_prior"} <= curves
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    drawn = {tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag}
    assert {"train_loss_epoch$", f"val_loss{ending}$"} <= drawn
    assert {tag.removesuffix("$") for tag in drawn} <= curves
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    compared = plugin_data_pb2.HParamsPluginData.FromString(content).experiment.metric_infos
    assert [info.name.tag for info in compared][:3] == [f"val_acc{ending}", f"val_loss{ending}", "train_loss_epoch"]
    assert {info.name.tag for info in compared} <= curves

    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=6"])
    losses = [row[f"val_loss{ending}"] for row in read_metrics(run / "metrics.csv")]
    best = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    assert (len(losses), best["epoch"]) == (6, losses.index(min(losses)))


@pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no")
def test_without_validation_the_last_checkpoint_is_kept(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.py").write_text(MINE + TUTORIAL)
    (place / "mine.yaml").write_text(CLASSIFICATION)
    run, out = fit("--data=mine.NoValidation", "--trainer.max_epochs=1", capsys=capsys)
    assert [file.name for file in (run / "checkpoints").iterdir()] == ["last.ckpt"]
    assert f"test --ckpt_path={run}/checkpoints/last.ckpt" in out
    assert "is logged" not in out


def test_a_module_with_its_own_loaders_needs_no_data_module(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "mine.py").write_text(MINE + TUTORIAL)
    (place / "mine.yaml").write_text(OF_A_TUTORIAL)
    own = ("--model=mine.Scored", "--data=null")
    run, out = fit(*own, "--trainer.max_epochs=1", capsys=capsys)
    assert out.count("No best.ckpt is kept: no val/loss is logged, but ") == 1
    assert (run / "checkpoints" / "last.ckpt").is_file()
    main(["diagnose", str(run)])
    assert "learning rate" in capsys.readouterr().out
    main(["lr_find", "-c", "mine.yaml", *own, "--steps=140"])
    assert (Path(capsys.readouterr().out.splitlines()[-1]) / "lr_find.yaml").is_file()


@pytest.mark.slow
def test_the_installed_program_finds_classes_beside_it_whatever_folder_the_config_is_in(place: Path) -> None:
    (place / "mine.py").write_text(MINE + TUTORIAL)
    (place / "experiments").mkdir()
    (place / "experiments" / "mine.yaml").write_text(OF_A_TUTORIAL)
    program = Path(sys.executable).with_name("unstall")

    def run(*arguments: str) -> str:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=place)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    folder = run("fit", "-c", "experiments/mine.yaml", "--trainer.max_epochs=1")
    assert run("diagnose", folder) == folder
