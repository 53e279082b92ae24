"""Real processes that are ended: what they say, what they leave, and that they go on as if nothing had happened."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from unstall import read_metrics

pytestmark = pytest.mark.slow

MINE = """
import os, time
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Points(pl.LightningDataModule):
    def __init__(self, num_workers: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()

    def loader(self, seed, shuffle=False):
        points = torch.randn(200, 2, generator=torch.Generator().manual_seed(seed))
        data = TensorDataset(points, (points.prod(1) > 0).long())
        return DataLoader(data, 20, shuffle, num_workers=self.hparams.num_workers if shuffle else 0)

    def train_dataloader(self):
        return self.loader(0, True)

    def val_dataloader(self):
        return self.loader(1)


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = torch.nn.Sequential(torch.nn.Linear(2, 9), torch.nn.Dropout(0.2), torch.nn.Linear(9, 2))

    def loss(self, batch, stage):
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log(f"{stage}/loss", loss, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch, batch_idx):
        time.sleep(float(os.environ.get("PAUSE", 0)))
        return self.loss(batch, "train")

    def validation_step(self, batch, batch_idx):
        self.loss(batch, "val")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
"""
CONFIG = """
experiment: mine
model: {class_path: mine.Classifier}
data: {class_path: mine.Points}
trainer: {accelerator: cpu, max_epochs: 3, enable_progress_bar: false}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("endings")
    (folder / "mine.py").write_text(MINE)
    (folder / "mine.yaml").write_text(CONFIG)
    (folder / "pyproject.toml").write_text("[tool.unstall]\n")
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """A run that nobody ended, with a terminal that knows ASCII alone, whose reader leaves at once."""
    process = start(place, "fit", "-c", "mine.yaml", "--logs_dir=whole", "--experiment=größe", PYTHONIOENCODING="ascii")
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    (run,) = place.glob("whole/*/*")
    return run


def start(place: Path, *words: str, **variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "unstall", *words],
        cwd=place,
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type]
    )


def children(process: int) -> list[Path]:
    return [Path("/proc", word) for word in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_while_it_starts(name: str, place: Path) -> None:
    process = start(place, "fit", "-c", "mine.yaml", "--logs_dir=never")
    time.sleep(0.7)
    process.send_signal(getattr(signal, name))
    out, error = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name]
    assert error.splitlines() == [f"unstall: ended by {name} while it started; nothing was written"]
    assert out == ""
    assert not (place / "never").exists()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_in_its_first_epoch(name: str, place: Path, whole: Path) -> None:
    logs = place / f"asked-{name}"
    process = start(place, "fit", "-c", "mine.yaml", f"--logs_dir={logs.name}", PAUSE="0.3")
    deadline = time.monotonic() + 60
    while not any(logs.rglob("hparams.yaml")) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.7)
    workers = children(process.pid) if sys.platform == "linux" else []
    process.send_signal(getattr(signal, name))
    _, error = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], error
    (line,) = error.splitlines()
    (run,) = logs.glob("*/*")
    assert line.startswith(f"unstall: ended by {name}; {run.relative_to(place)} is kept; to go on: ")
    assert not any(worker.exists() for worker in workers)
    assert [file.name for file in run.rglob(".*")] == []
    last = run / "checkpoints" / "last.ckpt"
    assert last.is_file() == (name == "SIGTERM")

    words = shlex.split(line.partition("to go on: ")[2])
    again = start(place, *words[words.index("fit") :])
    out, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert ("Goes on within epoch 1" in out) == (name == "SIGTERM")
    assert ("no checkpoint yet: it starts again" in out) == (name == "SIGINT")
    assert list(logs.glob("*/*")) == [run]
    found, expected = (torch.load(folder / "checkpoints/last.ckpt", weights_only=True) for folder in (run, whole))
    for weight, value in expected["state_dict"].items():
        assert torch.equal(found["state_dict"][weight], value), weight
    assert found["global_step"] == expected["global_step"] == 30
    losses = [[row["val/loss"] for row in read_metrics(folder / "metrics.csv")] for folder in (run, whole)]
    assert losses[0] == losses[1]
