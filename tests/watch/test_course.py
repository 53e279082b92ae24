"""What happens around the steps, in real fits with Lightning's trainer."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.causes import COURSE_FAULTS, Course, find
from unstall.watch.callback import Diagnosis

X = torch.randn(960, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Plain(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.05)


class NeverWarm(Plain):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 10_000)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Warm(Plain):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=60)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class ByEpoch(Warm):
    """One cycle, for all steps, that moves on once an epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=60)]


class Decayed(Plain):
    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5, weight_decay=0.5)


class NeverZeroed(Plain):
    def optimizer_zero_grad(self, *_: Any) -> None: ...


class ZeroedTooEarly(Plain):
    def on_after_backward(self) -> None:
        self.zero_grad()


def course(
    module: pl.LightningModule, folder: Path, x: Tensor = X, y: Tensor = Y, shuffle: bool = True, **options: Any
) -> tuple[Course, Diagnosis]:
    watch = Diagnosis()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        callbacks=[watch],
        enable_model_summary=False,
        accelerator="cpu",
        default_root_dir=folder,
        **{"max_epochs": 2, **quiet, **options},
    )
    pl.seed_everything(0, verbose=False)
    trainer.fit(module, DataLoader(TensorDataset(x, y), 32, shuffle=shuffle))
    assert watch.course is not None
    assert watch.meter is not None
    return watch.course.read(watch.meter.losses, watch.meter.path, repeats=False, ended=True), watch


def faults(seen: Course) -> set[str]:
    return {str(finding.fault) for finding in find(COURSE_FAULTS, seen)}


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:The number of training batches", "ignore:.*GPU available"
)


def test_a_plain_fit_shows_nothing(tmp_path: Path) -> None:
    seen, _ = course(Plain(), tmp_path)
    assert faults(seen) <= {"too few epochs"}
    assert (seen.rate, seen.rate_share, seen.last_rate) == (0.05, pytest.approx(1), 0.05)
    assert seen.commonest == pytest.approx(max(float(Y.float().mean()), 1 - float(Y.float().mean())), abs=1e-6)
    assert seen.label_spread == pytest.approx(1, abs=0.05)


def test_a_schedule_that_rises_too_slowly_and_one_that_does_not(tmp_path: Path) -> None:
    seen, _ = course(NeverWarm(), tmp_path)
    assert "a schedule that takes the step away" in faults(seen)
    assert seen.rate_share == pytest.approx(30.5e-4, rel=1e-3)  # the mean of 1 to 60, in ten thousandths
    assert "a schedule that takes the step away" not in faults(course(Warm(), tmp_path)[0])
    assert "a schedule that takes the step away" in faults(course(ByEpoch(), tmp_path)[0])


def test_clipping_that_leaves_nothing(tmp_path: Path) -> None:
    assert "gradients clipped away" in faults(course(Plain(), tmp_path, gradient_clip_val=1e-4)[0])
    assert "gradients clipped away" not in faults(course(Plain(), tmp_path, gradient_clip_val=1.0)[0])


def test_a_decay_that_shrinks_the_weights(tmp_path: Path) -> None:
    assert "weight decay too strong" in faults(course(Decayed(), tmp_path)[0])


class Normalised(Plain):
    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=momentum), nn.ReLU(), nn.Linear(8, 2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return super().training_step([20 + 9 * batch[0], batch[1]], batch_idx)


def test_running_statistics_that_lag(tmp_path: Path) -> None:
    seen, watch = course(Normalised(1e-4), tmp_path, max_epochs=5)
    assert "evaluation unlike training" in faults(seen)
    assert watch.verdict is not None
    assert watch.verdict.cause == "evaluation unlike training"
    assert "evaluation unlike training" not in faults(course(Normalised(0.1), tmp_path, max_epochs=5)[0])


def test_gradients_out_of_order(tmp_path: Path) -> None:
    assert "gradients that add up" in faults(course(NeverZeroed(), tmp_path)[0])
    assert "gradients that add up" not in faults(course(Plain(), tmp_path, accumulate_grad_batches=4)[0])
    assert "gradients zeroed before the step" in faults(course(ZeroedTooEarly(), tmp_path)[0])


class Skipping(Plain):
    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return super().training_step(batch, batch_idx) if batch_idx % self.every == self.every - 1 else None


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_batches_without_a_loss(tmp_path: Path) -> None:
    seen, watch = course(Skipping(3), tmp_path)
    assert (seen.skipped, seen.zeroed) == (pytest.approx(2 / 3), False)
    assert watch.verdict is not None
    assert watch.verdict.cause == "batches without a loss"
    never, watch = course(Skipping(99), tmp_path)  # thirty batches an epoch: as if `return loss` were missing
    assert faults(never) == {"batches without a loss"}
    assert watch.verdict is not None
    assert watch.verdict.cause == "batches without a loss"
    assert "batches without a loss" not in faults(course(Plain(), tmp_path, accumulate_grad_batches=4)[0])


class Another(Plain):
    def configure_optimizers(self) -> Any:
        return Plain().configure_optimizers()


def test_an_optimizer_that_never_had_a_gradient_is_not_said_to_have_lost_it(tmp_path: Path) -> None:
    _, watch = course(Another(), tmp_path)
    assert {str(finding.fault) for finding in watch.findings} >= {"an optimizer of other parameters"}
    assert "gradients zeroed before the step" not in {str(finding.fault) for finding in watch.findings}


def test_data_out_of_order(tmp_path: Path) -> None:
    order = Y.argsort()
    assert "training data sorted by class" in faults(course(Plain(), tmp_path, X[order], Y[order], shuffle=False)[0])
    alike = X[:1].expand(960, 4), Y[:1].expand(960)
    assert "the same batch again" in faults(course(Plain(), tmp_path, *alike)[0])


def test_numbers_that_are_not_finite_are_looked_for_once_a_loss_is_not(tmp_path: Path) -> None:
    x = X.clone()
    x[700, 2] = torch.nan
    seen, watch = course(Plain(), tmp_path, x, max_epochs=4)
    assert seen.not_finite == 1
    assert watch.verdict is not None
    assert watch.verdict.cause == "numbers that are not finite"


def test_one_class_that_makes_up_nearly_all(tmp_path: Path) -> None:
    rare = (torch.arange(960) % 40 == 0).long()
    assert "one class makes up nearly all" in faults(course(Plain(), tmp_path, X, rare)[0])


def test_one_label_for_all_samples_is_said_at_the_end(tmp_path: Path) -> None:
    seen, watch = course(Plain(), tmp_path, X, torch.zeros(960, dtype=torch.long))
    assert "one label for all samples" in faults(seen)
    assert watch.verdict is not None
    assert watch.verdict.cause == "one label for all samples"
