"""A run that is killed goes on as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import FIT, MakeMNIST
from unstall.runs.history import read_metrics

pytestmark = pytest.mark.slow

EPOCHS = 12
NETWORK = """
import time
from torch import nn


class Net(nn.Sequential):
    def __init__(self, pause: float = 0.0) -> None:
        layers = nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 10)
        super().__init__(*layers)
        self.pause = pause

    def forward(self, inputs):
        time.sleep(self.pause)
        return super().forward(inputs)
"""
OPTIONS = {
    "MLP": ["--model.network.widths=[784,32,10]"],
    "dropout and BatchNorm, with a schedule": [
        "--model.network=mine.Net",
        "--model.network.pause=0.01",
        "--model.optimizer=Adam",
        "--model.lr_scheduler=StepLR",
        "--model.lr_scheduler.step_size=3",
    ],
}
# When to kill: as soon as this is true of the logs.
MOMENTS: dict[str, Callable[[Path], bool]] = {
    "before the first checkpoint": lambda logs: any(logs.glob("*/*/config.yaml")),
    "with the first checkpoint": lambda logs: any(logs.glob("*/*/checkpoints/last.ckpt")),
    "mid-epoch, later": lambda logs: any(len(read_metrics(file)) >= 5 for file in logs.glob("*/*/metrics.csv")),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, make_mnist: MakeMNIST) -> Path:
    folder = tmp_path_factory.mktemp("resume")
    make_mnist(folder / "data", train=601, test=10)
    (folder / "mine.py").write_text(NETWORK)
    return folder


def start(place: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "unstall", "fit", *arguments, f"--trainer.max_epochs={EPOCHS}"]
    return subprocess.Popen(
        command,
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts its background jobs deaf to Ctrl-C, and their children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # type: ignore[arg-type, return-value]
    )


def finish(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("network", OPTIONS)
def test_killed_and_resumed_is_bit_for_bit_uninterrupted(network: str, place: Path) -> None:
    options = [*FIT[1:], *OPTIONS[network]]
    name = network.split()[0]
    finish(start(place, *options, f"--logs_dir={name}-whole"))
    (whole,) = (place / f"{name}-whole").glob("*/*")
    logs = place / f"{name}-killed"
    resume: list[str] = []
    for moment, reached in MOMENTS.items():
        process = start(place, *(resume or [*options, f"--logs_dir={logs.name}"]))
        deadline = time.monotonic() + 120
        while not reached(logs) and time.monotonic() < deadline:
            assert process.poll() is None, (moment, process.communicate())
            time.sleep(0.005)
        if moment.startswith("mid"):
            time.sleep(0.03)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        (run,) = logs.glob("*/*")
        resume = [f"--ckpt_path={run}"]
    out = finish(start(place, *resume))
    assert list(logs.glob("*/*")) == [run]
    assert (place / out.splitlines()[-1]).resolve() == run.resolve()
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []

    expected = weights(whole)
    for weight, value in weights(run).items():
        assert torch.equal(value, expected[weight]), weight
    assert read_metrics(run / "metrics.csv") == read_metrics(whole / "metrics.csv")
    best = [torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True) for folder in (whole, run)]
    assert best[0]["epoch"] == best[1]["epoch"]

    ours, theirs = (EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload() for folder in (run, whole))
    of_the_diagnosis = "verdict/", "at_a_glance/8"  # which starts some of its windows anew
    tags = [{tag for tag in each.Tags()["scalars"] if not tag.startswith(of_the_diagnosis)} for each in (ours, theirs)]
    assert tags[0] == tags[1]
    glance = "at_a_glance/2_val_loss_over_prior"
    for tag in ("train/loss", "val/accuracy", "step/train_loss", "reference/prior_loss", glance):
        curves = [[(event.step, event.value) for event in events.Scalars(tag)] for events in (ours, theirs)]
        steps = [step for step, _ in curves[0]]
        assert steps == sorted(set(steps)), tag
        assert curves[0] == curves[1], tag


def test_a_run_killed_by_ctrl_c_can_go_on_too(place: Path) -> None:
    logs = place / "interrupted"
    slow = "--model.network.pause=0.03"  # there must be something left to interrupt
    options = [*FIT[1:], *OPTIONS["dropout and BatchNorm, with a schedule"], slow, f"--logs_dir={logs.name}"]
    process = start(place, *options)
    while not any(logs.glob("*/*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    (run,) = logs.glob("*/*")
    (line,) = err.splitlines()
    assert line.endswith(f"fit --ckpt_path={run.relative_to(place)}")
    finish(start(place, f"--ckpt_path={run}"))
    assert [row["epoch"] for row in read_metrics(run / "metrics.csv")] == list(range(EPOCHS))
