"""What a trial is, and what is read off a trainer."""

import math
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from unstall.errors import UsageError
from unstall.trials.variants import Outcome, State, StepOptions, Variant


def make_trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        logger=False, accelerator="cpu", max_steps=1, enable_checkpointing=False, default_root_dir=folder, **arguments
    )


def test_the_held_out_loss_is_a_mean_and_infinite_for_what_dropped_out() -> None:
    assert Outcome(Variant(), [2.0], [0.5, 0.7], {}, finite=True).held_out_loss == pytest.approx(0.6)
    assert Outcome(Variant(), [2.0], [], {}, finite=False).held_out_loss == math.inf


def test_the_groups_of_a_state_are_the_optimizers_own_or_those_of_the_optimizers_within_it() -> None:
    first, second = ({"param_groups": [{"lr": rate}], "state": {0: {"step": 1}}} for rate in (0.1, 0.01))
    assert State({}, first).groups == [{"lr": 0.1}]
    for nested in (
        {"parts": [first, second]},
        {"a": first, "b": second},
        {"param_groups": [], "parts": [first, second]},
    ):
        assert State({}, nested).groups == [{"lr": 0.1}, {"lr": 0.01}]
    assert State({}).groups == []


def test_options_are_those_of_the_trainer(tmp_path: Path) -> None:
    assert StepOptions.of(make_trainer(tmp_path)) == StepOptions(), "Lightning's defaults are ours"
    trainer = make_trainer(
        tmp_path,
        accumulate_grad_batches=3,
        gradient_clip_val=0.5,
        gradient_clip_algorithm="value",
        precision="bf16-mixed",
    )
    assert StepOptions.of(trainer, steps_per_epoch=7) == StepOptions(3, 0.5, "value", "bf16-mixed", 7)


@pytest.mark.parametrize("precision", ["32-true", "32", 32, "bf16-mixed", "16-mixed"])
def test_usual_precisions_are_taken(precision: str | int) -> None:
    assert StepOptions(precision=precision).precision == precision


@pytest.mark.parametrize("precision", ["64-true", "16-true", 16, "transformer-engine"])
def test_a_precision_that_a_race_cannot_use_is_refused(precision: str | int) -> None:
    with pytest.raises(UsageError, match=f"precision={precision}"):
        StepOptions(precision=precision)
