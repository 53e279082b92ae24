"""Remedies are raced where they can be, and only there; rates go up as long as that is better."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch.nn.functional as F
from torch import nn

from forks.blobs import CONFIG, Lit, blobs
from unstall.forks.remedies import climb, try_in_place, try_larger_batch, try_rates
from unstall.forks.subject import Subject
from unstall.forks.tried import Fork
from unstall.trials import Judge, Score, State, StepOptions, Variant, race
from unstall.watch import Cause, Signals


def with_batches_of(size: int) -> dict[str, Any]:
    """The configuration with another batch size."""
    return {**CONFIG, "data": {"class_path": "tests.Data", "init_args": {"batch_size": size}}}


class Track:
    """What a race would come to if the loss grew with the decades between a rate and the best one, step by step alike.

    Args:
        best: The rate with the lowest loss.
        known: Other scores than these, by rate.
    """

    def __init__(self, best: float, known: dict[float, Score] | None = None) -> None:
        self.best, self.known, self.reached = best, known or {}, dict[float, int]()

    def __call__(self, rates: Sequence[float], steps: int) -> list[Score]:
        self.reached |= dict.fromkeys(rates, steps)
        return [self.known.get(rate, Score(1 + abs(math.log10(rate / self.best)))) for rate in rates]


@pytest.mark.parametrize(
    ("best", "expected", "reached"),
    [
        (0.01, [0.01, 0.0032], {0.032: 160, 0.01: 320, 0.0032: 320, 0.001: 80}),
        (1e-4, [0.0032, 0.001], {0.032: 80, 0.01: 160, 0.0032: 320, 0.001: 320}),
        (0.1, [0.32, 0.1, 0.032, 0.01], {0.32: 320, 0.1: 320, 0.032: 320, 0.01: 320, 0.0032: 160, 0.001: 80}),
        (1e3, [1.0, 0.32, 0.1, 0.032, 0.01], None),
    ],
)
def test_rates_are_raced_upwards_until_one_is_too_high_and_those_behind_drop_out(
    best: float, expected: list[float], reached: dict[float, int] | None
) -> None:
    track = Track(best)
    raced = climb(0.01, track, [80, 160, 320], Judge(2.3))
    assert [rate for rate, _ in raced] == expected
    assert [score for _, score in raced] == track(expected, 320)
    if reached is not None:
        assert track.reached == reached


def test_short_runs_are_raced_whole() -> None:
    track = Track(0.01)
    assert [rate for rate, _ in climb(0.01, track, [28], Judge(2.3))] == [0.032, 0.01, 0.0032, 0.001]


def test_rates_go_up_too_while_the_highest_has_the_lowest_loss() -> None:
    known = {0.032: Score(0.31, 0.90), 0.01: Score(0.33, 0.91), 0.0032: Score(0.36, 0.89), 0.001: Score(0.5, 0.86)}
    higher = {0.1: Score(0.26, 0.92), 0.32: Score(9.0, 0.1)}
    raced = climb(0.01, Track(0.1, known | higher), [80, 160, 320], Judge(2.3, 0.1, 2000))
    assert [rate for rate, _ in raced][:2] == [0.32, 0.1]


def test_other_rates_are_screened_and_the_best_compared_for_longer() -> None:
    subject = Subject(Lit(1e-3), *blobs(), config=CONFIG)
    best, worth_a_try = try_rates(subject)
    screened = [fork for fork in subject.forks if fork.change.endswith(f", {subject.short} steps")]
    glanced = [fork for fork in subject.forks if fork.change.endswith(f", {subject.glance} steps")]
    assert len(glanced) == 3, "the rest of a decade apart, and not the run's own again"
    assert 3 <= len(screened) <= 5, "and the half decades that dropped out"
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


def test_in_place_means_from_where_the_run_stands_at_the_rate_that_helps_from_its_start() -> None:
    rate = Fork("learning rate 1", Score(2.3), Score(0.3), helps=True, learning_rate=1.0)
    subject = Subject(Lit(0.1), *blobs(64))
    try_in_place(subject, rate)
    assert subject.forks == [], "nobody knows where it stands"
    subject = Subject(Lit(0.1), *blobs(64), start=State(Lit(0.1, seed=3).state_dict()))
    try_in_place(subject, replace(rate, helps=False))
    assert subject.forks == [], "there is nothing to repair"
    try_in_place(subject, rate)
    (fork,) = subject.forks
    assert fork.change == f"learning rate 1 from here on, {subject.short} steps"
    on, other = subject.scores([Variant(each, start=subject.start) for each in (0.1, 1.0)], subject.short)
    assert (fork.before, fork.after) == (on, other), "beside what the run comes to if it goes on"


def test_no_step_of_a_rate_is_made_twice_and_few_rates_are_trained_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Counter[tuple[float | None, int]]()

    def counted(module: Any, variants: Any, batches: Any, *rest: Any, **how: Any) -> Any:
        for variant in variants:
            first = 0 if variant.start is None else variant.start.steps
            made.update((variant.learning_rate, first + step) for step in range(len(batches)))
        return race(module, variants, batches, *rest, **how)

    monkeypatch.setattr("unstall.forks.subject.race", counted)
    subject = Subject(Lit(1e-3), *blobs(128), known_signals=Signals(step=320, baseline=2.3))
    try_rates(subject)
    assert set(made.values()) == {1}
    steps = Counter(rate for rate, _ in made)
    assert steps[None] == subject.long == 320, "the run itself, unchanged"
    assert sorted(steps.values()).count(320) <= 4, "it, two finalists, and one above them"
    # Before: the run twice over (320 and 80), 6 rates of 80 steps, and 4 to 7 of 320.
    assert made.total() <= 320 + 6 * 20 + 3 * 60 + (2 * 80 + 3 * 80 + 2 * 160) + 320
