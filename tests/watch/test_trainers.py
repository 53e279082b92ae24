"""What a trainer says of itself."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.demos.boring_classes import BoringModel
from torch.utils.data import DataLoader, TensorDataset

from unstall.watch.trainers import clip_norm, has_more_than, is_last_epoch, is_rehearsal

QUIET: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches", "ignore:.*GPU available"
)


def test_the_limit_of_the_norm() -> None:
    assert clip_norm(pl.Trainer(gradient_clip_val=0.5, logger=False, **QUIET)) == 0.5
    assert clip_norm(pl.Trainer(logger=False, **QUIET)) is None
    by_value = pl.Trainer(gradient_clip_val=0.5, gradient_clip_algorithm="value", logger=False, **QUIET)
    assert clip_norm(by_value) is None


class Asked(pl.Callback):
    def __init__(self) -> None:
        self.last: list[bool] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.more = [has_more_than(samples, trainer) for samples in (8, 32, None)]
        self.last.append(is_last_epoch(trainer))
        self.rehearses = is_rehearsal(trainer)


@pytest.mark.parametrize("options", [{"max_epochs": 2}, {"fast_dev_run": True}, {"overfit_batches": 1}])
def test_of_a_fit(options: dict[str, Any], tmp_path: Any) -> None:
    asked, data = Asked(), DataLoader(TensorDataset(torch.randn(32, 32)), 8, collate_fn=lambda rows: rows[0][0][None])
    options = {"max_epochs": 1, "default_root_dir": tmp_path, "enable_checkpointing": False, **options}
    pl.Trainer(callbacks=[asked], **QUIET, **options).fit(BoringModel(), data)
    assert asked.more == [not options.get("overfit_batches"), False, False]
    assert asked.last[-1]
    assert asked.last[:-1] == [False] * (len(asked.last) - 1)
    assert asked.rehearses == bool(options.get("fast_dev_run"))
