"""A rate in the place of the configured one: all groups and schedules follow, in a race as in a fit."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.trials.learning_rate import LearningRate, learning_rate_of, set_learning_rate
from unstall.trials.rehearsal import rehearse
from unstall.trials.variants import StepOptions, Variant


def make(peak: float, schedule: str = "", rates: tuple[float, ...] = (0.1, 0.01)) -> tuple[SGD, list[Any]]:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": peak * rate / 0.1} for rate in rates]
    optimizer = SGD(groups, momentum=0.9)
    peaks = [group["lr"] for group in optimizer.param_groups]
    lows = [rate / 10 for rate in peaks]
    schedulers: dict[str, Any] = {
        "one cycle": lambda: lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=20),
        "cycles": lambda: lr_scheduler.CyclicLR(optimizer, lows, peaks, step_size_up=3),
        "halves": lambda: lr_scheduler.StepLR(optimizer, 2, gamma=0.5),
        "warm-up from zero": lambda: lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 3)),
    }
    return optimizer, [schedulers[schedule]()] if schedule else []


@pytest.mark.parametrize("schedule", ["", "one cycle", "cycles", "halves", "warm-up from zero"])
def test_all_groups_and_schedules_are_as_if_made_with_the_rate(schedule: str) -> None:
    (changed, its), (made, others) = make(0.1, schedule), make(0.3, schedule)
    assert learning_rate_of(changed.param_groups, map(vars, its)) == pytest.approx(0.1)
    set_learning_rate(changed, its, 0.3)
    assert learning_rate_of(changed.param_groups, map(vars, its)) == pytest.approx(0.3)
    for _ in range(12):
        assert [g["lr"] for g in changed.param_groups] == pytest.approx([g["lr"] for g in made.param_groups])
        for optimizer, schedulers in ((changed, its), (made, others)):
            optimizer.step()
            for scheduler in schedulers:
                scheduler.step()


def test_the_state_of_a_run_tells_the_rate_as_well() -> None:
    for schedule in ("one cycle", "cycles", "halves"):
        optimizer, schedulers = make(0.1, schedule)
        states = [scheduler.state_dict() for scheduler in schedulers]
        assert learning_rate_of(optimizer.state_dict()["param_groups"], states) == pytest.approx(0.1)


def test_a_first_group_that_stands_still_is_passed_over() -> None:
    optimizer, _ = make(0.1, rates=(0.0, 0.1))
    set_learning_rate(optimizer, [], 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.0, pytest.approx(0.5)]
    with pytest.raises(UsageError, match="lr=0 of every parameter group"):
        set_learning_rate(make(0.1, rates=(0.0,))[0], [], 0.5)


class HardCoded(pl.LightningModule):
    """A module without any setting for its rate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return (self.weight * batch[0]).square().mean()

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), lr=0.1)
        return [optimizer], [lr_scheduler.StepLR(optimizer, 2)]


LOADER = DataLoader(TensorDataset(torch.ones(4, 1)), 2)


def trainer_with(*callbacks: pl.Callback) -> pl.Trainer:
    quiet: dict[str, Any] = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    return pl.Trainer(accelerator="cpu", max_epochs=1, callbacks=list(callbacks), enable_model_summary=False, **quiet)


def test_a_fit_and_a_race_of_it_train_with_the_rate_of_the_callback(tmp_path: Any) -> None:
    module, trainer = HardCoded(), trainer_with(LearningRate(0.5), LearningRate(0.02))
    rehearsal = rehearse(module, LOADER, trainer, str(tmp_path))
    assert StepOptions.of(trainer).learning_rate == 0.02, "the last one wins, as in the fit"
    (raced,) = rehearsal.race([Variant()], list(LOADER), keep_state=True)
    trainer.fit(module, LOADER)
    assert raced.state is not None
    assert module.weight.item() == pytest.approx((1 - 2 * 0.02) ** 2)
    assert raced.state.weights["weight"].item() == pytest.approx(module.weight.item())


def test_what_it_cannot_set_is_said() -> None:
    with pytest.raises(UsageError, match=r"learning_rate=0: give a positive rate"):
        LearningRate(0)

    class Several(HardCoded):
        def configure_optimizers(self) -> Any:
            self.automatic_optimization = False
            return [SGD(self.parameters(), lr=0.1), SGD(self.parameters(), lr=0.1)]

    with pytest.raises(UsageError, match="model=Several has 2 optimizers"):
        trainer_with(LearningRate(0.1)).fit(Several(), LOADER)
