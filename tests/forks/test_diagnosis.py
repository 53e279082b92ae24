"""The same report from a module, in whatever form its data come, as from the folder of its run."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from forks.blobs import Batch, Lit
from unstall.causes import FAULTS
from unstall.errors import UsageError
from unstall.find import find_learning_rate
from unstall.forks.diagnosis import diagnose_module, diagnose_run
from unstall.forks.report import summary
from unstall.forks.tried import Report
from unstall.runs import write_json
from unstall.trials import State
from unstall.watch import Cause, Signals

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")  # Lightning's


def samples(first: int, count: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (1500,), generator=generator)
    inputs = torch.randn(10, 20, generator=generator)[labels] + 0.5 * torch.randn(1500, 20, generator=generator)
    return TensorDataset(inputs[first : first + count], labels[first : first + count])


def training_loader() -> DataLoader[Any]:
    return DataLoader(samples(0, 1000), 100, shuffle=True)


def validation_loader() -> DataLoader[Any]:
    return DataLoader(samples(1000, 500), 250)


class Data(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return training_loader()

    def val_dataloader(self) -> Any:
        return validation_loader()


class WithLoaders(Lit):
    """A module that brings its data."""

    def train_dataloader(self) -> DataLoader[Any]:
        return training_loader()

    def val_dataloader(self) -> DataLoader[Any]:
        return validation_loader()


def make_trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return pl.Trainer(**quiet, accelerator="cpu", max_epochs=5, default_root_dir=folder, **arguments)


def diagnosed(module: pl.LightningModule, *arguments: Any, **options: Any) -> Report:
    """The report, after making sure that it leaves no trace."""
    torch.manual_seed(0)
    weights = {name: value.clone() for name, value in module.state_dict().items()}
    random = torch.random.get_rng_state()
    report = diagnose_module(module, *arguments, **options)
    assert torch.equal(random, torch.random.get_rng_state())
    assert weights.keys() == module.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in module.state_dict().items())
    assert module._trainer is None
    return report


CONFIG = {"model": {"class_path": "x.Lit", "init_args": {"rate": 1e-5, "lr": 1e-5}}}


@pytest.mark.parametrize("started", [False, True])
def test_a_module_gets_the_report_that_its_run_would_get(started: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    module, trainer = Lit(1e-5), make_trainer(tmp_path)
    weights = Lit(1e-5, seed=2).state_dict()
    checkpoint = {"state_dict": weights, "optimizer_states": [], "lr_schedulers": []} if started else None
    found = diagnosed(
        module,
        Data(),
        trainer,
        config=CONFIG,
        rebuild=lambda overlay: Lit(1e-5),
        start=State(weights) if started else None,
    )
    torch.manual_seed(0)
    of_run = diagnose_run(
        tmp_path / "run",
        module,
        Data(),
        trainer,
        config=CONFIG,
        rebuild=lambda overlay: Lit(1e-5),
        checkpoint=checkpoint,
    )
    assert found == of_run
    assert found.verdict.cause == Cause.TOO_LOW
    assert any("from here on" in fork.change for fork in found.forks) == started


def test_data_come_in_all_forms_that_a_fit_takes(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    whole = diagnosed(Lit(1e-5), Data(), trainer)
    assert whole.verdict.cause == Cause.TOO_LOW
    assert diagnosed(Lit(1e-5), (training_loader(), validation_loader()), trainer) == whole
    module = WithLoaders(1e-5)
    assert diagnosed(module, None, trainer) == whole
    assert diagnosed(module, module, trainer) == whole
    one = diagnosed(Lit(1e-5), training_loader(), trainer)
    assert one.verdict.cause == Cause.TOO_LOW
    assert one != whole, "its first batches are held out"


def test_without_a_trainer_a_fit_has_lightnings_defaults() -> None:
    assert diagnosed(WithLoaders(1e-5)).verdict.cause == Cause.TOO_LOW


def test_a_rebuilt_module_is_set_up_as_well(tmp_path: Path) -> None:
    class Late(Lit):
        def __init__(self, scale: float) -> None:
            super().__init__(1e-2, "Adam")
            self.scale = scale
            del self.network

        def setup(self, stage: str) -> None:
            if not hasattr(self, "network"):
                self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
                nn.init.constant_(self.network[0].bias, -1000.0 * self.scale)

    built: list[dict[str, Any]] = []

    def rebuild(overlay: dict[str, Any]) -> Late:
        built.append(overlay["model"])
        return Late(0.0)

    config = {"model": {"init_scale": 1000.0, "activation": "relu"}}
    report = diagnosed(Late(1.0), Data(), make_trainer(tmp_path), config=config, rebuild=rebuild)
    assert built == [{"init_scale": 1.0}]
    assert any(fork.change.startswith("init_scale 1.0") and fork.mends for fork in report.forks)


def test_known_signals_are_believed(tmp_path: Path) -> None:
    signals = Signals(step=777, baseline=2.3, batch_size=100)
    assert diagnosed(Lit(1e-5), Data(), make_trainer(tmp_path), signals=signals).verdict.step == 777


def test_what_has_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="data=Lit: it has no train_dataloader"):
        diagnose_module(Lit(0.1))
    with pytest.raises(UsageError, match="no batch"):
        diagnose_module(Lit(0.1), DataLoader(samples(0, 0), 10))
    with pytest.raises(UsageError, match="held_out=0"):
        diagnose_module(Lit(0.1), (training_loader(), DataLoader(samples(0, 0), 10)), make_trainer(tmp_path))


def test_a_run_folder_gets_the_whole_diagnosis(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    stalled = Lit(1e-5)
    checkpoint = {"state_dict": stalled.state_dict(), "optimizer_states": [], "lr_schedulers": []}
    found = diagnose_run(
        tmp_path / "run",
        stalled,
        Data(),
        make_trainer(tmp_path),
        config=CONFIG,
        rebuild=lambda overlay: Lit(overlay["model"]["init_args"]["lr"]),
        checkpoint=checkpoint,
    )
    assert found.verdict.cause == Cause.TOO_LOW
    assert found.fix is not None
    assert found.fix.overlay is not None
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"diagnosis.json", "diagnosis.png", "fix.yaml"} <= names
    assert any(name.startswith("events") for name in names)
    fixed = yaml.safe_load((tmp_path / "run/fix.yaml").read_text())
    assert fixed["model"]["init_args"]["lr"] > 1e-3
    assert any("from here on" in fork.change for fork in found.forks)


def test_where_nothing_can_be_forked_what_is_known_for_certain_is_reported(tmp_path: Path) -> None:
    class ByHand(Lit):
        def __init__(self) -> None:
            super().__init__(0.1)
            self.automatic_optimization = False

    how: dict[str, Any] = {"config": CONFIG, "rebuild": lambda _: ByHand()}
    with pytest.raises(UsageError, match="manual optimization cannot be raced"):
        diagnose_run(tmp_path, ByHand(), Data(), make_trainer(tmp_path), **how)
    kept = [{"fault": fault, "sentence": "It is so", "remedy": "mend it"} for fault in FAULTS if fault.certain]
    write_json(tmp_path / "diagnosis.json", {"findings": kept[:2], "signals": None})
    report = diagnose_run(tmp_path, ByHand(), Data(), make_trainer(tmp_path), **how)
    assert (report.verdict.cause, report.verdict.sentence, report.forks) == (kept[0]["fault"], "It is so", ())
    assert "nothing was tried: model=ByHand: manual optimization" in summary(tmp_path, report)
    assert "What to do: mend it" in summary(tmp_path, report)
    assert "change" not in summary(tmp_path, report)


class Stream(IterableDataset[Batch]):
    def __iter__(self) -> Iterator[Batch]:
        yield from samples(0, 200)  # type: ignore[misc]


class Streamed(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Stream(), 20)

    def val_dataloader(self) -> DataLoader[Any]:
        return validation_loader()


class NoValidation(pl.LightningDataModule):
    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(samples(0, 200), 20)


class TwoValidations(Data):
    def val_dataloader(self) -> Any:
        return [validation_loader(), validation_loader()]


class Demanding(Lit):
    """Builds its network, or asks its trainer, where `kind` says."""

    def __init__(self, kind: str) -> None:
        super().__init__(0.1)
        self.kind = kind
        if kind == "setup":
            del self.network

    def setup(self, stage: str) -> None:
        if self.kind == "setup":
            self.network = nn.Sequential(nn.Linear(20, 10))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        if self.kind == "schedule":
            assert math.isfinite(self.trainer.estimated_stepping_batches)
        return super().configure_optimizers()


@pytest.mark.parametrize(
    ("kind", "data"), [("schedule", Streamed()), ("setup", NoValidation()), ("", TwoValidations())]
)
def test_finder_and_forks_take_what_a_fit_takes(kind: str, data: pl.LightningDataModule, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_steps=30)
    assert find_learning_rate(Demanding(kind), data, trainer, num_rates=3, steps=90).learning_rate > 1e-3
    module = Demanding(kind)
    report = diagnose_run(tmp_path, module, data, trainer, config={}, rebuild=lambda overlay: Demanding(kind))
    assert len(report.forks) > 5
    assert (tmp_path / "diagnosis.json").exists()
    assert module._trainer is None
