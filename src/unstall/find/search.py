"""The learning-rate finder whose pick is right: Lightning's range test, mended, and then constant rates *race*.

    search = find_learning_rate(module, datamodule, trainer)
    print(search.learning_rate)

Every other finder guesses from the one curve of a range test, and no rule on that curve is right across optimizers
(docs/lr_find.md). Here the curve only says where to look, and a probe at the end whether the winner's noise would be
felt in a fit that is longer than the race. `report.py` writes and draws what is found here.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from unstall.errors import UsageError
from unstall.find.pick import (
    LEAST_LOOK,
    LOOK,
    SCALES,
    UNKNOWN,
    LearningRateSearch,
    RacedRate,
    candidates,
    conclude,
    expected_loss,
    go_on,
    half_decade,
    lead,
    leg_lengths,
    noise_share,
    settle,
    still_in,
)
from unstall.find.range_test import run_range_test
from unstall.runs import scratch_folder
from unstall.trials import (
    Data,
    Outcome,
    Rehearsal,
    State,
    Variant,
    learning_rate_of,
    rehearse,
    samples_in,
    unchanged_random_state,
)

STEPS = 820
"""Steps of the race at batch 128. With the range test, 2.5 epochs of 48,000 handwritten digits; other batch sizes b get
sqrt(128 / b) of it, which lies between as many steps and as many samples."""


LEAST_RATE, LARGEST_RATE = 1e-30, 1e30
"""Beyond, a rate times a weight is no number any more in float32."""
MOST_RATES = 120
"""Half a decade apart, they fill that range."""
HELD_OUT_SAMPLES = 1024


START = 4
"""Steps that are tried before the search: a module may skip the first batch."""


PROBE = 0.125
"""Steps after the race, as a share of the leader's, in which it goes on at its rate and at half a decade less."""


def find_learning_rate(
    module: pl.LightningModule,
    data: Data = None,
    trainer: pl.Trainer | None = None,
    *,
    min_learning_rate: float = 1e-7,
    max_learning_rate: float = 1e2,
    num_rates: int = 7,
    steps: int | None = None,
    seed: int = 0,
) -> LearningRateSearch:
    """Find the rate at which `trainer.fit(module, data)` trains best. Nothing of what is given is changed.

    Args:
        module: any LightningModule with automatic optimization and one optimizer.
        data: as `Trainer.fit` takes it: a LightningDataModule; training and validation loaders, or a training loader
            alone, each of them one, or a list or dictionary of several; None for the module's own loaders. Where
            nothing validates, the first batches are held out.
        trainer: the one that will train: its accumulation, clipping, precision, device, number of processes and
            number of epochs are taken into account. None: Lightning's defaults, on the module's device.
        min_learning_rate: where the range test starts; no lower rate is tried.
        max_learning_rate: where it ends; no higher rate is tried.
        num_rates: how many constant rates start the race, half a decade apart.
        steps: optimizer steps of the race, all rates together; None suits them to the batch size.
        seed: of whatever is drawn, such as the order of the batches and dropout.

    Returns:
        The pick and the evidence. The same on every process, if there are several.

    Raises:
        UsageError: before any work, for manual optimization, several optimizers, an empty range, too few rates, steps
            or batches, no training loader, and for a loss that is not finite or needs no gradient.
    """
    _check_arguments(min_learning_rate, max_learning_rate, num_rates, steps)
    with unchanged_random_state(), scratch_folder() as scratch:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        rehearsal = rehearse(module, data, trainer, scratch)
        options = rehearsal.options
        first, *more = itertools.islice(rehearsal.batches(), START * options.accumulate_grad_batches)
        _check_start(rehearsal, [first, *more])
        tested, suggestion = run_range_test(rehearsal, scratch, min_learning_rate, max_learning_rate)

        batches = rehearsal.batches()
        held_out = rehearsal.held_out(first, batches, HELD_OUT_SAMPLES)
        if not held_out:
            raise UsageError("data: the validation loader has no batch; give it samples, or leave it out")
        batch_size = samples_in(first) * options.accumulate_grad_batches
        (unchanged,) = rehearsal.race([Variant()], [], keep_state=True)
        rates = candidates(tested, num_rates, min_learning_rate, max_learning_rate)
        legs = leg_lengths(steps or round(STEPS * math.sqrt(128 / batch_size)), len(rates), rehearsal.horizon)
        pace = 1.0
        assert unchanged.state is not None
        if unchanged.state.schedulers and trainer is not None and math.isfinite(rehearsal.horizon):  # the fit in small
            pace = rehearsal.horizon / sum(length for _, length in legs)
            rehearsal = replace(rehearsal, options=replace(options, pace=pace))

        def run(variants: list[Variant], leg: list[Any]) -> list[Outcome]:
            return rehearsal.race(variants, leg, held_out, keep_state=True)

        def take(leg_steps: int) -> list[Any]:
            return list(itertools.islice(batches, leg_steps * options.accumulate_grad_batches))

        # A schedule may yet turn the order of the rates, and so may a few steps, as of large batches; and in a race as
        # long as the fit, all see the whole of it.
        whole_fit = sum(length for _, length in legs) >= rehearsal.horizon
        looks = not unchanged.state.schedulers and not whole_fit and round(LOOK * legs[0][1]) >= LEAST_LOOK
        raced, states = _run_race(run, take, rates, legs, (min_learning_rate, max_learning_rate), looks)
        longest = max(len(rate.losses) for rate in raced)
        horizon = rehearsal.horizon if math.isfinite(rehearsal.horizon) else UNKNOWN * longest
        ends = [states[rate.learning_rate] for rate in raced if len(rate.losses) == longest]
        share_left = min((_share_left(state) for state in ends if state is not None), default=1.0)
        leader, noise = lead(raced, horizon, share_left), 0.0
        start = states[leader.learning_rate]
        # Where a schedule lowers the rate, in the race or where the race does not see it, there is no noise to probe;
        # and a race as long as the fit has shown it all.
        seen = not unchanged.state.schedulers or (pace > 1 and not _waits(unchanged.state))
        if start is not None and seen and share_left >= SCALES[1] and horizon > longest:
            leg = take(max(1, round(PROBE * len(leader.losses))))
            at, below = rehearsal.race([Variant(leader.learning_rate * s, start=start) for s in SCALES[:2]], leg)
            noise = noise_share(at.losses, below.losses, leader.losses[0])
    longer = horizon / len(leader.losses)
    rate = settle(leader.learning_rate, noise, longer, min_learning_rate, leader.losses)
    search = conclude(tested, raced, suggestion, leader.learning_rate, noise, rate)
    search = replace(
        search,
        configured=learning_rate_of(unchanged.state.groups, unchanged.state.schedulers),
        fit_steps=int(rehearsal.horizon) if math.isfinite(rehearsal.horizon) else None,
        pace=pace,
    )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared = [search]
        torch.distributed.broadcast_object_list(shared)  # sums differ in their last digit from machine to machine
        search = shared[0]
    return search


def _run_race(
    run: Callable[[list[Variant], list[Any]], list[Outcome]],
    take: Callable[[int], list[Any]],
    rates: list[float],
    legs: list[tuple[int, int]],
    limits: tuple[float, float],
    looks: bool,
) -> tuple[list[RacedRate], dict[float, State | None]]:
    """Successive halving: a short leg for all rates, and longer ones for those ahead; with looks within them."""
    lanes: dict[float, RacedRate] = {}
    states: dict[float, State | None] = {}

    def run_leg(entrants: Sequence[float], leg: list[Any]) -> None:
        for outcome in run([Variant(rate, start=states.get(rate)) for rate in entrants], leg):
            rate = outcome.variant.learning_rate
            assert rate is not None
            losses = [*(lanes[rate].losses if rate in lanes else ()), *outcome.losses]
            expected = expected_loss(losses, outcome.held_out_loss) if outcome.finite else math.inf
            lanes[rate] = RacedRate(rate, losses, expected, outcome.held_out_loss, diverged=not outcome.finite)
            states[rate] = outcome.state

    for number, (entrants, leg_steps) in enumerate(legs):
        going = go_on([*lanes.values()], entrants) if number else rates
        last, early = number == len(legs) - 1, round(LOOK * leg_steps)
        begins = []
        if looks and len(going) > 1 and (last or number == 0):
            begins = take(early)
            run_leg(going, begins)
            going, leg_steps = still_in([lanes[rate] for rate in going], last), leg_steps - early
        leg = take(leg_steps)
        run_leg(going, leg)
        while number == 0 and (beyond := _beyond(lanes, limits)):
            run_leg([beyond], [*begins, *leg])
    return [lanes[rate] for rate in sorted(lanes)], states


def _beyond(lanes: Mapping[float, RacedRate], limits: tuple[float, float]) -> float | None:
    """The rate past the edge, if the leader stands at it: where parameter groups differ, the range test can mislead."""
    leader = min(lanes.values(), key=lambda lane: lane.expected_loss).learning_rate
    fastest = min(lanes.values(), key=lambda lane: lane.late_loss).learning_rate
    if leader == min(lanes):
        beyond = half_decade(round(2 * math.log10(leader)) - 1)
    elif max(leader, fastest) == max(lanes):
        beyond = half_decade(round(2 * math.log10(max(lanes))) + 1)
    else:
        return None
    return beyond if limits[0] <= beyond <= limits[1] else None


def _share_left(state: State) -> float:
    """What schedules have made of the rate, as a share of it."""
    now = next((group["lr"] for group in state.groups if group.get("initial_lr", group["lr"])), 0.0)
    return float(now) / learning_rate_of(state.groups, state.schedulers)


def _waits(state: State) -> bool:
    """Whether a schedule waits for the loss to stall, as `ReduceLROnPlateau` does, which no race sees."""
    return any("num_bad_epochs" in schedule for schedule in state.schedulers)


def _check_arguments(lowest: float, highest: float, num_rates: int, steps: int | None) -> None:
    if not LEAST_RATE <= lowest < highest <= LARGEST_RATE:
        raise UsageError(
            f"min_learning_rate={lowest}, max_learning_rate={highest}: give a range of positive rates, "
            f"the lower one first, from {LEAST_RATE:g} to {LARGEST_RATE:g}"
        )
    if not 2 <= num_rates <= MOST_RATES:
        raise UsageError(f"num_rates={num_rates}: a race needs at least 2, and at most {MOST_RATES}")
    if steps is not None and steps < 15 * num_rates:
        raise UsageError(f"steps={steps}: {num_rates} rates need at least {15 * num_rates} to tell them apart")


def _check_start(rehearsal: Rehearsal, batches: Sequence[Any]) -> None:
    """A few steps of a copy, which hardly move it: whatever cannot be raced says so here."""
    outcome = rehearsal.race([Variant(1e-8)], batches)[0]
    if not outcome.losses:
        name = type(rehearsal.module).__name__
        raise UsageError(f"model={name}: the loss is not finite at the start; check the inputs and initial weights")
