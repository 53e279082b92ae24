"""What a run leaves behind, read back with TensorBoard's own reader and compared with plain loops."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from lesson.network import MLP
from unstall.runs.checkpoints import Checkpoints
from unstall.runs.closing import closing_words
from unstall.runs.curves import Curves
from unstall.runs.history import History, read_metrics, write_metrics


@pytest.fixture(scope="module")
def events(trained: Path) -> EventAccumulator:
    return EventAccumulator(str(trained), size_guidance={"scalars": 0, "tensors": 0, "images": 0}).Reload()


@pytest.fixture(scope="module")
def rows(trained: Path) -> list[dict[str, str]]:
    with (trained / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))


def scalars(events: EventAccumulator, tag: str) -> dict[int, float]:
    return {event.step: event.value for event in events.Scalars(tag)}


def hparams_in(events: EventAccumulator) -> dict[str, Any]:
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    start = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    return {
        name: getattr(value, str(value.WhichOneof("kind"))) for name, value in start.hparams.items()
    }  # one of number_value, string_value, bool_value


def test_rate_batch_size_and_seed_are_the_same_in_every_record(
    trained: Path, events: EventAccumulator, rows: list[dict[str, str]]
) -> None:
    given = {"learning_rate": 0.05, "batch_size": 64, "seed": 3}
    checkpoint = torch.load(trained / "checkpoints" / "last.ckpt", weights_only=True)
    for text in ((trained / "config.yaml").read_text(), checkpoint["config"]):
        config = yaml.safe_load(text)
        assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.05
        assert config["data"]["init_args"]["batch_size"] == 64
        assert config["seed_everything"] == 3
    assert given.items() <= yaml.safe_load((trained / "hparams.yaml").read_text()).items()
    assert given.items() <= hparams_in(events).items()
    assert {group["lr"] for group in checkpoint["optimizer_states"][0]["param_groups"]} == {0.05}
    for row in rows:
        assert {name: float(row[name]) for name in given} == given
    rates = scalars(events, "learning_rate").values()
    assert list(rates) == pytest.approx([0.05] * len(rates))


def test_each_epoch_is_a_row_that_tensorboard_repeats(events: EventAccumulator, rows: list[dict[str, str]]) -> None:
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [int(row["step"]) for row in rows] == [8, 16, 24]
    assert [int(row["samples_seen"]) for row in rows] == [480, 960, 1440]
    for name in ("train/loss", "train/accuracy", "val/loss", "val/accuracy"):
        values = [float(row[name]) for row in rows]
        assert list(scalars(events, name).values()) == pytest.approx(values)
        over_samples = scalars(events, f"samples_seen/{name.replace('/', '_')}")
        assert over_samples == pytest.approx(dict(zip((480, 960, 1440), values, strict=True)))


def test_validation_metrics_belong_to_the_last_checkpoint(trained: Path, rows: list[dict[str, str]]) -> None:
    module = LitClassifier.load_from_checkpoint(trained / "checkpoints" / "last.ckpt").eval()
    data = MNISTDataModule(data_dir=str(trained.parents[2] / "data"), batch_size=120)
    data.setup("validate")
    ((inputs, labels),) = data.val_dataloader()
    with torch.no_grad():
        logits = module(inputs)
    assert float(rows[-1]["val/loss"]) == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    assert float(rows[-1]["val/accuracy"]) == pytest.approx(float((logits.argmax(1) == labels).float().mean()))


def test_best_checkpoint_has_the_lowest_validation_loss(trained: Path, rows: list[dict[str, str]]) -> None:
    losses = [float(row["val/loss"]) for row in rows]
    best = torch.load(trained / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == losses.index(min(losses))


def test_prior_loss_is_the_entropy_of_the_training_labels(
    trained: Path, events: EventAccumulator, rows: list[dict[str, str]]
) -> None:
    data = MNISTDataModule(data_dir=str(trained.parents[2] / "data"), batch_size=480)
    data.setup("fit")
    labels = next(iter(data.train_dataloader()))[1].tolist()
    shares = [labels.count(label) / 480 for label in set(labels)]
    entropy = -sum(share * math.log(share) for share in shares)
    assert [float(row["prior_loss"]) for row in rows] == pytest.approx([entropy] * 3)
    assert [float(row["chance_accuracy"]) for row in rows] == pytest.approx([max(shares)] * 3)
    assert list(scalars(events, "reference/prior_loss").values()) == pytest.approx([entropy] * 3)


def test_curves_are_there_though_an_epoch_has_few_steps(events: EventAccumulator) -> None:
    for tag in ("step/train_loss", "step/gradient_norm", "learning_rate"):
        assert len(events.Scalars(tag)) >= 3
        steps = [event.step for event in events.Scalars(tag)]
        assert steps == sorted(set(steps))


def test_first_gradient_norm_and_loss_by_hand(trained: Path, events: EventAccumulator) -> None:
    pl.seed_everything(3)
    torch.manual_seed(3)
    network = MLP([784, 512, 10])  # the command line's weights: the first thing drawn after the seed
    data = MNISTDataModule(data_dir=str(trained.parents[2] / "data"), batch_size=64)
    data.setup("fit")
    inputs, labels = next(iter(data.train_dataloader()))
    loss = F.cross_entropy(network(inputs), labels)
    loss.backward()
    norm = math.sqrt(sum(float((weight.grad.double() ** 2).sum()) for weight in network.parameters()))  # type: ignore[union-attr]
    assert scalars(events, "step/train_loss")[0] == pytest.approx(loss.item(), rel=1e-5)
    assert scalars(events, "step/gradient_norm")[0] == pytest.approx(norm, rel=1e-4)


def test_layout_graph_config_and_figures_are_there(trained: Path, events: EventAccumulator) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2

    tags: Any = events.Tags()
    assert tags["graph"]
    assert "Linear" in str(events.Graph())
    layout = layout_pb2.Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    drawn = [tag for category in layout.category for chart in category.chart for tag in chart.multiline.tag]
    assert {"train/loss", "val/loss", "reference/prior_loss"} <= set(drawn)
    assert set(drawn) <= set(tags["scalars"])  # no chart without its curve
    (text,) = events.Tensors("config/text_summary")
    assert (trained / "config.yaml").read_text() in text.tensor_proto.string_val[0].decode()
    assert "test/confusion_matrix" in tags["images"]
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {info.name.tag for info in experiment.metric_infos} <= set(tags["scalars"])


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


def test_metrics_table_survives_its_file(tmp_path: Path) -> None:
    rows = [{"epoch": 0.0, "a": 1 / 3}, {"epoch": 1.0, "a": math.nan, "b": math.inf}]
    write_metrics(tmp_path / "metrics.csv", rows)
    first, second = read_metrics(tmp_path / "metrics.csv")
    assert first == rows[0]
    assert math.isnan(second["a"])
    assert second["b"] == math.inf
    assert read_metrics(tmp_path / "nowhere.csv") == []


def test_closing_words_name_the_best_epoch_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    rows = [{"epoch": e, "val/loss": loss, "val/accuracy": 0.5} for e, loss in enumerate([2.0, 1.0, 1.5])]
    best, command = closing_words(rows, tmp_path, "unstall")
    assert best == "best epoch 2 of 3: val/loss 1.0000, val/accuracy 0.5000"
    assert command.endswith(f"unstall test --ckpt_path={tmp_path}/checkpoints/best.ckpt")
    assert closing_words([], Path("r"), "unstall") == ["to test it:  unstall test --ckpt_path=r/checkpoints/last.ckpt"]
    assert closing_words([], Path("r"), "unstall", testable=False) == []


def test_best_score_is_remembered_in_a_moved_folder(tmp_path: Path) -> None:
    old, new = Checkpoints("old/checkpoints", monitor="val/loss"), Checkpoints(tmp_path, monitor="val/loss")
    old.best_model_score = torch.tensor(0.5)
    old.best_model_path = old.kth_best_model_path = f"{old.dirpath}/best.ckpt"
    old.best_k_models = {old.best_model_path: torch.tensor(0.5)}
    new.load_state_dict(old.state_dict())
    assert new.best_model_score is None  # no such file here
    (tmp_path / "best.ckpt").write_bytes(b"")
    new.load_state_dict(old.state_dict())
    assert new.best_model_score == 0.5
    assert list(new.best_k_models) == [str(tmp_path / "best.ckpt")] == [new.best_model_path]
