"""The rules, on real small runs of every cause; the callback and the forks have tests of their own."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.watch.causes import Cause
from unstall.watch.meter import Meter
from unstall.watch.rules import RULES, Condition, hopeless, name_cause
from unstall.watch.signals import Signals


def network(*widths: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


def scaled(module: nn.Sequential, factor: float) -> nn.Sequential:
    with torch.no_grad():
        for weight in module.parameters():
            weight *= factor
    return module


def dead(module: nn.Sequential) -> nn.Sequential:
    assert isinstance(module[0], nn.Linear)
    nn.init.constant_(module[0].bias, -1000.0)
    return module


class Residual(nn.Module):
    """A dead layer that a skip connection goes around."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 64), nn.Linear(64, 10)
        self.layer = dead(nn.Sequential(nn.Linear(64, 64), nn.ReLU()))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        outputs: Tensor = self.last(hidden + self.layer(hidden))
        return outputs


def signals_of(
    module: nn.Module,
    rate: float,
    seed: int,
    optimizer: str = "SGD",
    samples: int = 20_000,
    steps: int = 320,
    random: bool = False,
) -> Signals:
    """Train on blobs as anyone would, with the meter beside it."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 20, generator=generator)
    labels = torch.randint(10, (samples + 1000,), generator=generator)
    inputs = centres[labels] + 1.2 * torch.randn(len(labels), 20, generator=generator)
    if random:
        labels = torch.randint(10, labels.shape, generator=generator)
    step: torch.optim.Optimizer = getattr(torch.optim, optimizer)(module.parameters(), lr=rate)
    meter = Meter(module, momentum=0.9 if optimizer == "Adam" else 0.0)

    def loss_of(batch: Tensor) -> Tensor:
        return F.cross_entropy(module(inputs[batch]), labels[batch])

    for number in range(steps):
        batch = torch.randint(samples, (64,), generator=generator)
        step.zero_grad()
        loss = loss_of(batch)
        loss.backward()
        meter.before_step()
        step.step()
        meter.after_batch(loss, labels[batch])
        if number % 80 == 79:
            meter.end_epoch()
            with torch.no_grad():
                meter.validated(float(loss_of(torch.arange(samples, samples + 1000))), number // 80)
    return meter.read()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("cause", "run"),
    [
        (Cause.TOO_HIGH, lambda seed: signals_of(network(20, 64, 10), 3.0, seed, "RMSprop")),
        (Cause.TOO_HIGH, lambda seed: signals_of(network(20, 64, 10), 3.0, seed, "Adam")),
        (Cause.TOO_LOW, lambda seed: signals_of(network(20, 64, 10), 1e-4, seed)),
        (Cause.TOO_LOW, lambda seed: signals_of(network(20, 64, 10), 1e-6, seed, "Adam")),
        (Cause.NON_FINITE, lambda seed: signals_of(network(20, 64, 10), 1e4, seed)),
        (Cause.DEAD_AT_START, lambda seed: signals_of(dead(network(20, 64, 10)), 1e-2, seed, "Adam")),
        (Cause.TOO_LOW, lambda seed: signals_of(Residual(), 1e-4, seed)),
        (Cause.HEALTHY, lambda seed: signals_of(Residual(), 1e-2, seed, "Adam")),
        (Cause.BAD_SCALE, lambda seed: signals_of(scaled(network(20, 64, 10), 30), 0.1, seed, "Adam")),
        (Cause.NOTHING_TO_LEARN, lambda seed: signals_of(network(20, 64, 10), 1e-2, seed, "Adam", random=True)),
        (Cause.HEALTHY, lambda seed: signals_of(network(20, 64, 10), 0.3, seed)),
        (Cause.HEALTHY, lambda seed: signals_of(network(20, 64, 10), 1e-2, seed, "Adam")),
        (Cause.HEALTHY, lambda seed: signals_of(network(20, 64, 10, activation=nn.Tanh), 1e-2, seed, "Adam")),
        (Cause.OVERFITTING, lambda seed: signals_of(network(20, 256, 10), 1e-2, seed, "Adam", samples=200)),
    ],
)
def test_cause_of_a_real_run_is_found(cause: Cause, run: Callable[[int], Signals], seed: int) -> None:
    torch.manual_seed(seed)
    signals = run(seed)
    verdict = name_cause(signals)
    assert verdict.cause == cause, signals
    assert 0.5 <= verdict.confidence <= 1
    assert verdict.evidence
    assert verdict.step == 320
    if verdict.stalled:
        assert verdict.remedy


HEALTHY = Signals(
    step=400,
    initial_loss=2.4,
    loss=0.3,
    baseline=2.3,
    initial_ratio=1.04,
    loss_ratio=0.13,
    blow_up=0.8,
    move=0.8,
    path_efficiency=1.5,
    straightness=0.4,
    predicted_gain=0.5,
    dead_at_start=0.01,
    dead=0.1,
    gradient_ratio=0.2,
)


def changed(**values: Any) -> Signals:
    return replace(HEALTHY, **values)


def test_a_healthy_run_shows_how_far_it_is_from_every_threshold() -> None:
    verdict = name_cause(HEALTHY)
    assert verdict.cause == Cause.HEALTHY
    assert not verdict.candidates
    assert {"move", "dead"} & {evidence.signal for evidence in verdict.evidence}


def test_near_a_threshold_the_verdict_is_unsure_between_two() -> None:
    verdict = name_cause(changed(move=2.52, loss_ratio=0.5))
    assert verdict.cause == Cause.UNSURE
    assert verdict.candidates == (Cause.TOO_HIGH, Cause.HEALTHY)
    assert Cause.TOO_HIGH.value in verdict.sentence
    assert name_cause(changed(move=10, loss_ratio=0.9)).cause == Cause.TOO_HIGH
    assert name_cause(changed(move=10, loss_ratio=0.9)).confidence > 0.85


def test_a_signal_that_was_not_measured_accuses_nobody() -> None:
    assert name_cause(Signals(step=1000)).cause == Cause.HEALTHY
    assert name_cause(Signals()).cause == Cause.HEALTHY


def test_a_loss_that_is_never_finite_is_found_at_once() -> None:
    meter = Meter(network(20, 64, 10))
    meter.after_batch(torch.tensor(math.nan))
    assert name_cause(meter.read()).cause == Cause.NON_FINITE


def test_early_readings_accuse_only_of_what_shows_early() -> None:
    late = {rule.cause for rule in RULES if rule.after > 25}
    assert Cause.TOO_LOW in late
    early = changed(straightness=1.0, predicted_gain=1e-5, loss_ratio=1.0, step=50)
    assert name_cause(early).cause == Cause.HEALTHY
    assert name_cause(early).confidence == 0.5
    assert "too few to tell" in name_cause(early).sentence
    assert name_cause(changed(straightness=1.0, predicted_gain=1e-5, loss_ratio=1.0)).cause == Cause.TOO_LOW


def test_samples_learned_by_heart_are_overfitting_before_the_validation_loss_rises() -> None:
    verdict = name_cause(changed(training_loss=0.01, validation_loss=0.5, loss_ratio=0.004, rise=1.0))
    assert verdict.cause == Cause.OVERFITTING
    assert "by heart" in verdict.sentence
    assert "50 times" in verdict.sentence
    turned = name_cause(changed(training_loss=0.01, validation_loss=0.5, loss_ratio=0.004, rise=1.2, turned_epoch=3))
    assert "epoch 3" in turned.sentence


@pytest.mark.parametrize(
    ("value", "above", "margin"), [(4.0, True, 1), (1.0, True, -1), (1.0, False, 1), (math.nan, True, math.inf)]
)
def test_margin_counts_factors_of_two(value: float, above: bool, margin: float) -> None:
    assert Condition("move", above, 2.0).margin(Signals(move=value)) == margin
    assert Condition("move", above, 2.0).margin(Signals()) is None


@pytest.mark.parametrize(
    ("signals", "cause", "steps_left", "expected"),
    [
        (changed(non_finite_step=3), Cause.NON_FINITE, 1e4, True),
        (changed(move=100, loss_ratio=1.5), Cause.TOO_HIGH, 1e4, True),
        (changed(move=100, loss_ratio=0.5), Cause.TOO_HIGH, 1e4, False),
        (changed(straightness=1, predicted_gain=1e-6, loss_ratio=1.0), Cause.TOO_LOW, 1e4, True),
        (changed(straightness=1, predicted_gain=1e-4, loss_ratio=1.0), Cause.TOO_LOW, 1e4, False),
        (HEALTHY, Cause.HEALTHY, 1e4, False),
    ],
)
def test_hopeless_means_that_the_steps_left_do_not_help(
    signals: Signals, cause: Cause, steps_left: float, expected: bool
) -> None:
    verdict = name_cause(signals)
    assert verdict.cause == cause
    assert hopeless(signals, verdict, steps_left) == expected
