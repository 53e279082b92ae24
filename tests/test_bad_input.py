"""What a user may get wrong: one line on standard error, exit code 2, and nothing left behind."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from unstall.cli.entry import main

FIT = ["fit", "--data.data_dir=data", "--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--data.batch_size=64"]
OFF = "trainer: {callbacks: null, enable_progress_bar: false}"
WEIGHTS = "layers.0.weight"


LABELS = """
import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

class Ends(IterableDataset):
    def __iter__(self):
        return iter(())

class Data(pl.LightningDataModule):
    def __init__(self, kind: str = "whole"):
        super().__init__()
        self.kind = kind

    def train_dataloader(self):
        if self.kind == "ends":
            return DataLoader(Ends())
        count, label = (0 if self.kind == "empty" else 8), {"minus": -1, "many": 99}.get(self.kind, 0)
        labels = torch.full((count,), 0.5 if self.kind == "floats" else label)
        return DataLoader(TensorDataset(torch.zeros(count, 1, 28, 28), labels))
"""


class Hostile:
    """Unpickled, it creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.file), "w")


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path) -> Path:
    """A working directory with data, a trained run, and every kind of thing that is not a checkpoint or an image."""
    place = tmp_path_factory.mktemp("workplace")
    (place / "data").symlink_to(tiny_mnist_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main([*FIT, "--experiment=good", "--trainer.enable_progress_bar=false", "--model.network.widths=[784,10]"])
        next(Path("logs/good").iterdir()).rename("run")
    good = torch.load(place / "run/checkpoints/best.ckpt", weights_only=True)
    content = (place / "run/checkpoints/best.ckpt").read_bytes()
    (place / "truncated.ckpt").write_bytes(content[: len(content) // 2])
    (place / "empty.ckpt").write_bytes(b"")
    (place / "text.ckpt").write_text("these are no weights\n")
    (place / "hostile.ckpt").write_bytes(pickle.dumps({"state_dict": Hostile(place / "owned")}))
    torch.save({"state_dict": Hostile(place / "owned")}, place / "hostile_zip.ckpt")
    torch.save(good["state_dict"], place / "no_state_dict.ckpt")
    for key in ("epoch", "global_step", "pytorch-lightning_version"):
        torch.save({name: value for name, value in good.items() if name != key}, place / f"no_{key}.ckpt")
    torch.save(good | {"epoch": "three"}, place / "epoch_text.ckpt")
    torch.save(good | {"state_dict": [1, 2]}, place / "state_list.ckpt")
    torch.save(good | {"state_dict": dict.fromkeys(good["state_dict"], 3)}, place / "state_numbers.ckpt")
    torch.save(good | {"config": 3}, place / "config_number.ckpt")
    torch.save(good | {"hyper_parameters": [1]}, place / "hyper_list.ckpt")
    shutil.copytree(place / "run", place / "damaged")
    (place / "damaged/metrics.csv").write_text("epoch,train/loss\n0,much\n")
    shutil.copytree(place / "run", place / "misjudged")
    (place / "misjudged/diagnosis.json").write_text('{"signals": {"step": "many"}}')
    (place / "dangling").symlink_to("nowhere_at_all")
    (place / "no_experiment.yaml").write_text("experiment: null\n")
    (place / "labels.py").write_text(LABELS)
    other = good["state_dict"] | {"network.layers.0.weight": torch.zeros(7, 784)}
    torch.save(good | {"state_dict": other}, place / "other.ckpt")
    (place / "no_run").mkdir()
    (place / "empty").mkdir()
    (place / "no_images").mkdir()
    (place / "no_images/notes.png").write_text("not an image")
    Image.new("L", (28, 28)).save(place / "no_images/a.png")
    (place / "a_file").write_text("")
    (place / "typo.yaml").write_text("model:\n  init_args:\n    netwrok: 3\n")
    (place / "data_typo.yaml").write_text("data:\n  init_args:\n    batchsize: 3\n")
    (place / "top_typo.yaml").write_text("trainr:\n  max_epochs: 3\n")
    (place / "no_yaml.yaml").write_text("model: [1, 2\n")
    (place / "list.yaml").write_text("- 1\n- 2\n")
    (place / "negative.yaml").write_text("model:\n  init_args:\n    optimizer:\n      init_args:\n        lr: -1\n")
    return place


LR = "--model.optimizer.lr"
TEST = ["test", "--trainer.accelerator=cpu"]
RUN = "--ckpt_path=run"
OWN = ["fit", "--trainer.accelerator=cpu", "--data=labels.Data"]
# The command, and what its one line must name.
CASES: dict[str, tuple[list[str], list[str]]] = {
    "no command": ([], ["fit"]),
    "unknown command": (["fitt"], ["fitt", "fit"]),
    "config is not there": ([*FIT, "-c", "nowhere.yaml"], ["nowhere.yaml"]),
    "config is not yaml": ([*FIT, "-c", "no_yaml.yaml"], ["no_yaml.yaml"]),
    "config is a list": ([*FIT, "-c", "list.yaml"], ["list.yaml"]),
    "unknown option": ([*FIT, "--trainer.max_epoch=3"], ["max_epoch", "trainer.max_epochs"]),
    "unknown model option": ([*FIT, "--model.optimizer.rl=3"], ["rl", "model.optimizer.lr"]),
    "unknown network option": ([*FIT, "--model.network.width=[784,10]"], ["width", "model.network.widths"]),
    "unknown data option": ([*FIT, "--data.batchsize=3"], ["batchsize", "data.batch_size"]),
    "unknown group": ([*FIT, "--modl.optimizer.lr=3"], ["modl.optimizer.lr", "model.optimizer.lr"]),
    "unknown key in yaml": ([*FIT, "-c", "typo.yaml"], ["netwrok", "model.network"]),
    "unknown data key in yaml": ([*FIT, "-c", "data_typo.yaml"], ["batchsize", "data.batch_size"]),
    "unknown group in yaml": ([*FIT, "-c", "top_typo.yaml"], ["trainr", "trainer"]),
    "stray word": ([*FIT, "faster"], ["faster"]),
    "rate negative": ([*FIT, f"{LR}=-0.1"], ["model.optimizer", "-0.1"]),
    "rate negative in yaml": ([*FIT, "-c", "negative.yaml"], ["model.optimizer", "-1"]),
    "rate no number": ([*FIT, f"{LR}=fast"], ["lr", "fast"]),
    "rate nan": ([*FIT, f"{LR}=.nan"], ["model.optimizer", "nan"]),
    "rate infinite": ([*FIT, f"{LR}=.inf"], ["model.optimizer.lr", "inf"]),
    "batch size 0": ([*FIT, "--data.batch_size=0"], ["batch_size=0"]),
    "batch size negative": ([*FIT, "--data.batch_size=-4"], ["batch_size=-4"]),
    "evaluation batch size 0": ([*FIT, "--data.eval_batch_size=0"], ["eval_batch_size=0"]),
    "batch size beyond the data": ([*FIT, "--data.batch_size=481"], ["batch_size=481", "480"]),
    "batch size no whole number": ([*FIT, "--data.batch_size=1.5"], ["data.batch_size", "1.5", "int"]),
    "batch size no number": ([*FIT, "--data.batch_size=many"], ["data.batch_size", "many", "int"]),
    "val_fraction 0": ([*FIT, "--data.val_fraction=0"], ["val_fraction=0"]),
    "val_fraction 1": ([*FIT, "--data.val_fraction=1"], ["val_fraction=1"]),
    "val_fraction negative": ([*FIT, "--data.val_fraction=-0.2"], ["val_fraction=-0.2"]),
    "val_fraction nan": ([*FIT, "--data.val_fraction=.nan"], ["val_fraction=nan"]),
    "val_fraction of nothing": ([*FIT, "--data.val_fraction=0.0001"], ["val_fraction=0.0001"]),
    "more samples than there are": ([*FIT, "--data.train_samples=481"], ["train_samples=481", "480"]),
    "unknown optimizer": ([*FIT, "--model.optimizer=Adamm"], ["Adamm", "model.optimizer"]),
    "optimizer of no module": ([*FIT, "--model.optimizer=nowhere.Adam"], ["nowhere", "model.optimizer"]),
    "unknown scheduler": ([*FIT, "--model.lr_scheduler=Stepp"], ["Stepp", "model.lr_scheduler"]),
    "unknown data set": ([*FIT, "--data.dataset=CIFAR"], ["CIFAR", "KMNIST"]),
    "unknown split": ([*FIT, "--data.split=first"], ["first", "last"]),
    "unknown initializer": ([*FIT, "--model.network.init=glorot"], ["glorot", "glorot_uniform"]),
    "unknown activation": ([*FIT, "--model.network.activation=step"], ["step", "relu"]),
    "unknown network": ([*FIT, "--model.network=lesson.network.MPL"], ["lesson.network.MPL", "model.network"]),
    "network of no module": ([*FIT, "--model.network=nowhere.Net"], ["nowhere", "model.network"]),
    "empty config": ([*FIT, "-c", "a_file"], ["a_file"]),
    "binary config": ([*FIT, "-c", "empty/../run/checkpoints/last.ckpt"], ["last.ckpt"]),
    "network that is none": ([*FIT, "--model.network=pathlib.Path"], ["pathlib.Path", "model.network"]),
    "unknown model": ([*FIT, "--model=lesson.module.Lit"], ["lesson.module.Lit", "model"]),
    "unknown data module": ([*FIT, "--data=lesson.datamodule.Nothing"], ["lesson.datamodule.Nothing", "data"]),
    "widths do not match the images": ([*FIT, "--model.network.widths=[100,10]"], ["model.network", "784"]),
    "too few outputs": ([*FIT, "--model.network.widths=[784,5]"], ["model.network", "10 outputs"]),
    "one width": ([*FIT, "--model.network.widths=[784]"], ["widths=[784]"]),
    "width of 0": ([*FIT, "--model.network.widths=[784,0,10]"], ["widths=[784, 0, 10]"]),
    "widths no numbers": ([*FIT, "--model.network.widths=[784,wide,10]"], ["model.network", "wide"]),
    "scale not finite": ([*FIT, "--model.network.init_scale=.inf"], ["init_scale=inf"]),
    "logs_dir under a file": ([*FIT, "--logs_dir=a_file/logs"], ["logs_dir=a_file/logs", "not a folder"]),
    "logs_dir is a file": ([*FIT, "--logs_dir=a_file"], ["logs_dir=a_file", "not a folder"]),
    "logs_dir cannot be written": ([*FIT, "--logs_dir=/proc/logs"], ["logs_dir=/proc/logs", "cannot write"]),
    "experiment under a file": ([*FIT, "--logs_dir=.", "--experiment=a_file"], ["a_file", "not a folder"]),
    "unknown accelerator": ([*FIT, "--trainer.accelerator=gpus"], ["gpus"]),
    "accelerator not here": ([*FIT, "--trainer.accelerator=tpu"], ["tpu"]),
    "devices no number": ([*FIT, "--trainer.devices=0"], ["devices"]),
    "unknown precision": ([*FIT, "--trainer.precision=8"], ["precision"]),
    "epochs no number": ([*FIT, "--trainer.max_epochs=ten"], ["trainer.max_epochs", "ten", "int"]),
    "seed negative": ([*FIT, "--seed_everything=-1"], ["seed_everything", "-1"]),
    "data cannot be had": ([*FIT, "--data.data_dir=nowhere"], ["nowhere/MNIST/raw"]),
    "test of nothing": (TEST, ["ckpt_path"]),
    "validate of nothing": (["validate"], ["ckpt_path"]),
    "predict of nothing": (["predict"], ["ckpt_path"]),
    "checkpoint not there": ([*TEST, "--ckpt_path=nowhere.ckpt"], ["ckpt_path=nowhere.ckpt"]),
    "checkpoint not there, to go on": ([*FIT, "--ckpt_path=nowhere.ckpt"], ["ckpt_path=nowhere.ckpt"]),
    "checkpoint left out": ([*TEST, "--ckpt_path"], ["ckpt_path"]),
    "checkpoint truncated": ([*TEST, "--ckpt_path=truncated.ckpt"], ["ckpt_path=truncated.ckpt"]),
    "checkpoint empty": ([*TEST, "--ckpt_path=empty.ckpt"], ["ckpt_path=empty.ckpt"]),
    "checkpoint is text": ([*TEST, "--ckpt_path=text.ckpt"], ["ckpt_path=text.ckpt"]),
    "checkpoint hostile": ([*TEST, "--ckpt_path=hostile.ckpt"], ["ckpt_path=hostile.ckpt", "code"]),
    "checkpoint hostile, zipped": ([*TEST, "--ckpt_path=hostile_zip.ckpt"], ["ckpt_path=hostile_zip.ckpt", "code"]),
    "checkpoint hostile, to go on": (["fit", "--ckpt_path=hostile_zip.ckpt"], ["hostile_zip.ckpt", "code"]),
    "checkpoint without weights": ([*TEST, "--ckpt_path=no_state_dict.ckpt"], ["no_state_dict.ckpt", "state_dict"]),
    "checkpoint without an epoch": ([*TEST, "--ckpt_path=no_epoch.ckpt"], ["no_epoch.ckpt", "no epoch"]),
    "checkpoint without a step": (["fit", "--ckpt_path=no_global_step.ckpt"], ["no global_step"]),
    "checkpoint without a version": (
        [*TEST, "--ckpt_path=no_pytorch-lightning_version.ckpt"],
        ["no pytorch-lightning_version"],
    ),
    "checkpoint of epoch three": ([*TEST, "--ckpt_path=epoch_text.ckpt"], ["epoch_text.ckpt", "three"]),
    "state dict a list": ([*TEST, "--ckpt_path=state_list.ckpt"], ["state_list.ckpt", "state_dict", "list"]),
    "state dict of numbers": ([*TEST, "--ckpt_path=state_numbers.ckpt"], ["state_numbers.ckpt", WEIGHTS[:6], "int"]),
    "config a number": ([*TEST, "--ckpt_path=config_number.ckpt"], ["config_number.ckpt", "config", "int"]),
    "hyper-parameters a list": ([*TEST, "--ckpt_path=hyper_list.ckpt"], ["hyper_parameters", "list"]),
    "table damaged": (["fit", "--ckpt_path=damaged", "--trainer.max_epochs=9"], ["damaged/metrics.csv", "much"]),
    "table damaged, to diagnose": (["diagnose", "damaged"], ["damaged/metrics.csv", "much"]),
    "diagnosis damaged": (["diagnose", "misjudged"], ["misjudged/diagnosis.json"]),
    "rate beyond all numbers": ([*FIT, f"{LR}=1e308"], ["model.optimizer.lr=1e+308"]),
    "no batches to accumulate": ([*FIT, "--trainer.accumulate_grad_batches=0"], ["trainer.accumulate_grad_batches=0"]),
    "validation never": ([*FIT, "--trainer.check_val_every_n_epoch=0"], ["trainer.check_val_every_n_epoch=0"]),
    "validation after nothing": ([*FIT, "--trainer.val_check_interval=0"], ["trainer.val_check_interval=0"]),
    "devices negative": ([*FIT, "--trainer.devices=-1"], ["trainer.devices=-1"]),
    "nodes none": ([*FIT, "--trainer.num_nodes=0"], ["trainer.num_nodes=0"]),
    "width of 1e9": ([*FIT, "--model.network.widths=[784,1000000000,10]"], ["model", "memory", "3136000000000"]),
    "validation after too much": ([*FIT, "--trainer.val_check_interval=99999"], ["trainer.val_check_interval=99999"]),
    "no epochs": ([*FIT, "--trainer.max_epochs=0"], ["trainer.max_epochs=0", "trains nothing"]),
    "no batches": ([*FIT, "--trainer.limit_train_batches=0"], ["trainer.limit_train_batches=0", "trains nothing"]),
    "a number beyond all": ([*FIT, f"--trainer.accumulate_grad_batches=1{'0' * 20}"], ["accumulate_grad_batches"]),
    "workers beyond all": ([*FIT, "--data.num_workers=100000"], ["data.num_workers=100000", "processes"]),
    "devices beyond all": ([*FIT, "--trainer.devices=100000"], ["trainer.devices=100000", "processes"]),
    "workers of a sweep beyond all": (["sweep", "--workers=100000", "--space={a: [1]}"], ["workers=100000"]),
    "experiment null": ([*FIT, "-c", "no_experiment.yaml"], ["experiment"]),
    "experiment empty": ([*FIT, "--experiment="], ["experiment="]),
    "experiment too long": ([*FIT, f"--experiment={'a' * 256}"], ["experiment=aaa", "255"]),
    "logs_dir too long": ([*FIT, f"--logs_dir={'a' * 256}"], ["logs_dir=aaa", "255"]),
    "checkpoint's name too long": ([*TEST, f"--ckpt_path={'a' * 256}"], ["ckpt_path=aaa", "255"]),
    "logs_dir a link to nothing": ([*FIT, "--logs_dir=dangling"], ["logs_dir=dangling", "link"]),
    "experiment a link to nothing": ([*FIT, "--logs_dir=.", "--experiment=dangling"], ["experiment", "link"]),
    "data_dir a link to nothing": ([*FIT, "--data.data_dir=dangling"], ["data_dir=dangling"]),
    "checkpoint a link to nothing": ([*TEST, "--ckpt_path=dangling"], ["ckpt_path=dangling"]),
    "labels of -1": ([*OWN, "--data.kind=minus"], ["labels", "-1"]),
    "labels of 99": ([*OWN, "--data.kind=many"], ["model.network", "100 outputs"]),
    "labels no whole numbers": ([*OWN, "--data.kind=floats"], ["labels", "float"]),
    "loader empty": ([*OWN, "--data.kind=empty"], ["train_dataloader", "no batch"]),
    "loader that ends at once": ([*OWN, "--data.kind=ends"], ["train_dataloader", "no batch"]),
    "checkpoint of another network": ([*TEST, "--ckpt_path=other.ckpt"], ["other.ckpt", WEIGHTS, "(7, 784)"]),
    "no run folder": ([*TEST, "--ckpt_path=no_run"], ["ckpt_path=no_run"]),
    "contradiction: widths": (
        [*TEST, RUN, "--model.network.widths=[784,30,10]"],
        ["model.network.widths", "[784, 30, 10]", "[784, 10]"],
    ),
    "contradiction: rate": (
        ["fit", RUN, "--trainer.max_epochs=9", f"{LR}=0.5"],
        ["model.optimizer.lr", "0.5", "0.01"],
    ),
    "contradiction: optimizer": (["fit", RUN, "--trainer.max_epochs=9", "--model.optimizer=SGD"], ["SGD", "RMSprop"]),
    "contradiction: seed": (
        ["fit", RUN, "--trainer.max_epochs=9", "--seed_everything=7"],
        ["seed_everything", "7", "0"],
    ),
    "contradiction: batch size": (
        ["fit", RUN, "--trainer.max_epochs=9", "--data.batch_size=32"],
        ["data.batch_size", "32", "64"],
    ),
    "nothing left to train": (["fit", RUN], ["max_epochs"]),
    "predict folder not there": (["predict", RUN, "--data.predict_dir=nowhere"], ["predict_dir", "nowhere"]),
    "predict folder empty": (["predict", RUN, "--data.predict_dir=empty"], ["predict_dir", "empty"]),
    "predict folder without images": (["predict", RUN, "--data.predict_dir=no_images"], ["notes.png", "no_images"]),
}  # fmt: skip


def check_refusal(code: Any, out: str, err: str, named: list[str]) -> None:
    assert code == 2
    assert out == ""
    lines = [line for line in err.splitlines() if not line.startswith("Fetching ")]  # it takes a while, and says so
    assert len(lines) == 1, err
    assert lines[0].startswith("unstall: error: ")
    assert "Traceback" not in err
    for word in named:
        assert word in lines[0]


@pytest.mark.parametrize("name", CASES)
def test_one_line_and_nothing_left(
    name: str, workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, named = CASES[name]
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr("urllib.request._opener", None)  # urllib keeps the proxies that it first saw
    monkeypatch.setenv("no_proxy", "")
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens there
    for variable in ("PIP_NO_INDEX", "UV_OFFLINE"):
        monkeypatch.setenv(variable, "1")
    before = listing(workplace)
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    out, err = capfd.readouterr()
    check_refusal(exit_.value.code, out, err, named)
    assert listing(workplace) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes, where the system lets us mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount here")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk_is_refused_before_a_folder_is_made(
    workplace: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    with pytest.raises(SystemExit) as exit_:  # 784-512-10 has 1.6 MB of weights
        main([*FIT, f"--logs_dir={small_disk}"])
    out, err = capfd.readouterr()
    check_refusal(exit_.value.code, out, err, ["logs_dir", "3.1 MB"])
    assert listing(small_disk) == []


@pytest.mark.filterwarnings("ignore")  # of what TensorBoard's own thread could not write
def test_disk_that_fills_up_in_mid_run_is_one_line(
    workplace: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workplace)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10**12}))
    with pytest.raises(SystemExit) as exit_:
        main([*FIT, f"--logs_dir={small_disk}", "--trainer.enable_progress_bar=false"])
    _, err = capfd.readouterr()
    assert exit_.value.code == 2
    assert err.splitlines()[-1].startswith("unstall: error: ")
    assert "No space left" in err.splitlines()[-1]
    assert "Traceback" not in err
