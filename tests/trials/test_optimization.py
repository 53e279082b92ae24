"""Steps against the same written out: accumulated, clipped, scaled and scheduled."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer, lr_scheduler

from unstall.errors import UsageError
from unstall.trials.optimization import Optimization, check_optimization
from unstall.trials.variants import StepOptions


class Quadratic(pl.LightningModule):
    """The loss is half the squared distance of two weights, in a group each, from a target."""

    def __init__(self, schedule: str = "", rates: tuple[float, float] = (0.1, 0.01)) -> None:
        super().__init__()
        self.weights = nn.ParameterList([torch.zeros(1), torch.zeros(1)])
        self.schedule, self.rates = schedule, rates

    def loss(self, target: float) -> Tensor:
        distances: list[Tensor] = [(weight - target).square().sum() / 2 for weight in self.weights]
        return torch.stack(distances).sum()

    def values(self) -> list[float]:
        return [float(weight.detach()) for weight in self.weights]

    def configure_optimizers(self) -> Any:
        optimizer = SGD([{"params": [w], "lr": r} for w, r in zip(self.weights, self.rates, strict=True)])
        return {"optimizer": optimizer, **SCHEDULES[self.schedule](optimizer)}


def halving(optimizer: Optimizer, **when: Any) -> dict[str, Any]:
    return {"lr_scheduler": {"scheduler": lr_scheduler.StepLR(optimizer, 1, gamma=0.5), **when}}


def warm_up(optimizer: Optimizer) -> dict[str, Any]:
    parts = [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, 0.9)]
    return {"lr_scheduler": lr_scheduler.SequentialLR(optimizer, parts, [5])}


def plateau(optimizer: Optimizer) -> dict[str, Any]:
    waiting = lr_scheduler.ReduceLROnPlateau(optimizer)
    return {"lr_scheduler": {"scheduler": waiting, "monitor": "loss", "interval": "step"}}


SCHEDULES: dict[str, Callable[[Optimizer], dict[str, Any]]] = {
    "": lambda optimizer: {},
    "step": partial(halving, interval="step"),
    "every second step": partial(halving, interval="step", frequency=2),
    "epoch": halving,
    "warm-up": warm_up,
    "plateau": plateau,
    "cycle": lambda optimizer: {"lr_scheduler": lr_scheduler.OneCycleLR(optimizer, 0.3, total_steps=9)},
}


def rates_of(optimization: Optimization) -> list[float]:
    return [group["lr"] for group in optimization.optimizer.param_groups]


def test_a_step_is_on_the_mean_of_what_it_accumulates() -> None:
    module = Quadratic()
    targets = [1.0, 2.0, 6.0]
    optimization = Optimization(module, StepOptions(accumulate_grad_batches=3))
    loss = optimization.step(lambda i: module.loss(targets[i]), 3)
    assert float(loss) == pytest.approx(sum(target**2 for target in targets) / 3)
    assert module.values() == pytest.approx([0.1 * 3.0, 0.01 * 3.0])


@pytest.mark.parametrize(("algorithm", "gradient"), [("norm", 0.5 / 2**0.5), ("value", 0.5)])
def test_gradients_are_clipped_after_they_are_summed(algorithm: str, gradient: float) -> None:
    module = Quadratic()
    optimization = Optimization(module, StepOptions(2, 0.5, algorithm))
    optimization.step(lambda i: module.loss(3.0), 2)
    assert module.values() == pytest.approx([0.1 * gradient, 0.01 * gradient])


def test_half_precision_steps_are_unscaled_before_they_are_clipped_and_left_out_if_they_overflow() -> None:
    module = Quadratic()
    optimization = Optimization(module, StepOptions(1, 0.5, "value", "16-mixed"))
    assert optimization.scaler.is_enabled()
    optimization.step(lambda i: module.loss(3.0), 1)
    assert module.values() == pytest.approx([0.05, 0.005])
    scale = optimization.scaler.get_scale()
    optimization.step(lambda i: module.loss(3.0) * 1e38, 1)
    assert module.values() == pytest.approx([0.05, 0.005])
    assert optimization.scaler.get_scale() < scale


def test_an_optimizer_that_takes_no_scaled_gradients_is_refused_as_by_a_fit() -> None:
    class Newton(Quadratic):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(UsageError, match="precision=16-mixed: model=Newton has LBFGS"):
        Optimization(Newton(), StepOptions(precision="16-mixed"))
    Optimization(Newton(), StepOptions(precision="bf16-mixed"))


def test_an_optimizer_may_call_for_the_loss_again() -> None:
    class Newton(Quadratic):
        def configure_optimizers(self) -> Any:
            return torch.optim.LBFGS(self.parameters(), lr=1.0)

    module = Newton()
    calls: list[int] = []
    loss = Optimization(module, StepOptions()).step(lambda i: calls.append(i) or module.loss(1.0), 1)  # type: ignore[func-returns-value]
    assert len(calls) > 1
    assert loss.numel() == 1
    assert module.values() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize(
    ("schedule", "per_epoch", "factors"),
    [
        ("step", None, [1 / 2, 1 / 4, 1 / 8, 1 / 16]),
        ("every second step", None, [1, 1 / 2, 1 / 2, 1 / 4]),
        ("epoch", 3, [1, 1, 1 / 2, 1 / 2]),
        ("epoch", None, [1, 1, 1, 1]),
        ("plateau", None, [1, 1, 1, 1]),
    ],
)
def test_schedules_move_when_a_fit_would_move_them(schedule: str, per_epoch: int | None, factors: list[float]) -> None:
    optimization = Optimization(Quadratic(schedule), StepOptions(steps_per_epoch=per_epoch))
    first = rates_of(optimization)[0]
    seen = []
    for steps in range(1, 5):
        optimization.optimizer.step()
        optimization.move_schedules(steps)
        seen.append(rates_of(optimization)[0] / first)
    assert seen == pytest.approx(factors)


@pytest.mark.parametrize(
    ("schedule", "pace", "moves"), [("step", 2.5, 10), ("every second step", 3, 6), ("epoch", 7, 9)]
)
def test_a_short_trial_sees_the_schedule_of_the_whole_fit(schedule: str, pace: float, moves: int) -> None:
    """Four steps at a pace end where the fit's `4 * pace` end: an epoch has three steps here."""
    optimization = Optimization(Quadratic(schedule), StepOptions(steps_per_epoch=3, pace=pace))
    first = rates_of(optimization)[0]
    for steps in range(1, 5):
        optimization.optimizer.step()
        optimization.move_schedules(steps)
    assert rates_of(optimization)[0] / first == pytest.approx(0.5**moves)


@pytest.mark.parametrize("schedule", ["", "step", "warm-up"])
def test_another_rate_is_as_if_the_optimizer_had_been_made_with_it(schedule: str) -> None:
    changed, made = (
        Optimization(Quadratic(schedule, rates), StepOptions(steps_per_epoch=1)) for rates in [(0.1, 0.01), (0.3, 0.03)]
    )
    assert changed.learning_rate == 0.1
    changed.set_learning_rate(0.3)
    assert changed.learning_rate == pytest.approx(0.3)
    for steps in range(1, 9):
        assert rates_of(changed) == pytest.approx(rates_of(made))
        for optimization in (changed, made):
            optimization.optimizer.step()
            optimization.move_schedules(steps)


class WarmsUp(Quadratic):
    """Makes its steps itself, at rates that rise."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (batch_idx + 1) / 4
        optimizer.step(closure=optimizer_closure)


def test_another_rate_is_the_same_to_a_module_that_sets_its_own() -> None:
    changed, made = (Optimization(WarmsUp(rates=rates), StepOptions()) for rates in [(0.1, 0.01), (0.3, 0.03)])
    changed.set_learning_rate(0.3)
    for batch_idx in range(4):
        for optimization in (changed, made):
            module = optimization.module
            assert isinstance(module, Quadratic)
            optimization.step(lambda _, module=module: module.loss(1.0), 1, batch_idx=batch_idx)  # type: ignore[misc]
        assert rates_of(changed) == pytest.approx(rates_of(made))
    assert changed.module.values() == pytest.approx(made.module.values())  # type: ignore[operator]


def test_a_module_may_clip_by_itself() -> None:
    class Clips(Quadratic):
        def configure_gradient_clipping(self, optimizer: Any, *limit: Any) -> None:
            assert limit == (0.5, "norm")
            nn.utils.clip_grad_value_(self.parameters(), 0.25)

    module = Clips()
    Optimization(module, StepOptions(gradient_clip_val=0.5)).step(lambda _: module.loss(1.0), 1)
    assert module.values() == pytest.approx([0.025, 0.0025])


def test_what_goes_on_has_its_moments_and_schedule_and_leaves_those_it_came_from_alone() -> None:
    class Heavy(Quadratic):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1, momentum=0.9)
            schedule = lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def go(optimization: Optimization, module: Quadratic, first: int, last: int) -> None:
        for steps in range(first, last):
            optimization.step(lambda i: module.loss(1.0), 1)
            optimization.move_schedules(steps + 1)

    whole, module = Heavy(), Heavy()
    go(Optimization(whole, StepOptions()), whole, 0, 6)
    first = Optimization(module, StepOptions())
    go(first, module, 0, 3)
    state = first.state(copy.deepcopy(module.state_dict()))
    kept = copy.deepcopy(state)
    second = Heavy()
    second.load_state_dict(state.weights)
    go(Optimization(second, StepOptions(), state), second, 3, 6)
    assert second.values() == whole.values()
    assert state.optimizer == kept.optimizer
    assert state.schedulers == kept.schedulers
    assert state.weights == kept.weights


def test_a_schedule_of_another_kind_is_moved_by_the_module_that_knows_it() -> None:
    class Halving:
        """As in timm: not torch's, and told the epoch."""

        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer, self.base_values = optimizer, [group["lr"] for group in optimizer.param_groups]

        def step(self, epoch: int) -> None:
            for group, rate in zip(self.optimizer.param_groups, self.base_values, strict=True):
                group["lr"] = rate / 2**epoch

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    class Scheduled(Quadratic):
        def configure_optimizers(self) -> Any:
            optimizer = SGD(self.parameters(), lr=0.1)
            return [optimizer], [{"scheduler": Halving(optimizer), "interval": "step"}]

        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            scheduler.step(epoch=3)

    optimization = Optimization(Scheduled(), StepOptions())
    optimization.set_learning_rate(0.8)
    optimization.move_schedules(1)
    assert rates_of(optimization) == pytest.approx([0.1])


def test_a_frozen_group_stays_frozen() -> None:
    optimization = Optimization(Quadratic(rates=(0.0, 0.1)), StepOptions())
    assert optimization.learning_rate == 0.1
    optimization.set_learning_rate(0.3)
    assert rates_of(optimization) == pytest.approx([0.0, 0.3])


def test_what_cannot_be_raced_is_refused() -> None:
    with pytest.raises(UsageError, match="lr=0 of every parameter group"):
        Optimization(Quadratic(rates=(0.0, 0.0)), StepOptions()).set_learning_rate(0.1)

    class Several(Quadratic):
        def configure_optimizers(self) -> Any:
            return [SGD([weight], lr=0.1) for weight in self.weights]

    with pytest.raises(UsageError, match="model=Several: 2 optimizers"):
        Optimization(Several(), StepOptions())

    class Idle(Quadratic):
        def configure_optimizers(self) -> Any:
            return None

    with pytest.raises(UsageError, match="model=Idle: configure_optimizers returned None"):
        Optimization(Idle(), StepOptions())
    module = Quadratic()
    check_optimization(module)
    module.automatic_optimization = False
    with pytest.raises(UsageError, match=r"model=Quadratic: manual optimization cannot be raced"):
        check_optimization(module)
    with pytest.raises(UsageError, match="model=Linear: no LightningModule"):
        check_optimization(torch.nn.Linear(2, 2))  # type: ignore[arg-type]
