"""Two processes train together, on the CPU."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import MakeMNIST

pytestmark = pytest.mark.slow

TWO = ["--trainer.devices=2", "--trainer.strategy=ddp"]
# Writes down which samples each process trains on.
NETWORK = """
import os
from torch import nn


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, inputs):
        if self.training:
            with open(f"seen-{os.environ.get('LOCAL_RANK', 0)}", "a") as stream:
                stream.writelines(f"{sum(image.flatten().mul(255).int().tolist())}\\n" for image in inputs)
        return super().forward(inputs)
"""


def unstall(place: Path, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "unstall", *arguments, "--trainer.accelerator=cpu"]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, make_mnist: MakeMNIST) -> tuple[Path, Path]:
    """A working directory and a run of two processes: 481 samples to train on, 121 to validate."""
    place = tmp_path_factory.mktemp("ddp")
    make_mnist(place / "data", train=602, test=101)
    (place / "mine.py").write_text(NETWORK)
    arguments = [
        "--data.data_dir=data",
        "--data.batch_size=16",
        "--model.network=mine.Net",
        "--model.optimizer.lr=3e-3",
    ]
    lines = unstall(place, "fit", *arguments, *TWO, "--trainer.max_epochs=4")
    return place, place / lines[-1]


def test_one_run_and_every_sample_once_an_epoch(together: tuple[Path, Path]) -> None:
    place, run = together
    assert list((place / "logs").glob("*/*")) == [run]
    assert len(list(run.glob("events.*"))) == 1
    # First a copy makes a step on the first batch, which is looked at.
    ours, theirs = ((place / f"seen-{rank}").read_text().split()[16:] for rank in (0, 1))
    assert len(ours) == len(theirs) == 4 * 241  # 481 is odd: one sample comes twice
    epoch = ours[:241] + theirs[:241]
    assert len(set(epoch)) > 400  # the sums of 784 pixels tell nearly all samples apart
    for start in range(241, 4 * 241, 241):
        again = ours[start : start + 241] + theirs[start : start + 241]
        assert again != epoch
        assert set(again) == set(epoch)


def test_the_diagnosis_counts_both_processes(together: tuple[Path, Path]) -> None:
    _, run = together
    diagnosis = json.loads((run / "diagnosis.json").read_text())
    assert diagnosis["sentence"].startswith("Nothing wrong shows in the first 64 steps")
    assert diagnosis["signals"]["batch_size"] == 2 * 16
    assert diagnosis["signals"]["step"] == 4 * 16  # 241 samples each are 16 batches


def test_validation_is_exactly_that_of_one_process(together: tuple[Path, Path]) -> None:
    place, run = together
    with (run / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    assert float(rows[-1]["val/accuracy"]) > 0.95  # as one process: any network learns this set
    assert [int(float(row["samples_seen"])) for row in rows] == [482, 964, 1446, 1928]
    unstall(place, "validate", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.devices=1")
    events = EventAccumulator(str(run)).Reload()
    for name in ("val/loss", "val/accuracy"):
        assert events.Scalars(f"validate-{name}")[-1].value == pytest.approx(float(rows[-1][name]), rel=1e-4)


def test_two_processes_test_and_predict_each_sample_once(together: tuple[Path, Path]) -> None:
    place, run = together
    unstall(place, "test", f"--ckpt_path={run}", "--trainer.devices=1")
    alone = EventAccumulator(str(run)).Reload().Scalars("test/loss")[-1].value
    lines = unstall(place, "test", f"--ckpt_path={run}", *TWO)
    assert (place / lines[-1]).resolve() == run.resolve()
    events = EventAccumulator(str(run)).Reload()
    assert events.Scalars("test/loss")[-1].value == pytest.approx(alone, rel=1e-4)
    unstall(place, "predict", f"--ckpt_path={run}", *TWO)
    items = []
    for file in run.glob("predictions*.csv"):
        with file.open() as stream:
            items += [int(row["item"]) for row in csv.DictReader(stream)]
    assert sorted(items) == list(range(101))
    assert list((place / "logs").glob("*/*")) == [run]
