"""Remedies are raced where they can be, and only there; rates go up as long as that is better."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import nn

from forks.blobs import CONFIG, Lit, blobs
from unstall.forks.remedies import climb, try_in_place, try_larger_batch, try_rates
from unstall.forks.subject import Subject
from unstall.trials import Judge, Score, State, StepOptions
from unstall.watch import Cause


def with_batches_of(size: int) -> dict[str, Any]:
    """The configuration with another batch size."""
    return {**CONFIG, "data": {"class_path": "tests.Data", "init_args": {"batch_size": size}}}


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


def test_other_rates_are_screened_and_the_best_compared_for_longer() -> None:
    subject = Subject(Lit(1e-3), *blobs(), config=CONFIG)
    best, worth_a_try = try_rates(subject)
    screened = [fork for fork in subject.forks if fork.change.endswith(f", {subject.short} steps")]
    assert len(screened) == 6, "a decade apart, and not the run's own again"
    assert best in subject.forks
    assert best.before == subject.score
    assert best.after.loss < 0.5 * subject.score.loss
    assert best.cause == Cause.TOO_LOW
    assert best.overlay is not None
    rate = best.overlay["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert best.change == f"learning rate {rate:.2g}"
    assert {rate, subject.rate} <= set(worth_a_try)
    assert worth_a_try == sorted(worth_a_try)


@pytest.mark.parametrize(("batch_size", "size"), [(4, 64), (32, 512), (64, 512), (65, None), (128, None)])
def test_a_small_batch_is_enlarged_for_as_many_samples(batch_size: int, size: int | None) -> None:
    subject = Subject(Lit(0.1), *blobs(batch_size), config=with_batches_of(batch_size))
    found = try_larger_batch(subject)
    assert (found is not None) == (size is not None)
    if found is not None:
        assert found.change == f"batch size {size}"
        assert found.overlay == {"data": {"class_path": "tests.Data", "init_args": {"batch_size": size}}}
        assert found.cause == Cause.BATCH_TOO_SMALL


def test_what_a_step_accumulates_counts_and_the_setting_is_of_the_loader() -> None:
    subject = Subject(Lit(0.1), *blobs(8), config=with_batches_of(8), options=StepOptions(4))
    found = try_larger_batch(subject)
    assert found is not None
    assert found.change == "batch size 512"
    assert found.overlay == {"data": {"class_path": "tests.Data", "init_args": {"batch_size": 128}}}


TRAINER = {"trainer": {"accumulate_grad_batches": 1}}


@pytest.mark.parametrize(
    ("config", "change", "overlay"),
    [
        ({}, "batch size 16", None),
        ({"model": {"lr": 1.0}}, "batch size 16, set where the loader is made", None),
        (TRAINER, "batch size 16, as the gradients of 16 batches", {"trainer": {"accumulate_grad_batches": 16}}),
    ],
)
def test_where_no_setting_is_the_batch_size_gradients_are_accumulated_or_it_is_said_where_it_is(
    config: dict[str, Any], change: str, overlay: object
) -> None:
    """At batch 1 and a high rate the noise of a step undoes what it gains."""
    subject = Subject(Lit(0.3), *blobs(1), config=config)
    found = try_larger_batch(subject)
    assert found is not None
    assert found.helps
    assert (found.change, found.overlay) == (change, overlay)
    assert found.after.loss == pytest.approx(subject.forks[0].after.loss, rel=1e-3), "without BatchNorm it is the same"
    assert overlay is None or found.learning_rate == 0.3


def test_batches_are_not_said_to_be_accumulated_where_that_does_not_help() -> None:
    """BatchNorm needs the samples of a batch at once."""

    class Normalised(Lit):
        def __init__(self) -> None:
            super().__init__(0.3)
            self.network = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    subject = Subject(Normalised(), *blobs(2), config=TRAINER)
    found = try_larger_batch(subject)
    assert found is not None
    merged, accumulated = subject.forks
    assert merged.after.loss < 0.8 * accumulated.after.loss
    assert found is merged
    assert found.change == "batch size 32, set where the loader is made"


def test_batches_that_a_step_accumulates_count_as_one_and_few_are_not_merged() -> None:
    training, held_out = blobs(32)
    assert try_larger_batch(Subject(Lit(0.1), training, held_out, options=StepOptions(4))) is None
    assert try_larger_batch(Subject(Lit(0.1), training[:20], held_out)) is None, "a single step of 16 batches"


def test_padded_batches_are_enlarged_in_their_gradients_and_that_is_said() -> None:
    class Padded(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step((batch[0][:, :20], batch[1]), batch_idx)

    training, held_out = blobs(64)
    padded = [(F.pad(inputs, (0, i % 3)), labels) for i, (inputs, labels) in enumerate(training)]
    found = [
        try_larger_batch(Subject(module, batches, held_out))
        for module, batches in ((Lit(0.1), training), (Padded(0.1), padded))
    ]
    plain, several = found
    assert plain is not None
    assert several is not None
    assert several.change == f"{plain.change}, as the gradients of 8 batches"
    assert several.after.loss == pytest.approx(plain.after.loss, rel=1e-3)


def test_in_place_means_from_where_the_run_stands() -> None:
    subject = Subject(Lit(0.1), *blobs(64))
    try_in_place(subject)
    assert subject.forks == [], "nobody knows where it stands"
    subject = Subject(Lit(0.1), *blobs(64), start=State(Lit(0.1, seed=3).state_dict()))
    try_in_place(subject)
    rates = [fork.change.split()[2] for fork in subject.forks]
    assert rates == ["0.001", "0.01", "1"]
    assert len({fork.before for fork in subject.forks}) == 1, "what the run comes to if it goes on"
