"""What a trial reports while it trains, and what ends it early."""

import importlib.util
import warnings
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from unstall.sweep.trial import UnmeasuredError, Watch
from unstall.watch import Diagnosis

pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


class Lit(pl.LightningModule):
    """Two classes of points by their sign, at any rate; logs `val_loss`."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr
        self.layer = torch.nn.Linear(4, 2)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def trained(lr: float, pruner: Any = None, metric: str = "val/loss", by_diagnosis: bool = True, epochs: int = 3) -> Any:
    """Optuna's trial, and its callback, after a fit of 40 steps an epoch."""
    import optuna

    study = optuna.create_study(pruner=pruner or optuna.pruners.NopPruner())
    trial = study.ask()
    watch = Watch(trial, metric, maximize=False, by_diagnosis=by_diagnosis)
    pl.seed_everything(0)
    points = torch.randn(320, 4)
    loader = DataLoader(TensorDataset(points, (points[:, 0] > 0).long()), 8, shuffle=True)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=[Diagnosis(), watch], enable_model_summary=False, **quiet
        )
        trainer.fit(Lit(lr), loader, loader)
    watch.note()
    return study.trials[0], watch


def test_its_best_validation_is_what_it_is_judged_by() -> None:
    trial, watch = trained(0.1)
    assert list(trial.intermediate_values) == [0, 1, 2]
    assert watch.best == min(trial.intermediate_values.values())
    assert watch.given_up is None
    assert trial.user_attrs["steps"] == 120
    assert "cause" not in trial.user_attrs


def test_a_hopeless_one_is_stopped_by_its_diagnosis_and_noted_with_its_cause() -> None:
    trial, watch = trained(float("inf"), epochs=6)
    assert watch.given_up == "diagnosis"
    assert trial.user_attrs["given_up"] == "diagnosis"
    assert trial.user_attrs["cause"] == "non-finite loss"
    assert trial.user_attrs["steps"] < 120
    assert "no longer finite" in trial.user_attrs["sentence"]


def test_it_goes_on_where_the_diagnosis_is_not_asked() -> None:
    trial, watch = trained(float("inf"), by_diagnosis=False)
    assert watch.given_up == "not finite"
    assert trial.user_attrs["steps"] == 120


def test_what_the_pruner_gives_up_is_stopped() -> None:
    import optuna

    trial, watch = trained(0.1, optuna.pruners.ThresholdPruner(upper=0.0))
    assert watch.given_up == "pruner"
    assert list(trial.intermediate_values) == [0]


def test_a_metric_that_is_not_logged_is_said_with_those_that_are() -> None:
    with pytest.raises(UnmeasuredError, match="metric=val/f1: is not logged, but val_loss"):
        trained(0.1, metric="val/f1")
