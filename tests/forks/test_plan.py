"""Forks on small blobs: each cause is made, and must be found; each remedy must have been measured."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forks.blobs import CONFIG, Batch, Lit, Logging, blobs, dead
from unstall.errors import UsageError
from unstall.forks.plan import fork
from unstall.forks.tried import Report
from unstall.trials import State
from unstall.watch import Cause


class Regression(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.mse_loss(self.network(batch[0])[:, 0], batch[1])


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
    (in_place,) = [fork for fork in report.forks if "from here on" in fork.change]
    assert report.fix is not None
    assert in_place.change.startswith(f"{report.fix.change} from here on")
    assert report.fix.after.loss < in_place.after.loss, "restarting repairs, lowering does not"


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
