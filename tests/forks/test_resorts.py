"""What is tried last: each cause is made where no audit sees it, and must be found; what is healthy, left alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forks.blobs import CONFIG, Batch, Lit, blobs
from unstall.forks.plan import fork
from unstall.forks.resorts import humbled, left
from unstall.forks.tried import Fork, Report
from unstall.trials import Score
from unstall.watch import Cause, Signals, name_cause


class Faint(Lit):
    """Its loss hardly sees the network."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy((1e-5 * self.network(batch[0])).sin(), batch[1])


SCALES = torch.logspace(0, 2.5, 20)


def test_a_loss_that_does_not_fit_is_named_with_the_one_that_does() -> None:
    report = fork(Faint(0.1), *blobs())
    assert report.verdict.cause == "last activation and loss do not fit the targets"
    assert report.fix is not None
    assert report.fix.module is not None
    assert left(report.fix) <= 0.5
    assert report.references["a constant"] < 0.2 < 0.9 < report.references["a linear model"]


def test_inputs_that_hinder() -> None:
    batches, held_out = blobs()
    scaled = [[(x * SCALES, y) for x, y in part] for part in (batches, held_out)]
    report = fork(Lit(1e-5), *scaled)
    assert report.verdict.cause in ("inputs on a scale that hinders", "inputs far from unit scale")
    assert report.fix is not None
    assert "inputs standardised" in report.fix.change


def test_a_run_that_ended_too_early_is_told_from_one_whose_rate_is_too_low() -> None:
    batches, held_out = blobs()
    few = batches[:12]
    report = fork(Lit(0.03), few, held_out, horizon=12, config={**CONFIG, "trainer": {"max_epochs": 2}})
    assert report.verdict.cause in ("too few epochs", Cause.TOO_LOW)
    slow = fork(Lit(1e-5), few, held_out, horizon=12)
    assert slow.verdict.cause == Cause.TOO_LOW


def test_of_a_short_run_more_epochs_are_the_second_part_of_a_rate() -> None:
    batches, held_out = blobs(128)
    config = {**CONFIG, "trainer": {"max_epochs": 2}}
    report = fork(Lit(1e-4, widths=(20, 4, 10)), batches[:4], held_out, horizon=4, config=config)
    assert report.verdict.cause == Cause.TOO_LOW
    assert report.fix is not None
    assert report.fix in report.forks
    assert report.fix.change.startswith("80 times the steps, learning rate")
    assert report.fix.learning_rate is not None
    assert report.fix.overlay is not None
    assert report.fix.overlay["trainer"] == {"max_epochs": 160}
    optimizer = report.fix.overlay["model"]["init_args"]["optimizer"]["init_args"]
    assert optimizer == {"lr": report.fix.learning_rate}
    assert (report.fix.after.accuracy or 0.0) > 0.8


def reported(cause: Cause, constant: float, linear: float) -> Report:
    verdict = replace(name_cause(Signals(step=500)), cause=cause)
    return Report(verdict, (), None, references={"a constant": constant, "a linear model": linear})


@pytest.mark.parametrize(
    ("reached", "cause"), [(0.11, Cause.UNSURE), (0.5, Cause.BELOW_BASELINE), (0.88, Cause.HEALTHY)]
)
def test_healthy_is_more_than_a_constant_and_no_less_than_a_linear_model(reached: float, cause: Cause) -> None:
    verdict = humbled(reported(Cause.HEALTHY, 0.1, 0.9), reached).verdict
    assert verdict.cause == cause
    assert cause == Cause.HEALTHY or f"{reached:.3g}" in verdict.sentence


def test_the_error_that_is_left() -> None:
    assert left(Fork("", Score(1.0, 0.5), Score(1.0, 0.9))) == pytest.approx(0.2)
    assert left(Fork("", Score(1.0, -40.0), Score(1.0, 0.75))) == pytest.approx(0.25)
    assert left(Fork("", Score(1.0, 1.0), Score(1.0, 1.0))) == 0
