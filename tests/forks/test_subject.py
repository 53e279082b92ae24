"""What is measured of a run before anything is changed, and what every comparison shares."""

import math
from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from forks.blobs import Batch, Lit, Logging, blobs, dead
from unstall.errors import UsageError
from unstall.forks.subject import Subject, screening_steps
from unstall.trials import Score, State, StepOptions, Variant, blank
from unstall.watch import Signals


@pytest.mark.parametrize(("batch_size", "steps"), [(128, 80), (512, 40), (32, 160), (1, 400), (10**6, 28)])
def test_screenings_are_longer_for_noisier_gradients(batch_size: int, steps: int) -> None:
    assert screening_steps(batch_size) == steps


def test_steps_are_counted_as_the_optimizer_makes_them_and_end_with_the_batches() -> None:
    training, held_out = blobs(128)
    whole = Subject(Lit(0.1), training, held_out)
    assert (whole.batch_size, whole.short, whole.long) == (128, 80, 320)
    accumulating = Subject(Lit(0.1), training, held_out, options=StepOptions(4))
    assert (accumulating.batch_size, accumulating.short, accumulating.long) == (512, 40, 80)
    few = Subject(Lit(0.1), training[:4], held_out)
    assert (few.short, few.long) == (4, 4)
    assert len(few.control.losses) == 4


def test_the_configured_rate_is_that_before_any_schedule() -> None:
    class WarmUp(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=self.rate)
            warm_up = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warm_up, "interval": "step"}}

    subject = Subject(WarmUp(0.3), *blobs(128))
    assert subject.rate == 0.3
    assert subject.is_own(0.32)
    assert not subject.is_own(0.1)


def test_signals_come_from_the_run_or_else_from_its_first_step() -> None:
    known = Signals(step=3, baseline=1.0)
    signals = Subject(Lit(0.1), *blobs(128), known_signals=known, options=StepOptions(2)).signals
    assert signals == replace(known, batch_size=256), "but what a step has is counted anew, accumulated as it is"
    training, held_out = blobs(128)
    module = dead(Logging(0.1), 63)
    signals = Subject(module, training, held_out).signals
    assert signals.step == 320
    assert signals.batch_size == 128
    assert signals.baseline == pytest.approx(math.log(10), abs=0.01)
    first = F.cross_entropy(module.network(training[0][0]), training[0][1])
    assert signals.initial_loss == pytest.approx(first.item())
    assert signals.dead_at_start is not None
    assert signals.dead_at_start > 0.9
    assert signals.move is not None
    assert 0 < signals.move < 0.01, "three hundred steps with hardly a unit alive"


def test_a_loss_that_ends_is_seen() -> None:
    assert Subject(Lit(1e8), *blobs(128)).signals.non_finite_step is not None


def test_the_judge_knows_the_best_constant_prediction_of_any_loss() -> None:
    class Regression(Lit):
        def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
            return F.mse_loss(self.network(batch[0])[:, 0], batch[1])

    judge = Subject(Lit(0.1), *blobs(128)).judge
    assert (judge.reference, judge.chance) == (pytest.approx(math.log(10), abs=0.01), pytest.approx(0.1, abs=0.05))
    sums = [[(inputs, inputs.sum(1)) for inputs, _ in part] for part in blobs(32)]
    variance = sums[1][0][1].var().item()
    judge = Subject(Regression(0.01), *sums).judge
    assert (judge.reference, judge.chance) == (pytest.approx(variance, rel=0.1), None)


def test_a_run_comes_to_the_better_of_a_fresh_start_and_of_where_it_stands() -> None:
    training, held_out = blobs(128)
    fresh = Subject(Lit(1e-3), training, held_out).score
    (trained,) = Subject(Lit(0.3), training, held_out).race([Variant()], training, held_out, keep_state=True)
    assert trained.state is not None
    assert Subject(Lit(1e-3), training, held_out, start=trained.state).score == Score.of(trained)
    spoilt = State(Lit(1e-3, seed=5).state_dict())
    assert Subject(Lit(1e-3), training, held_out, start=spoilt).score == fresh


def test_a_transform_reaches_every_batch_and_another_module_takes_the_runs_place() -> None:
    subject = Subject(Lit(0.1), *blobs(128))
    (plain,) = subject.scores([Variant()], 5)
    (blanked,) = subject.scores([Variant()], 5, transform=lambda batch: (torch.zeros_like(batch[0]), batch[1]))
    assert blanked.loss == pytest.approx(math.log(10), abs=0.1)
    assert blanked != plain
    (other,) = subject.scores([Variant()], 5, Lit(0.1, seed=4))
    assert other == Subject(Lit(0.1, seed=4), *blobs(128)).scores([Variant()], 5)[0]


def test_the_network_sees_a_batch_after_the_transfer_hooks() -> None:
    class Scaling(Lit):
        def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
            return batch[0] / 255, batch[1]

    training, held_out = blobs(128)
    assert Subject(Scaling(0.1), training, held_out).first_batch[0].equal(training[0][0] / 255)


def test_what_is_noted_is_judged() -> None:
    subject = Subject(Lit(0.1), *blobs(128))
    good = subject.note("good", Score(2.0), Score(1.0), {"a": 1})
    bad = subject.note("bad", Score(2.0), Score(math.inf))
    assert subject.forks == [good, bad]
    assert (good.helps, good.mends, good.overlay) == (True, True, {"a": 1})
    assert (bad.helps, bad.mends, bad.overlay) == (False, False, None)


def test_the_module_of_a_subject_keeps_its_trainer_and_weights() -> None:
    module = Lit(0.1)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    subject = Subject(module, *blobs(128), trainer=pl.Trainer(logger=False, enable_checkpointing=False, max_steps=1))
    assert subject.score.loss < 1
    assert module._trainer is None
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


class AutoEncoder(Lit):
    """Its batches have labels that it never looks at."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return F.mse_loss(self.network(batch[0])[:, :8], batch[0][:, :8].log1p())


class Zeros(Lit):
    """Compares with what no scale changes: which inputs are zero."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        answers = self.network(batch[0])
        return (torch.mul((batch[0][:, : answers.shape[1]] == 0).type(torch.float32), answers)).mean()


def test_inputs_that_the_loss_compares_with_are_no_inputs_to_change() -> None:
    training, held_out = blobs(128)
    assert Subject(Lit(0.1), training, held_out).inputs_alone
    inside = [(inputs.abs(), labels) for inputs, labels in training[:20]]
    subject = Subject(AutoEncoder(1e-3), inside, inside[:2])
    assert not subject.inputs_alone, "what it computes from them is theirs, too"
    sparse = [(inputs.relu(), labels) for inputs, labels in training[:20]]
    assert not Subject(Zeros(1e-3), sparse, sparse[:2]).inputs_alone
    assert subject.signals.baseline is None
    assert subject.judge.reference == subject.control.losses[0], "of blank ones it could give back all"
    assert subject.judge.down_to_zero is False
    assert Subject(Lit(0.1), training, held_out).judge.down_to_zero


def test_a_change_that_the_module_does_not_survive_has_diverged() -> None:
    class Picky(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            if not batch[0].any():
                raise ValueError("No windows available")
            return super().training_step(batch, batch_idx)

    training, held_out = blobs(128)
    subject = Subject(Picky(0.1), training[:8], held_out)
    (score,) = subject.scores([Variant()], 2, transform=blank)
    assert score == Score(math.inf)
    with pytest.raises(ValueError, match="No windows available"):
        Subject(Picky(0.1), [blank(batch) for batch in training[:8]], held_out).scores([Variant()], 2)


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="lr=0 of every parameter group"):
        _ = Subject(Lit(0.0), *blobs(128)).rate
