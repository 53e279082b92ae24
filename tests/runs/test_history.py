"""The table of a run."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.runs.history import History, read_metrics, write_metrics

DATA = TensorDataset(torch.zeros(40, 1), torch.arange(40) % 3)


class Counting(pl.LightningModule):
    """Its loss is the number of the epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = 0 * self.layer(batch[0]).sum() + self.current_epoch
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_metrics_table_survives_its_file(tmp_path: Path) -> None:
    rows = [{"epoch": 0.0, "a": 1 / 3}, {"epoch": 1.0, "a": math.nan, "b": math.inf}]
    write_metrics(tmp_path / "metrics.csv", rows)
    first, second = read_metrics(tmp_path / "metrics.csv")
    assert first == rows[0]
    assert math.isnan(second["a"])
    assert second["b"] == math.inf
    assert read_metrics(tmp_path / "nowhere.csv") == []


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_a_row_follows_each_epoch_and_a_resumed_run_takes_up_only_the_rows_before_it(tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> None:
        history = History()
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[history],
            logger=TensorBoardLogger(str(tmp_path), name="x", version="y"),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            log_every_n_steps=1,
            accelerator="cpu",
        )
        trainer.fit(Counting(), DataLoader(DATA, 16), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")

    fit(2)
    fit(4)  # another run of the same name has gone on
    fit(3, tmp_path / "2.ckpt")
    rows = read_metrics(tmp_path / "x" / "y" / "metrics.csv")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert [row["samples_seen"] for row in rows] == [40, 80, 120]
    labels = DATA.tensors[1].tolist()
    shares = [labels.count(label) / 40 for label in set(labels)]
    assert [row["prior_loss"] for row in rows] == pytest.approx([-sum(p * math.log(p) for p in shares)] * 3)
    assert [row["chance_accuracy"] for row in rows] == [max(shares)] * 3
    assert [row["train_loss"] for row in rows] == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("text", ["epoch,a\n0,much\n", "epoch,a\n0,1,2\n", "a\n1\n", "epoch\n\0\xff\n"])
def test_a_damaged_table_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"metrics\.csv: damaged"):
        read_metrics(tmp_path / "metrics.csv")
