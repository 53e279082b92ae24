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
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from lesson.network import MLP


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
        assert list(scalars(events, name)) == [7, 15, 23]  # the test has added nothing
    prior = float(rows[-1]["prior_loss"])
    for number, name in enumerate(("train/loss", "val/loss", "train/accuracy", "val/accuracy"), start=1):
        over = prior if name.endswith("loss") else 1
        curve = f"at_a_glance/{number}_{name.replace('/', '_')}{'_over_prior' if over == prior else ''}"
        values = [min(2, float(row[name]) / over) for row in rows]
        assert scalars(events, curve) == pytest.approx(dict(enumerate(values, start=1)))
    rates = scalars(events, "at_a_glance/6_log10_learning_rate")
    assert rates == pytest.approx(dict.fromkeys((1, 2, 3), math.log10(0.05)))
    assert "epoch" not in events.Tags()["scalars"]


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
    assert {"train/loss$", "val/loss$", "reference/prior_loss$"} <= set(drawn)
    assert {tag.removesuffix("$") for tag in drawn} <= set(tags["scalars"])  # no chart without its curve
    (text,) = events.Tensors("resolved_config/text_summary")
    assert (trained / "config.yaml").read_text() in text.tensor_proto.string_val[0].decode()
    assert "test/confusion_matrix" in tags["images"]
    content = events.summary_metadata["_hparams_/experiment"].plugin_data.content
    experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    assert {info.name.tag for info in experiment.metric_infos} <= set(tags["scalars"])


def test_the_run_holds_what_it_should_and_nothing_else(trained: Path) -> None:
    names = {str(path.relative_to(trained)) for path in trained.rglob("*") if not path.name.startswith("events.")}
    assert names == {
        *("config.yaml", "hparams.yaml", "metrics.csv", "diagnosis.json", "confusion_matrix.png"),
        *("checkpoints", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
    } | ({"worst_mistakes.png"} & names)
    assert [folder.name for folder in trained.parents[2].iterdir() if folder.name != "data"] == ["logs"]
    assert torch.load(trained / "checkpoints/last.ckpt", weights_only=True)["epoch"] == 2
