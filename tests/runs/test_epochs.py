"""A line an epoch, whatever the metrics are called."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from unstall.runs.epochs import EpochLines, in_words, number, ordered


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (
            {"val/accuracy": 0.9, "train/accuracy": 0.5, "val/loss": 0.25, "train/loss": 1.0},
            "train loss 1.000 accuracy 0.5000  val loss 0.2500 accuracy 0.9000",
        ),
        (
            {"loss/train_mse": 2.0, "loss/train_mse_step": 9.0, "loss/train_mse_epoch": 2.0, "val_auroc": 0.75},
            "loss/train_mse 2.000  val auroc 0.7500",
        ),
        ({"perplexity": 12345.6}, "perplexity 1.235e+04"),
        ({"valid_loss/dataloader_idx_1": 1e-7}, "val loss/dataloader_idx_1 1.000e-07"),
    ],
)
def test_names_of_any_kind_are_told_in_the_order_of_reading(metrics: dict[str, float], words: str) -> None:
    assert in_words(metrics) == words


def test_more_than_fit_in_a_line_are_counted() -> None:
    assert in_words({f"m{k}": 1.0 for k in range(5)}, most=3) == "m0 1.000  m1 1.000  m2 1.000  and 2 more"
    assert list(ordered({"b": 0, "val_acc": 0, "val_loss": 0, "training_f1": 0})) == [
        "training_f1",
        "val_loss",
        "val_acc",
        "b",
    ]
    assert [number(value) for value in (0.97284, 653.123, float("nan"))] == ["0.9728", "653.1", "nan"]


class Line(pl.LightningModule):
    """Fits a line; logs what it is told to."""

    def __init__(self, logs: str | None) -> None:
        super().__init__()
        self.layer, self.logs, self.losses = torch.nn.Linear(1, 1), logs, list[float]()

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[0])
        self.losses.append(float(loss.detach()))
        if self.logs:
            self.log(self.logs, loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_mae", (self.layer(batch[0]) - batch[0]).abs().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def lines(module: Line, capsys: pytest.CaptureFixture[str], path: Path, **options: Any) -> list[str]:
    loader = DataLoader(TensorDataset(torch.linspace(-1, 1, 8).reshape(8, 1)), 2)
    trainer = pl.Trainer(
        callbacks=[EpochLines()],
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
        default_root_dir=path,
        **options,
    )
    trainer.fit(module, loader, loader)
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_module_that_logs_no_training_loss_gets_the_mean_of_its_steps(
    accumulate: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = Line(logs=None)
    first, second = lines(module, capsys, tmp_path, accumulate_grad_batches=accumulate)
    assert first.startswith(f"epoch 1/2  train loss {number(sum(module.losses[:4]) / 4)}  val mae 0.")
    assert second.startswith(f"epoch 2/2  train loss {number(sum(module.losses[4:]) / 4)}  val mae 0.")


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*logging interval")
def test_what_was_not_measured_in_an_epoch_is_not_told_again(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    module = Line(logs="fit/train_mse")
    first, second = lines(module, capsys, tmp_path, check_val_every_n_epoch=2)
    assert first.startswith(f"epoch 1/2  fit/train_mse {number(sum(module.losses[:4]) / 4)}")
    assert ("mae" in first, "mae" in second) == (False, True)
