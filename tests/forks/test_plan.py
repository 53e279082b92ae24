"""Forks on small blobs: each cause is made, and must be found; each remedy must have been measured."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.errors import UsageError
from unstall.forks.changes import merged, overlay_for, redrawn, with_relu
from unstall.forks.plan import climb, fork, screening_steps
from unstall.forks.tried import Report
from unstall.trials.judge import Judge, Score
from unstall.trials.variants import State
from unstall.watch.causes import Cause

Batch = tuple[Tensor, Tensor]


class Lit(pl.LightningModule):
    def __init__(
        self,
        rate: float,
        optimizer: str = "SGD",
        widths: Sequence[int] = (20, 64, 10),
        activation: type[nn.Module] = nn.ReLU,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), activation()]
        self.network = nn.Sequential(*layers[:-1])
        self.rate, self.optimizer = rate, optimizer

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate)


class Regression(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.mse_loss(self.network(batch[0])[:, 0], batch[1])


def blobs(
    batch_size: int = 32, seed: int = 0, random: bool = False, scale: float = 1.0
) -> tuple[list[Batch], list[Batch]]:
    """Four screenings' worth of training batches, and 500 held-out samples."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 20, generator=generator)
    count = 4 * screening_steps(batch_size)
    labels = torch.randint(10, (count * batch_size + 500,), generator=generator)
    inputs = centres[labels] + 0.7 * torch.randn(len(labels), 20, generator=generator)
    if random:
        labels = torch.randint(10, labels.shape, generator=generator)
    training = list(zip(inputs[:-500].split(batch_size), labels[:-500].split(batch_size), strict=True))
    return training, [(inputs[-500:], labels[-500:])]


def dead(module: Lit, units: int = 64) -> Lit:
    assert isinstance(module.network[0], nn.Linear)
    nn.init.constant_(module.network[0].bias[:units], -1000.0)
    return module


CONFIG = {
    "model": {
        "class_path": "tests.Lit",
        "init_args": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.0}}},
    },
    "data": {"class_path": "tests.Data", "init_args": {"batch_size": 32}},
}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    ("make", "data", "cause", "change"),
    [
        (lambda seed: Lit(3.0, "RMSprop", seed=seed), {}, Cause.TOO_HIGH, "learning rate"),
        (lambda seed: Lit(1e-5, "Adam", seed=seed), {}, Cause.TOO_LOW, "learning rate"),
        (lambda seed: Lit(1e-5, seed=seed), {}, Cause.TOO_LOW, "learning rate"),
        (lambda seed: Lit(0.3, seed=seed), {}, Cause.HEALTHY, None),
        (lambda seed: Lit(3e-3, "Adam", seed=seed), {}, Cause.HEALTHY, None),
        (lambda seed: dead(Lit(1e-2, "Adam", seed=seed)), {}, None, "initial weights"),
        (lambda seed: dead(Lit(1e-2, "Adam", seed=seed), 62), {}, Cause.DEAD_AT_START, "initial weights"),
        (lambda seed: Lit(1e-2, "Adam", seed=seed), {"random": True}, Cause.NOTHING_TO_LEARN, None),
        (lambda seed: Lit(0.1, "SGD", [20, *[32] * 6, 10], nn.Sigmoid, seed=seed), {}, Cause.VANISHING, "any"),
    ],
    ids=[
        "too high",
        "too low",
        "too low SGD",
        "healthy SGD",
        "healthy Adam",
        "dead",
        "two alive",
        "random labels",
        "vanishing",
    ],
)
def test_cause_is_found_and_its_remedy_measured(
    make: Callable[[int], Lit], data: dict[str, Any], cause: Cause | None, change: str | None, seed: int
) -> None:
    report = fork(make(seed), *blobs(seed=seed, **data), config=CONFIG)
    if cause is not None:
        assert report.verdict.cause == cause
    if change is None:
        assert report.fix is None
    elif change == "any":
        assert report.fix is None or "ReLU" in report.fix.change
    else:
        assert report.fix is not None
        assert report.fix.change.startswith(change)
        assert report.fix.after.loss < 0.8 * report.fix.before.loss
    assert any(fork.change.startswith("learning rate") for fork in report.forks)


def test_what_gains_less_than_five_points_is_offered_without_an_accusation() -> None:
    class Logging(Lit):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            logits = self.network(batch[0])
            self.log("train/accuracy", (logits.argmax(1) == batch[1]).float().mean())
            return F.cross_entropy(logits, batch[1])

    report = fork(Logging(0.005), *blobs(), config=CONFIG)
    assert report.verdict.cause == Cause.HEALTHY
    assert report.fix is not None
    before, after = report.fix.before.accuracy, report.fix.after.accuracy
    assert before is not None
    assert after is not None
    assert 0 < after - before < 0.05
    assert report.fix.overlay is not None
    assert f"whether {report.fix.change} is worth it" in report.open_question


def test_fix_of_a_rate_is_an_overlay_of_the_runs_own_setting() -> None:
    report = fork(Lit(1e-5), *blobs(), config=CONFIG)
    assert report.fix is not None
    assert report.fix.overlay is not None
    optimizer = report.fix.overlay["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "torch.optim.SGD"
    assert optimizer["init_args"].keys() == {"lr"}
    assert optimizer["init_args"]["lr"] > 1e-2


def test_regression_is_diagnosed_without_a_class_prior() -> None:
    training, held_out = blobs()
    direction = torch.randn(20, generator=torch.Generator().manual_seed(3))
    training = [(inputs, inputs @ direction) for inputs, _ in training]
    held_out = [(inputs, inputs @ direction) for inputs, _ in held_out]
    report = fork(Regression(1e-7, "Adam"), training, held_out)
    assert report.verdict.cause == Cause.TOO_LOW


def test_forks_from_a_checkpoint_are_made_in_place_as_well() -> None:
    spoiled = Lit(3.0, "RMSprop")
    training, held_out = blobs()
    optimizer = spoiled.configure_optimizers()
    for batch in training[:100]:
        optimizer.zero_grad()
        spoiled.training_step(batch, 0).backward()
        optimizer.step()
    start = State(spoiled.state_dict(), optimizer.state_dict())
    report = fork(Lit(3.0, "RMSprop"), training, held_out, start=start)
    in_place = [fork for fork in report.forks if "from here on" in fork.change]
    assert len(in_place) == 3
    assert report.fix is not None
    assert "from here on" not in report.fix.change
    assert report.fix.after.loss < min(fork.after.loss for fork in in_place), "restarting repairs, lowering does not"


def test_nothing_that_is_given_changes() -> None:
    module = Lit(1e-5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    training, held_out = blobs()
    copies = [inputs.clone() for inputs, _ in training]
    random = torch.random.get_rng_state()
    fork(module, training, held_out)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert all(torch.equal(copy, inputs) for copy, (inputs, _) in zip(copies, training, strict=True))
    assert torch.equal(random, torch.random.get_rng_state())


def test_same_input_gives_the_same_report() -> None:
    def losses(report: Report) -> list[float]:
        return [fork.after.loss for fork in report.forks]

    assert losses(fork(Lit(1e-5), *blobs())) == losses(fork(Lit(1e-5), *blobs()))


def test_manual_optimization_and_too_little_data_are_refused() -> None:
    module = Lit(0.1)
    with pytest.raises(UsageError, match="at least 4"):
        fork(module, blobs()[0][:2], blobs()[1])
    module.automatic_optimization = False
    with pytest.raises(UsageError, match="manual optimization"):
        fork(module, *blobs())


def test_overlays_go_through_class_paths_and_only_to_known_settings() -> None:
    assert overlay_for(CONFIG, ["model", "optimizer", "lr"], 3.0) == {
        "model": {
            "class_path": "tests.Lit",
            "init_args": {"optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 3.0}}},
        }
    }
    assert overlay_for(CONFIG, ["model", "learning_rate"], 3.0) is None
    both = merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4})
    assert both == {"a": {"b": 1, "c": 3}, "d": 4}


def scores(best: float) -> Callable[[list[float]], list[Score]]:
    """What a race would come to if the loss grew with the decades between a rate and the best one."""
    return lambda rates: [Score(1 + abs(math.log10(rate / best))) for rate in rates]


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        (0.01, [0.032, 0.01, 0.0032, 0.001]),
        (1e-4, [0.032, 0.01, 0.0032, 0.001]),
        (0.1, [0.32, 0.1, 0.032, 0.01, 0.0032, 0.001]),
        (1e3, [1.0, 0.32, 0.1, 0.032, 0.01, 0.0032, 0.001]),
    ],
)
def test_rates_are_raced_upwards_until_one_is_too_high(best: float, expected: list[float]) -> None:
    raced = climb(0.01, scores(best), Judge(2.3).safest)
    assert [rate for rate, _ in raced] == expected
    assert [score for _, score in raced] == scores(best)(expected)


def test_rates_go_up_too_while_the_highest_has_the_lowest_loss() -> None:
    known = {0.032: Score(0.31, 0.90), 0.01: Score(0.33, 0.91), 0.0032: Score(0.36, 0.89), 0.001: Score(0.5, 0.86)}
    higher = {0.1: Score(0.26, 0.92), 0.32: Score(9.0, 0.1)}
    raced = climb(0.01, lambda rates: [{**known, **higher}[rate] for rate in rates], Judge(2.3, 0.1, 2000).safest)
    assert [rate for rate, _ in raced][:2] == [0.32, 0.1]


def test_network_surgery_leaves_the_original_alone() -> None:
    module = Lit(0.1, activation=nn.Tanh)
    other = with_relu(module)
    assert other is not None
    assert isinstance(other.network[1], nn.ReLU)
    assert isinstance(module.network[1], nn.Tanh)
    assert with_relu(Lit(0.1)) is None
    again = redrawn(dead(Lit(0.1)))
    assert isinstance(again.network[0], nn.Linear)
    assert float(again.network[0].bias.detach().abs().max()) < 1
