"""The callback in fits by Lightning: its verdict, its files, its memory, and where it keeps still."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.tuner.tuning import Tuner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.runs import History
from unstall.watch.callback import Diagnosis, write_verdict
from unstall.watch.causes import Cause
from unstall.watch.rules import name_cause
from unstall.watch.signals import Signals

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),  # Lightning 2.6 with torch 2.14
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # what Lightning's finder restores
]


class Lit(pl.LightningModule):
    """A classifier of ten blobs that knows nothing of this package."""

    def __init__(self, rate: float, optimizer: str = "SGD", automatic: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))
        self.rate, self.optimizer = rate, optimizer
        self.automatic_optimization = automatic

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        if not self.automatic_optimization:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


def loaders(samples: int = 4000) -> tuple[DataLoader[Any], DataLoader[Any]]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 20, generator=generator)
    labels = torch.randint(10, (samples + 500,), generator=generator)
    inputs = centres[labels] + 0.7 * torch.randn(samples + 500, 20, generator=generator)
    train = TensorDataset(inputs[:samples], labels[:samples])
    held_out = TensorDataset(inputs[samples:], labels[samples:])
    return DataLoader(train, 32, shuffle=True), DataLoader(held_out, 500)


def fit(folder: Path, module: Lit, callback: Diagnosis, ckpt_path: str | None = None, **arguments: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        **{
            "logger": TensorBoardLogger(str(folder), name="t", version="run"),
            "max_epochs": 3,
            "callbacks": [callback],
            "accelerator": "cpu",
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": str(folder),
        }
        | arguments
    )
    trainer.fit(module, *loaders(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(
    ("optimizer", "rate", "cause"),
    [
        ("RMSprop", 3.0, Cause.TOO_HIGH),
        ("SGD", 100.0, Cause.NON_FINITE),
        ("Adam", 3.0, Cause.TOO_HIGH),
        ("SGD", 1e-5, Cause.TOO_LOW),
        ("Adam", 1e-6, Cause.TOO_LOW),
        ("SGD", 0.1, Cause.HEALTHY),
        ("Adam", 3e-3, Cause.HEALTHY),
    ],
)
def test_a_run_ends_with_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: str, rate: float, cause: Cause
) -> None:
    callback = Diagnosis()
    fit(tmp_path, Lit(rate, optimizer), callback)
    assert callback.verdict is not None
    assert callback.verdict.cause == cause
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Diagnosis")]
    assert len(told) == 1, "one line, early or at the end"
    content = json.loads((tmp_path / "t/run/diagnosis.json").read_text())
    assert content["cause"] == cause.value
    assert {"cause", "confidence", "runner_up", "evidence", "forks", "fix", "verified"} <= content.keys()
    assert {"signal", "value", "threshold"} == content["evidence"][0].keys()
    assert not list(tmp_path.glob("**/.diagnosis*")), "nothing half written"


class WrittenBefore(pl.Callback):
    """Whether the verdict is there when the last epoch's checkpoint is written."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.seen: list[bool] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.seen.append(self.file.is_file())


@pytest.mark.parametrize("limits", [{"max_epochs": 2}, {"max_epochs": -1, "max_steps": 250}])
def test_the_verdict_is_written_before_the_last_checkpoint_and_said_once(
    limits: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = WrittenBefore(tmp_path / "t/run/diagnosis.json")
    fit(tmp_path, Lit(0.1), Diagnosis(), callbacks=[Diagnosis(), seen], **limits)
    assert seen.seen == [False, True]
    assert capsys.readouterr().out.count("Diagnosis at step") == 1


def test_tensorboard_holds_the_signals_and_the_verdict(tmp_path: Path) -> None:
    fit(tmp_path, Lit(3.0, "RMSprop"), Diagnosis())
    events = EventAccumulator(str(tmp_path / "t/run")).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"verdict/blow_up", "verdict/dead_at_start", "verdict/initial_ratio"} <= scalars
    assert "at_a_glance/7_log10_weights_moved" in scalars
    (text,) = (events.Tensors(tag) for tag in events.Tags()["tensors"] if tag.startswith("diagnosis"))
    assert "restart with one ten times lower" in text[0].tensor_proto.string_val[0].decode()


def test_a_hopeless_run_is_stopped_only_if_asked(tmp_path: Path) -> None:
    stopped = fit(tmp_path, Lit(100.0), Diagnosis(stop_hopeless=True))
    assert stopped.global_step <= 101
    assert fit(tmp_path, Lit(100.0), Diagnosis()).global_step == 375
    assert fit(tmp_path, Lit(0.1), Diagnosis(stop_hopeless=True)).global_step == 375


def test_resumed_run_still_measures_from_its_initial_weights(tmp_path: Path) -> None:
    whole, first, second = Diagnosis(), Diagnosis(), Diagnosis()
    fit(tmp_path, Lit(0.1), whole, max_epochs=4)
    trainer = fit(tmp_path, Lit(0.1), first, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    initial = torch.cat([weight.flatten() for weight in Lit(0.1).parameters()]).detach()
    again = Lit(0.0)
    fit(tmp_path, again, second, max_epochs=3, limit_train_batches=1, ckpt_path=str(tmp_path / "half.ckpt"))
    assert first.meter is not None
    assert second.meter is not None
    now = torch.cat([weight.detach().flatten() for weight in again.parameters()])
    moved = float((now - initial).norm()) / second.meter.path.initial_norm
    assert second.meter.read().move == pytest.approx(moved)
    assert second.meter.losses.first_losses == first.meter.losses.first_losses
    fit(tmp_path, Lit(0.1), resumed := Diagnosis(), max_epochs=4, ckpt_path=str(tmp_path / "half.ckpt"))
    assert whole.meter is not None
    assert resumed.meter is not None
    assert resumed.meter.read().step == whole.meter.read().step == 500
    assert len(resumed.meter.losses.validation_losses) == 4
    assert resumed.meter.losses.targets.class_counts is not None
    assert sum(resumed.meter.losses.targets.class_counts) == 16_000


def test_accumulated_batches_are_measured_as_one_step(tmp_path: Path) -> None:
    callback = Diagnosis()
    trainer = fit(tmp_path, Lit(0.1), callback, accumulate_grad_batches=5)
    assert callback.meter is not None
    signals = callback.meter.read()
    assert signals.step == trainer.global_step == 75
    assert signals.initial_loss is not None
    assert 2 < signals.initial_loss < 4, "the loss itself, not a fifth of it"


@pytest.mark.parametrize("arguments", [{"logger": False}, {"fast_dev_run": True}], ids=str)
def test_without_a_place_to_write_nothing_is_written(tmp_path: Path, arguments: dict[str, Any]) -> None:
    callback = Diagnosis()
    fit(tmp_path, Lit(100.0), callback, **arguments)
    assert callback.verdict is not None
    assert not list(tmp_path.rglob("diagnosis.json"))


def test_manual_optimization_is_left_alone(tmp_path: Path) -> None:
    callback = Diagnosis()
    fit(tmp_path, Lit(0.1, automatic=False), callback, max_epochs=1)
    assert callback.verdict is None


def test_of_manual_optimization_the_first_step_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Softmax(Lit):
        def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
            optimizer: Any = self.optimizers()
            optimizer.zero_grad()
            loss = F.cross_entropy(self.network(batch[0]).softmax(1), batch[1])
            self.manual_backward(loss)
            optimizer.step()
            return loss

    for module, lines in (Lit(0.1, automatic=False), 0), (Softmax(0.1, automatic=False), 1):
        watch = Diagnosis()
        fit(tmp_path, module, watch, max_epochs=1)
        assert (watch.verdict is not None) == bool(lines)
        assert watch.verdict is None or watch.verdict.cause == "activation before a loss of logits"
        assert capsys.readouterr().out.count("Before the first step") == lines
    fit(tmp_path, Softmax(0.1, automatic=False), Diagnosis(), fast_dev_run=True)  # which is there to find that
    assert capsys.readouterr().out.count("Before the first step") == 1


class ByHand(Lit):
    """Steps its optimizer itself, with gradients set to zero at some place, or after some batches."""

    def __init__(self, zero: str, every: int = 1) -> None:
        super().__init__(0.1, automatic=False)
        self.zero, self.every = zero, every

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:  # type: ignore[override]
        optimizer: Any = self.optimizers()
        if self.zero == "before":
            optimizer.zero_grad()
        self.manual_backward(F.cross_entropy(self.network(batch[0]), batch[1]) / self.every)
        if self.zero == "between":
            optimizer.zero_grad()
        if (batch_idx + 1) % self.every == 0:
            optimizer.step()
            if self.zero == "after":
                optimizer.zero_grad()


@pytest.mark.parametrize(
    ("module", "cause"),
    [
        (ByHand("never"), "gradients that add up"),
        (ByHand("between"), "gradients zeroed before the step"),
        (ByHand("before"), None),
        (ByHand("after"), None),
        (ByHand("after", every=3), None),  # accumulated on purpose
    ],
)
def test_the_order_of_gradients_and_steps_made_by_hand(module: Lit, cause: str | None, tmp_path: Path) -> None:
    watch = Diagnosis()
    fit(tmp_path, module, watch, max_epochs=1)
    assert (None if watch.verdict is None else watch.verdict.cause) == cause
    assert len(list(tmp_path.rglob("diagnosis.json"))) == (cause is not None)


def test_lazy_layers_are_watched_from_their_first_step_and_no_optimizer_is_left_alone(tmp_path: Path) -> None:
    class Lazy(Lit):
        def __init__(self) -> None:
            super().__init__(3.0, "Adam")
            self.network = nn.Sequential(nn.LazyLinear(64), nn.ReLU(), nn.LazyLinear(10))

    class Idle(Lit):
        def configure_optimizers(self) -> Any:
            return None

    callback = Diagnosis()
    fit(tmp_path, Lazy(), callback, num_sanity_val_steps=0)
    assert callback.verdict is not None
    assert callback.verdict.cause == Cause.TOO_HIGH
    with pytest.warns(UserWarning, match="no optimizer"):
        fit(tmp_path, Idle(0.1), idle := Diagnosis(), max_epochs=1)
    assert idle.verdict is None


def test_lightnings_finder_leaves_no_verdict_behind(tmp_path: Path) -> None:
    callback = Diagnosis()
    module = Lit(0.1)
    trainer = pl.Trainer(
        logger=TensorBoardLogger(str(tmp_path), name="t", version="run"),
        max_epochs=2,
        callbacks=[callback],
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    module.lr = 0.1  # type: ignore[assignment]
    Tuner(trainer).lr_find(module, *loaders(), num_training=50)
    assert not list(tmp_path.rglob("diagnosis.json"))
    trainer.fit(module, *loaders())
    assert callback.meter is not None
    assert callback.meter.read().step == 250


def test_an_impossible_interval_is_refused() -> None:
    with pytest.raises(UsageError, match="every_n_steps=0"):
        Diagnosis(every_n_steps=0)


def test_file_is_plain_json_with_the_promised_keys(tmp_path: Path) -> None:
    signals = Signals(step=400, loss=math.inf, loss_ratio=math.inf, non_finite_step=7)
    write_verdict(tmp_path / "new", name_cause(signals), signals)
    text = (tmp_path / "new/diagnosis.json").read_text()
    content = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert {"cause", "confidence", "runner_up", "evidence", "forks", "fix", "verified"} <= content.keys()
    assert content["cause"] == "non-finite loss"
    assert content["signals"]["loss"] is None
    assert Signals(**content["signals"]).step == 400
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["diagnosis.json"]


class Line(pl.LightningModule):
    """A number for each sample, in units of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(20, 1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss = F.mse_loss(self.layer(batch[0]), batch[1].float()[:, None])
        self.log("train/loss", loss.detach(), on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", F.mse_loss(self.layer(batch[0]), batch[1].float()[:, None]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_losses_of_numbers_are_drawn_over_that_of_their_mean(tmp_path: Path) -> None:
    watch, history = Diagnosis(), History()
    assert watch.constant_loss is None
    trainer = fit(tmp_path, Line(), watch, callbacks=[history, watch], max_epochs=2)  # type: ignore[arg-type]
    variance = float(loaders()[0].dataset[:][1].double().var(correction=0))
    assert [row["constant_loss"] for row in history.rows] == pytest.approx([variance] * 2)
    assert "prior_loss" not in history.rows[0]
    events = EventAccumulator(str(trainer.log_dir)).Reload()
    drawn = [event.value for event in events.Scalars("at_a_glance/1_train_loss_over_constant")]
    assert drawn == pytest.approx([min(2.0, row["train/loss"] / variance) for row in history.rows], rel=1e-5)
    assert drawn[-1] < 1.5 < drawn[0] == 2
    assert len(events.Scalars("reference/constant_loss")) == 2
