"""Curves, and that drawing them changes nothing."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.runs.curves import Curves, layout
from unstall.runs.folder import RunLogger
from unstall.runs.glance import draw_over_epochs
from unstall.runs.history import History, read_metrics


class Regression(pl.LightningModule):
    """No labels, no accuracy, BatchNorm and a network that the graph's tracer cannot follow."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if float(inputs.sum().detach()) == 12345:
            raise AssertionError
        output: torch.Tensor = self.layers(inputs)
        return output

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss = F.mse_loss(self(batch[0])[:, 0], batch[1])
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_callbacks_leave_a_training_without_labels_as_it_is(tmp_path: Path) -> None:
    inputs = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    weights = []
    for callbacks in ([], [History(), Curves()]):
        torch.manual_seed(0)
        module = Regression()
        trainer = pl.Trainer(
            max_epochs=2,
            callbacks=callbacks,
            logger=TensorBoardLogger(str(tmp_path), name="x"),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
        trainer.fit(module, DataLoader(TensorDataset(inputs, inputs.sum(1)), 16))
        weights.append(module.state_dict())
    for name, plain in weights[0].items():
        assert torch.equal(plain, weights[1][name])
    (file,) = tmp_path.rglob("metrics.csv")
    table = read_metrics(file)
    assert [row["samples_seen"] for row in table] == [40, 80]
    assert "prior_loss" not in table[0]


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_a_module_without_forward_has_no_graph_and_nothing_is_said_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class WithoutForward(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return F.mse_loss(self.layer(batch[0])[:, 0], batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer = pl.Trainer(
        max_steps=1,
        callbacks=[Curves()],
        logger=TensorBoardLogger(str(tmp_path), name="x"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(WithoutForward(), DataLoader(TensorDataset(torch.ones(4, 3), torch.ones(4)), 2))
    assert "graph" not in capsys.readouterr().out


def test_layout_pairs_training_and_validation_and_leaves_out_what_is_not_logged() -> None:
    over_epochs = ["at_a_glance/2_val_loss_over_prior", "at_a_glance/1_train_loss_over_prior"]
    glance, over_steps = layout(["train_loss", "val_loss", "val_acc"], over_epochs, ["prior_loss"]).values()
    assert list(glance.items()) == [
        ("training loss over the class prior's (at most 2)", ["Multiline", [f"{over_epochs[1]}$"]]),
        ("validation loss over the class prior's (at most 2)", ["Multiline", [f"{over_epochs[0]}$"]]),
    ]
    assert over_steps["loss"] == ["Multiline", ["train_loss$", "val_loss$", "reference/prior_loss$"]]
    (steps,) = layout(["val_loss"], [], ["constant_loss"]).values()
    assert steps == {"loss": ["Multiline", ["val_loss$", "reference/constant_loss$"]]}
    assert over_steps["accuracy"] == ["Multiline", ["val_acc$"]]
    (charts,) = layout(["val_loss/dataloader_idx_0"], []).values()
    assert charts == {"loss": ["Multiline", ["val_loss/dataloader_idx_0$"]]}
    assert layout([], []) == {}


class Steps(pl.LightningModule):
    """Its loss is ten times the number of the batch, and its rate is halved after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        loss: torch.Tensor = 0 * self.layer(batch[0]).sum() + 10.0 * batch_idx
        self.log("train_loss", loss, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.8)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_under_accumulation_each_step_is_drawn_once_with_its_rate_and_loss(tmp_path: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=1,
        accumulate_grad_batches=2,
        log_every_n_steps=1,
        callbacks=[History(), Curves()],
        logger=TensorBoardLogger(str(tmp_path), name="x"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(Steps(), DataLoader(TensorDataset(torch.ones(24, 3), torch.ones(24)), 4))
    events = EventAccumulator(str(trainer.log_dir), size_guidance={"tensors": 0}).Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert curves["learning_rate"] == [(0, pytest.approx(0.8)), (1, pytest.approx(0.4)), (2, pytest.approx(0.2))]
    assert curves["step/train_loss"] == [(0, 10.0), (1, 30.0), (2, 50.0)]  # of each step's last batch
    for tag, points in curves.items():
        assert tag == "epoch" or len(points) == len({step for step, _ in points}), tag  # that one is Lightning's
    # Lightning writes `train_loss_epoch` where a module logs `train_loss` by step and by epoch.
    content = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    layout_drawn = layout_pb2.Layout.FromString(content)
    tags = [tag for category in layout_drawn.category for chart in category.chart for tag in chart.multiline.tag]
    assert "train_loss_epoch$" in tags
    assert {tag.removesuffix("$") for tag in tags} <= curves.keys()


class Later(pl.Callback):
    """A curve that begins in the second epoch."""

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch:
            draw_over_epochs(trainer, {"at_a_glance/8_straightness": 0.5})


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_a_curve_that_begins_later_has_its_chart(tmp_path: Path) -> None:
    trainer = pl.Trainer(
        max_epochs=3,
        callbacks=[History(), Later(), Curves()],
        logger=RunLogger(tmp_path, "e"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    trainer.fit(Steps(), DataLoader(TensorDataset(torch.ones(8, 3), torch.ones(8)), 4))
    events = EventAccumulator(str(trainer.log_dir), size_guidance={"tensors": 0}).Reload()
    laid = [event.tensor_proto.string_val[0] for event in events.Tensors("custom_scalars__config__")]
    assert [b"8_straightness" in layout for layout in laid] == [False, True]


class AtTheCheckpoint(pl.Callback):
    """What a process that is killed after its checkpoint has drawn."""

    def __init__(self) -> None:
        self.steps: list[list[int]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        events = EventAccumulator(str(trainer.log_dir), size_guidance={"scalars": 0}).Reload()
        self.steps.append([event.step for event in events.Scalars("train/loss")])


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:The number of training batches")
def test_an_epochs_means_are_on_the_disk_before_its_checkpoint_and_drawn_once(tmp_path: Path) -> None:
    killed = AtTheCheckpoint()
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=[Curves(), killed],
        logger=RunLogger(tmp_path, "e"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        accelerator="cpu",
    )
    inputs = torch.randn(40, 3)
    trainer.fit(Regression(), DataLoader(TensorDataset(inputs, inputs.sum(1)), 16))
    assert killed.steps == [[2], [2, 5]]
    events = EventAccumulator(str(trainer.log_dir)).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [2, 5]
