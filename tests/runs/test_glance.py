"""A run over its epochs."""

import math
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Dataset

from unstall.runs.folder import RunLogger
from unstall.runs.glance import curves_of, draw_over_epochs, forget_epochs, points_of, title_of
from unstall.runs.history import History, read_metrics


@pytest.mark.parametrize(
    ("names", "curves"),
    [
        (["val_acc", "train/loss"], ["4_val_accuracy", "1_train_loss"]),
        (["loss/train_mse", "Loss/val"], ["1_train_loss", "2_val_loss"]),
        (["train_loss", "train_loss_step", "train_loss_epoch"], ["1_train_loss"]),
        (["val_auroc", "val/loss", "val_auxiliary_loss"], ["5_val_auroc", "2_val_loss", "5_val_auxiliary_loss"]),
        (["epoch", "step", "learning_rate", "test/loss", "f1"], []),
    ],
)
def test_metrics_of_any_name_have_a_curve(names: list[str], curves: list[str]) -> None:
    found = curves_of(names)
    assert [found[name] for name in names if name in found] == [f"at_a_glance/{curve}" for curve in curves]


def test_losses_are_drawn_over_the_priors_and_never_far_above() -> None:
    row = {"epoch": 0, "prior_loss": 2.0, "train/loss": 653.0, "val/loss": 1.0, "val/accuracy": 0.5}
    points = {
        "at_a_glance/1_train_loss_over_prior": 2.0,
        "at_a_glance/2_val_loss_over_prior": 0.5,
        "at_a_glance/4_val_accuracy": 0.5,
    }
    assert points_of(row) == points
    assert points_of(row, -1e-3) == points  # of a schedule that falls below zero
    assert points_of(row, 1e-3) == points | {"at_a_glance/6_log10_learning_rate": pytest.approx(-3)}
    assert points_of({**row, "val/loss": math.nan})["at_a_glance/2_val_loss_over_prior"] == 2.0
    del row["prior_loss"]  # a regression: no accuracy, and perhaps nothing to compare with
    del row["val/accuracy"]
    over = {"at_a_glance/1_train_loss_over_constant": 2.0, "at_a_glance/2_val_loss_over_constant": 0.25}
    assert points_of({**row, "constant_loss": 4.0}) == over
    assert points_of(row) == {"at_a_glance/1_train_loss": 653.0, "at_a_glance/2_val_loss": 1.0}


def test_titles_are_words() -> None:
    assert title_of("at_a_glance/2_val_loss_over_prior") == "validation loss over the class prior's (at most 2)"
    assert title_of("at_a_glance/1_train_loss_over_constant") == "training loss over the best constant's (at most 2)"
    assert title_of("at_a_glance/6_log10_learning_rate") == "log10 learning rate"


class AsMapping(Dataset[dict[str, torch.Tensor]]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"image": torch.ones(2), "label": torch.tensor(index % 2)}


class Module(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(self.layer(batch["image"]), batch["label"])
        self.log("loss/train", loss.detach(), on_step=False, on_epoch=True, batch_size=4)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_mappings_are_counted_and_epochs_that_are_gone_through_again_are_drawn_once(tmp_path: Path) -> None:
    def fit(epochs: int, checkpoint: Path | None = None) -> Path:
        trainer = pl.Trainer(
            max_epochs=epochs,
            callbacks=[History()],
            logger=RunLogger(tmp_path, "e", "r"),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
        trainer.fit(Module(), DataLoader(AsMapping(), 4), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return Path(str(trainer.log_dir))

    fit(2)
    fit(4, tmp_path / "2.ckpt")
    run = fit(5, tmp_path / "2.ckpt")  # from an earlier epoch than the last
    (row, *_) = read_metrics(run / "metrics.csv")
    assert row["samples_seen"] == 12
    assert row["prior_loss"] == pytest.approx(math.log(2))
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    assert [e.step for e in events.Scalars("at_a_glance/1_train_loss_over_prior")] == [1, 2, 3, 4, 5]


def test_a_record_that_a_kill_has_cut_off_does_no_harm(tmp_path: Path) -> None:
    logger = TensorBoardLogger(str(tmp_path), name="x", version="y")
    trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_checkpointing=False)
    logger.log_metrics({"other": 1.0}, step=7)
    draw_over_epochs(trainer, {"at_a_glance/4_val_accuracy": 0.5})  # no epoch is behind the trainer
    logger.log_metrics({"other": 2.0}, step=8)
    logger.experiment.close()
    (file,) = Path(logger.log_dir).glob("events.*")
    file.write_bytes(file.read_bytes()[:-5])
    forget_epochs(trainer)
    events = EventAccumulator(logger.log_dir).Reload()
    assert events.Tags()["scalars"] == ["other"]
    assert [event.step for event in events.Scalars("other")] == [7]
