"""More than one machine, and more data than memory: docs/scale.md, as far as one machine can try it."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from unstall import read_metrics

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parents[1] / "docs/scale.md").read_text()
MINE = """
import time
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset


class Points(pl.LightningDataModule):
    def loader(self, seed, shuffle=False):
        points = torch.randn(400, 2, generator=torch.Generator().manual_seed(seed))
        return DataLoader(TensorDataset(points, (points.prod(1) > 0).long()), batch_size=10, shuffle=shuffle)

    def train_dataloader(self):
        return self.loader(0, True)

    def val_dataloader(self):
        return self.loader(1)


class Classifier(pl.LightningModule):
    def __init__(self, inputs: int = 2, lr: float = 0.03, seconds: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Sequential(torch.nn.Linear(inputs, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2))

    def training_step(self, batch, batch_idx):
        time.sleep(self.hparams.seconds)
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
"""
CONFIG = """
experiment: mine
model: {class_path: scaled.Classifier}
data: {class_path: scaled.Points}
trainer: {accelerator: cpu, max_epochs: 3, enable_progress_bar: false}
"""
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys

per_node = int(os.environ["SLURM_NTASKS_PER_NODE"])
tasks = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    own = {{"PROCID": rank, "LOCALID": rank % per_node, "NODEID": rank // per_node}}
    environment = {{**os.environ, **{{f"SLURM_{{name}}": str(number) for name, number in own.items()}}}}
    tasks.append(subprocess.Popen(sys.argv[1:], env=environment))
signal.signal(signal.SIGTERM, lambda *_: [task.terminate() for task in tasks])
open("srun.pid", "w").write(str(os.getpid()))
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "scaled.py").write_text(MINE)
    (tmp_path / "mine.yaml").write_text(CONFIG)
    (tmp_path / "pyproject.toml").write_text("[tool.unstall]\n")
    return tmp_path


def free_port(first: int = 15000, last: int = 24999) -> int:
    for port in range(first + os.getpid() % 5000, last):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


def of_nodes(place: Path, *words: str) -> list[tuple[int, str, str]]:
    """Start a command by torchrun on two nodes, both on loopback; return how each ended, and what it said."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    own = ["--trainer.num_nodes=2", "--trainer.devices=1", "--trainer.strategy=ddp"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={rank}", "-m", "unstall", *words, *own],
            cwd=place,
            env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
            text=True,
            **pipes,  # type: ignore[call-overload]
        )
        for rank in (0, 1)
    ]
    try:
        ended = [process.communicate(timeout=240) for process in started]
    finally:
        for process in started:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(started, ended, strict=True)]


def test_two_nodes_make_one_run_and_the_instruments_work_in_one_process(place: Path) -> None:
    (first, out, err), (second, other_out, _) = of_nodes(place, "fit", "-c", "mine.yaml")
    assert (first, second) == (0, 0), err
    (run,) = place.glob("logs/mine/*")
    assert out.splitlines()[-1] == str(run.relative_to(place))
    assert "val/loss" not in other_out
    rows = read_metrics(run / "metrics.csv")
    assert [row["samples_seen"] for row in rows] == [400, 800, 1200]
    assert json.loads((run / "diagnosis.json").read_text())["signals"]["batch_size"] == 20

    (first, _, err), (second, _, _) = of_nodes(place, "lr_find", "-c", "mine.yaml")
    assert first
    assert second
    assert "lr_find: trains in one process, and each of 2 was started with it (TorchElastic)" in err

    two = ["--trainer.devices=2", "--trainer.num_nodes=1", "--trainer.strategy=ddp"]
    command = [sys.executable, "-m", "unstall", "diagnose", str(run), *two]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "diagnosis.json").read_text())["cause"]


def test_two_processes_of_one_machine_end_together_when_one_is_asked_to(place: Path) -> None:
    (place / "mine.yaml").write_text(CONFIG.replace("Classifier", "Classifier, init_args: {seconds: 0.05}"))
    words = ["fit", "-c", "mine.yaml", "--trainer.devices=2", "--trainer.strategy=ddp"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = subprocess.Popen(
        [sys.executable, "-m", "unstall", *words],
        cwd=place,
        env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"},
        text=True,
        start_new_session=True,
        **pipes,  # type: ignore[call-overload]
    )
    try:
        assert "epoch 1/3" in started.stdout.readline()
        time.sleep(0.5)
        started.terminate()
        _, err = started.communicate(timeout=120)  # until the other has closed them, too
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, signal.SIGKILL)
    assert started.returncode == 143, err
    assert err.count("unstall: ended by SIGTERM; ") == 1
    (run,) = place.glob("logs/mine/*")
    assert 20 < torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] < 40


def test_the_script_for_slurm_trains_is_ended_and_goes_on(place: Path) -> None:
    (script,) = re.findall(r"```bash\n(#!/bin/bash\n.*?)```", PAGE, re.S)
    for name in ("--ntasks-per-node", "--gpus-per-node", "--trainer.devices"):  # one task on each of two nodes
        script, count = re.subn(f"{name}=4", f"{name}=1", script)
        assert count == 1
    (place / "job.sh").write_text(script)
    programs = place / "programs"
    programs.mkdir()
    unstall = f'#!/bin/bash\nexec "{sys.executable}" -m unstall "$@"\n'
    for name, text in {"srun": SRUN, "scontrol": "#!/bin/bash\necho $@ >> requeued\n", "unstall": unstall}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\w+)", script))
    tasks = int(asked["nodes"]) * int(asked["ntasks-per-node"])
    port = free_port(15000, 23000)
    slurm = {
        "JOB_ID": str(90000 + port - 15000),  # Lightning takes the port from its last four digits
        "JOB_NAME": asked["job-name"],
        "NNODES": asked["nodes"],
        "NTASKS": str(tasks),
        "NTASKS_PER_NODE": asked["ntasks-per-node"],
        "NODELIST": "127.0.0.1",
    }
    environment = {**os.environ, **{f"SLURM_{name}": value for name, value in slurm.items()}}
    environment |= {"PATH": f"{programs}:{os.environ['PATH']}", "GLOO_SOCKET_IFNAME": "lo"}
    (place / "mine.yaml").write_text(CONFIG.replace("Classifier", "Classifier, init_args: {seconds: 0.05}"))

    job = subprocess.Popen(
        ["bash", "job.sh"], cwd=place, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        end = time.monotonic() + 240
        while not list(place.glob("logs/mine/*/metrics.csv")) and time.monotonic() < end and job.poll() is None:
            time.sleep(0.1)
        time.sleep(0.5)  # into the second epoch
        assert job.poll() is None, job.communicate()[1]
        os.kill(int((place / "srun.pid").read_text()), signal.SIGTERM)
        _, err = job.communicate(timeout=120)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode == 143, err
    assert err.count("unstall: ended by SIGTERM; ") == 1
    assert (place / "requeued").read_text() == f"requeue {slurm['JOB_ID']}\n"
    (run,) = place.glob("logs/mine/*")
    step = torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 20 < step < 40

    environment["SLURM_RESTART_COUNT"] = "1"
    done = subprocess.run(["bash", "job.sh"], cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert list(place.glob("logs/mine/*")) == [run]
    assert [row["epoch"] for row in read_metrics(run / "metrics.csv")] == [0, 1, 2]
    assert torch.load(run / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 60


def test_tasks_that_slurm_was_asked_for_in_another_way_are_one_line(place: Path) -> None:
    words = [sys.executable, "-m", "unstall", "fit", "-c", "mine.yaml", "--trainer.devices=2", "--trainer.strategy=ddp"]
    environment = {**os.environ, "SLURM_NTASKS": "2", "SLURM_JOB_ID": "1"}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 2
    assert "HINT: Use `--ntasks-per-node=2` instead" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_file_that_is_larger_than_memory_is_trained_on_and_searched(place: Path) -> None:
    (module,) = re.findall(r"```python\n(# mapped.py\n.*?)```", PAGE, re.S)
    (place / "mapped.py").write_text(module)
    width, rows, most = 1001, 1_000_000, 2 * 2**30
    for name, length in ("training", rows), ("validation", 2000):
        np.memmap(place / name, dtype=np.float32, mode="w+", shape=(length, width))[:2000, :2] = (
            1  # the rest is no data
        )
    assert (place / "training").stat().st_size > 1.8 * most
    config = yaml.safe_load(CONFIG)
    config["model"]["init_args"] = {"inputs": width - 1}
    config["data"] = {"class_path": "mapped.Mapped", "init_args": {"training": "training", "validation": "validation"}}
    config["data"]["init_args"]["width"] = width
    config["trainer"] |= {"limit_train_batches": 30, "max_epochs": 1}
    (place / "mapped.yaml").write_text(yaml.safe_dump(config))
    for command in ("fit", "lr_find"):
        done = subprocess.run(
            [sys.executable, "-m", "unstall", command, "-c", "mapped.yaml"],
            cwd=place,
            capture_output=True,
            text=True,
            timeout=240,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),  # of what is not a mapped file
        )
        assert done.returncode == 0, done.stderr
    too_much = f"import numpy; numpy.array(numpy.memmap('training', dtype=numpy.float32, mode='r')[:{width * rows}])"
    failed = subprocess.run(
        [sys.executable, "-c", too_much],
        cwd=place,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (most, most)),
    )
    assert "MemoryError" in failed.stderr  # so the limit holds
