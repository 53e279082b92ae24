"""Anyone's module goes through every instrument: with a result, or with one line that says what to change."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

import unstall
from zoo import traits


def fit(module: pl.LightningModule, data: Any, trainer: pl.Trainer) -> None:
    training = data if isinstance(data, tuple) else (data,)
    if isinstance(data, pl.LightningDataModule):
        trainer.fit(module, datamodule=data)
    else:
        trainer.fit(module, *training)
    (watch,) = (callback for callback in trainer.callbacks if isinstance(callback, unstall.Diagnosis))  # type: ignore[attr-defined]
    assert watch.verdict is not None or not watches(trainer)


def watches(trainer: pl.Trainer) -> bool:
    """Whether there is one optimizer that holds something."""
    return trainer.lightning_module.automatic_optimization and len(trainer.optimizers[0].param_groups) > 0


def find(module: pl.LightningModule, data: Any, trainer: pl.Trainer) -> None:
    search = unstall.find_learning_rate(module, data, trainer, num_rates=2, steps=30)
    assert 1e-7 <= search.learning_rate <= 1e2


def diagnose(module: pl.LightningModule, data: Any, trainer: pl.Trainer) -> None:
    report = unstall.diagnose(module, data, trainer)
    assert "nan" not in report.verdict.sentence.split()
    assert report.verdict.sentence


INSTRUMENTS: dict[str, Callable[[Any, Any, pl.Trainer], None]] = {"fit": fit, "find": find, "diagnose": diagnose}
ZOO = [
    trait
    for trait in vars(traits).values()
    if isinstance(trait, type) and issubclass(trait, pl.LightningModule) and trait is not pl.LightningModule
]


@pytest.mark.filterwarnings("ignore")  # of Lightning, torch and the modules themselves: they are as they are
@pytest.mark.parametrize("instrument", INSTRUMENTS)
@pytest.mark.parametrize("trait", ZOO, ids=lambda trait: trait.__name__)
def test_anyones_module(trait: Any, instrument: str, tmp_path: Path) -> None:
    pl.seed_everything(0)
    module, data = trait(), trait.data()
    watched = instrument == "fit"
    trainer = pl.Trainer(
        accelerator="auto",
        max_epochs=1,
        max_steps=10,
        default_root_dir=tmp_path,
        logger=False,
        callbacks=[unstall.Diagnosis(every_n_steps=5)] if watched else [],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    line = trait.refused.get(instrument)
    if line is None:
        INSTRUMENTS[instrument](module, data, trainer)
        return
    with pytest.raises(unstall.UsageError if line else Exception, match=line) as refusal:
        INSTRUMENTS[instrument](module, data, trainer)
    assert "\n" not in str(refusal.value) or not line
