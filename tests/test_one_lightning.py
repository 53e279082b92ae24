"""`lightning` and `pytorch_lightning` are one, whether the first is installed or not, and whichever came first."""

import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl

import unstall
from unstall.one_lightning import OneLightning, install

MODULE = """
import lightning as L
import torch
from torch.utils.data import DataLoader, TensorDataset


class Module(L.LightningModule):
    def __init__(self, lr: float = 1e-7) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = torch.nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        return torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Data(L.LightningDataModule):
    def train_dataloader(self):
        inputs = torch.randn(640, 8, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(inputs, (inputs[:, 0] > 0).long()), 32)
"""
IN_PYTHON = """
import sys
import lightning as L
import written  # the module, before unstall is imported
if "both" in sys.argv:
    import pytorch_lightning
import unstall

quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
callbacks = [] if "both" in sys.argv else [unstall.Diagnosis()]
trainer = L.Trainer(accelerator="cpu", max_epochs=2, callbacks=callbacks, **quiet)
for ask in (unstall.find_learning_rate, unstall.diagnose):
    try:
        found = ask(written.Module(), written.Data(), trainer)
        print(ask.__name__, found.learning_rate if "find" in ask.__name__ else found.verdict.cause.value)
    except unstall.UsageError as error:
        print(error)
if callbacks:
    trainer.fit(written.Module(), written.Data())
    print("watched", callbacks[0].meter is not None)
"""


def test_the_second_name_is_the_first_ones_modules() -> None:
    lightning = importlib.import_module("lightning")
    callbacks = importlib.import_module("lightning.pytorch.callbacks")
    assert lightning.LightningModule is pl.LightningModule
    assert lightning.pytorch is pl
    assert callbacks is pl.callbacks
    assert importlib.import_module("lightning.fabric.utilities.seed") is importlib.import_module(
        "lightning_fabric.utilities.seed"
    )
    assert {"LightningDataModule", "Trainer", "Callback", "Fabric", "seed_everything"} <= set(dir(lightning))
    assert pl.__spec__ is not None
    assert (pl.__name__, pl.__spec__.name, callbacks.__spec__.name) == (
        "pytorch_lightning",
        "pytorch_lightning",
        "pytorch_lightning.callbacks",
    )
    with pytest.raises(ModuleNotFoundError, match=r"lightning\.nonsense"):
        importlib.import_module("lightning.nonsense")


def test_it_is_installed_once() -> None:
    install()
    assert sum(isinstance(finder, OneLightning) for finder in sys.meta_path) == 1


def test_a_module_of_the_other_name_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "written.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "written", raising=False)
    words = ["--model=written.Module", "--data=written.Data", "--trainer.accelerator=cpu", "--trainer.max_epochs=1"]
    early = "{class_path: lightning.pytorch.callbacks.ModelSummary}"
    run = unstall.run(["fit", *words, "--trainer.enable_progress_bar=false", f"--trainer.callbacks+={early}"])
    assert (run / "checkpoints" / "last.ckpt").is_file()
    written = importlib.import_module("written")
    assert unstall.find_learning_rate(written.Module(), written.Data(), steps=140).learning_rate > 1e-4


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the distribution `lightning`: the source of both packages, by their other names."""
    folder = tmp_path_factory.mktemp("installed")
    for name, part in (("pytorch_lightning", "pytorch"), ("lightning_fabric", "fabric")):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        source = Path(spec.submodule_search_locations[0])
        for file in (*source.rglob("*.py"), *source.rglob("*.info")):
            text = re.sub(r"\bpytorch_lightning\b", "lightning.pytorch", file.read_text())
            copied = folder / "lightning" / part / file.relative_to(source)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_text(re.sub(r"\blightning_fabric\b", "lightning.fabric", text))
    (folder / "lightning" / "__init__.py").write_text(
        "from lightning.fabric.fabric import Fabric\n"
        "from lightning.fabric.utilities.seed import seed_everything\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "from lightning.pytorch.core import LightningDataModule, LightningModule\n"
        "from lightning.pytorch.trainer import Trainer\n"
    )
    (folder / "written.py").write_text(MODULE)
    return folder


def in_python(folder: Path, *words: str) -> str:
    start = "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
    command = [sys.executable, "-c", start + IN_PYTHON, str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout


@pytest.mark.slow
def test_where_lightning_is_installed_and_came_first_it_is_the_one(installed: Path) -> None:
    lines = in_python(installed).splitlines()
    assert float(lines[0].removeprefix("find_learning_rate ")) > 1e-4
    assert lines[1] == "diagnose learning rate too low"
    assert lines[-1] == "watched True"


@pytest.mark.slow
def test_where_both_were_loaded_before_it_is_said_what_to_change(installed: Path) -> None:
    lines = in_python(installed, "both").splitlines()
    assert len(lines) == 2
    for line in lines:
        assert "model=Module: of another Lightning than pytorch_lightning" in line
        assert "import unstall first" in line
