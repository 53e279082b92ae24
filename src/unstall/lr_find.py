"""The learning-rate finder whose pick is right: Lightning's range test, mended, and then constant rates *race*.

    search = find_learning_rate(module, datamodule, trainer)
    print(search.learning_rate)

Every other finder guesses from the one curve of a range test, and no rule on that curve is right across optimizers
(docs/lr_find.md). Here the curve only says where to look, and a probe at the end whether the winner's noise would be
felt in a fit that is longer than the race. `lr_find_report` writes and draws what is found here.
"""

from __future__ import annotations

import itertools
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from unstall.batches import samples_in, take_samples
from unstall.errors import UsageError
from unstall.race import Outcome, State, Variant, unchanged_random_state
from unstall.range_test import RangeTest, run_range_test
from unstall.rehearsal import Data, Rehearsal, rehearse

STEPS = 820
"""Steps of the race at batch 128. With the range test, 2.5 epochs of MNIST; other batch sizes b get sqrt(128 / b) of
it, which lies between as many steps and as many samples."""
LEGS = ((None, 0.45), (3, 0.19), (2, 0.36))
"""How many rates run each leg, and its share of the steps. The leaders go on from where they are. The first leg is
long enough for the best rate to get over its first steps, which throw adaptive optimizers far off."""
HELD_OUT_SAMPLES = 1024
MARGIN = 0.25
"""Decades above the range test's minimum that surely race. Over 26 searches (benchmarks/lr_find.py, ReLU and tanh) the
best rate was from 0.5 decades above that minimum to 1.8 below."""
TOLERANCE = 0.04
"""For each doubling from the steps raced to those of the fit, a lower rate may be behind by this share of the loss."""
PROBE = 0.125
"""Steps after the race, as a share of the leader's, in which it goes on at its rate and at half a decade less."""
PROGRESS, NOISE = 0.12, 2.0
"""How fast a loss falls with the steps of a fit (`steps ** -PROGRESS`), and how much more noise there is at its end
than the probe brings to light. Chosen, as was the tolerance, on MNIST and the first draw of other data in
`benchmarks/lr_find.py`: 171 of 177 searches within a point of the best rate."""
SCALES = 1.0, 10**-0.5, 0.1
"""What the leader may be lowered to: itself, half a decade below, and a decade."""
LONGEST = 32.0
"""How many times longer than the race a fit counts as at most: none longer was measured."""
USABLE = 1.5
"""A rate trains well if after the first leg its loss is at most this multiple of the lowest one. On the same cells such
rates came within about two and a half points of the best after two epochs."""


@dataclass(frozen=True)
class RacedRate:
    """How one constant rate did.

    Args:
        learning_rate: the rate.
        losses: training loss per step, over all legs that it ran, as far as they were finite.
        expected_loss: what the search expects of it at the horizon; infinite if it diverged.
        held_out_loss: after its last leg; infinite if it diverged.
        diverged: whether the loss left the reals, or ended above where it started although a lower rate does well.
    """

    learning_rate: float
    losses: list[float]
    expected_loss: float
    held_out_loss: float
    diverged: bool


@dataclass(frozen=True)
class LearningRateSearch:
    """What was found.

    Args:
        learning_rate: the pick.
        leader: the rate that won the race.
        noise: share of the leader's loss that goes away at once when it is lowered by half a decade.
        usable: lowest and highest rate that train well.
        diverges_at: lowest rate seen to diverge; None if none did.
        lightning_suggestion: what `Tuner.lr_find(...).suggestion()` makes of the same test; None if nothing.
        range_test: the mended curve.
        race: the rates that raced, ascending.
    """

    learning_rate: float
    leader: float
    noise: float
    usable: tuple[float, float]
    diverges_at: float | None
    lightning_suggestion: float | None
    range_test: RangeTest
    race: list[RacedRate]


def find_learning_rate(
    module: pl.LightningModule,
    data: Data,
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
        data: a LightningDataModule; or the module, if it has loaders of its own; or training and validation loaders;
            or a training loader alone. Where there is nothing to validate on, the first batches are held out.
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
        UsageError: before any work, for manual optimization, several optimizers, a schedule with rates of its own,
            an empty range, too few rates, steps or batches, and for a loss that is not finite or needs no gradient.
    """
    _check_arguments(min_learning_rate, max_learning_rate, num_rates, steps)
    with unchanged_random_state(), tempfile.TemporaryDirectory() as scratch:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        rehearsal = rehearse(module, data, trainer, scratch)
        first = next(rehearsal.batches())
        _check_start(rehearsal, first)
        tested, suggestion = run_range_test(rehearsal, scratch, min_learning_rate, max_learning_rate)

        batches, options = rehearsal.batches(), rehearsal.options
        held_out = take_samples(batches if rehearsal.validation is None else rehearsal.validation, HELD_OUT_SAMPLES)
        if not held_out:
            raise UsageError("data: the validation loader has no batch; give it samples, or leave it out")
        batch_size = samples_in(first) * options.accumulate_grad_batches

        def run(variants: list[Variant], leg: list[Any]) -> list[Outcome]:
            return rehearsal.race(variants, leg, held_out, keep_state=True)

        def take(leg_steps: int) -> list[Any]:
            return list(itertools.islice(batches, leg_steps * options.accumulate_grad_batches))

        raced, states = _run_race(
            run,
            take,
            candidates(tested, num_rates, min_learning_rate, max_learning_rate),
            steps or round(STEPS * math.sqrt(128 / batch_size)),
            (min_learning_rate, max_learning_rate),
        )
        leader, noise = lead(raced, rehearsal.horizon), 0.0
        start = states[leader.learning_rate]
        if start is not None and not start.schedulers:  # a schedule will lower the rate by itself
            leg = take(max(1, round(PROBE * len(leader.losses))))
            at, below = rehearsal.race([Variant(leader.learning_rate * s, start=start) for s in SCALES[:2]], leg)
            noise = noise_share(at.losses, below.losses)
    longer = rehearsal.horizon / len(leader.losses)
    rate = settle(leader.learning_rate, noise, longer, min_learning_rate)
    search = conclude(tested, raced, suggestion, leader.learning_rate, noise, rate)
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shared = [search]
        torch.distributed.broadcast_object_list(shared)  # sums differ in their last digit from machine to machine
        search = shared[0]
    return search


def candidates(tested: RangeTest, num_rates: int, lowest: float, highest: float) -> list[float]:
    """Half-decade rates, ascending, that end just above the rate at which the range test's loss was lowest."""
    best = tested.learning_rates[tested.smoothed.index(min(tested.smoothed))]
    top = math.ceil(2 * (math.log10(best) + MARGIN))
    rates = [half_decade(top - i) for i in reversed(range(num_rates))]
    return [rate for rate in rates if lowest <= rate <= highest] or [math.sqrt(lowest * highest)]


def half_decade(position: int) -> float:
    """`10 ** (position / 2)` with two digits: ..., 0.32, 1.0, 3.2, ..."""
    return float(f"{10 ** (position / 2):.1e}")


def leg_lengths(steps: int, num_rates: int) -> list[tuple[int, int]]:
    """How many rates run each leg, and for how many steps each."""
    return [
        (rates or num_rates, max(1, round(share * steps / min(rates or num_rates, num_rates)))) for rates, share in LEGS
    ]


def expected_loss(losses: Sequence[float], held_out_loss: float) -> float:
    """What a race says of a rate: the worse of two losses on samples that it had not been trained on.

    One is the mean training loss of the last quarter of its steps, each taken before the step: many batches, the
    same for all rates, on the weights of a good part of the way and not only of its end (progressive validation,
    Blum, Kalai and Langford 1999). The other one notices what was learned by heart, where batches come again.
    """
    return max(fmean(_late(losses)), held_out_loss)


def lead(raced: Sequence[RacedRate], horizon: float) -> RacedRate:
    """Return the winner: of the rates that raced longest, the lowest that is behind by no more than chance and bias.

    Chance: one standard error of the difference between the late losses of the two, batch by batch. Bias: short races
    favour high rates, which descend faster, while what limits them in the end does not yet show. The longer the fit
    goes on after the race, the more a lower rate may be behind.

    Args:
        raced: all rates.
        horizon: steps of the fit.

    Raises:
        UsageError: if every rate diverged.
    """
    alive = [rate for rate in raced if not rate.diverged]
    if not alive:
        tried = f"{raced[0].learning_rate:.1e} to {raced[-1].learning_rate:.1e}"
        raise UsageError(f"min_learning_rate: every rate from {tried} diverges; scale the inputs, or search lower")
    longest = max(len(rate.losses) for rate in alive)
    finalists = [rate for rate in alive if len(rate.losses) == longest]
    first = min(finalists, key=lambda rate: rate.expected_loss)
    bias = TOLERANCE * math.log2(min(LONGEST, max(1.0, horizon / longest))) * abs(first.expected_loss)

    def chance(rate: RacedRate) -> float:
        gaps = [a - b for a, b in zip(_late(rate.losses), _late(first.losses), strict=True)]
        return stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0

    close = [rate for rate in finalists if rate.expected_loss - first.expected_loss <= bias + chance(rate)]
    return min(close, key=lambda rate: rate.learning_rate)


def noise_share(losses: Sequence[float], lowered: Sequence[float]) -> float:
    """Return the share of a loss that goes away at once when the rate is lowered; 1 if it diverges as it is.

    Args:
        losses: per step, going on at the rate; those of a step that diverged are missing.
        lowered: the same from the same weights on the same batches, at a lower rate.
    """
    if len(losses) < len(lowered):
        return 1.0
    return max(0.0, 1 - fmean(lowered) / fmean(losses)) if lowered and fmean(losses) > 0 else 0.0


def settle(leader: float, noise: float, longer: float, lowest: float) -> float:
    """Return the rate to train with: the leader, or a lower one if its noise would be felt for most of the fit.

    A loss is taken as progress, which falls with the steps as `steps ** -PROGRESS`, plus noise, which stays. At a rate
    lower by a factor, progress takes so many times the steps, and noise is so many times less: the expected excess loss
    of SGD with a constant rate is proportional to it (Bottou, Curtis and Nocedal 2018, theorem 4.6).

    Args:
        leader: the rate that won the race.
        noise: the share of its loss that is noise, as far as it showed.
        longer: steps of the fit over those of the race; below 1 counts as 1.
        lowest: no rate below is returned, unless the leader is.
    """
    longer = min(LONGEST, max(1.0, longer))

    def at_the_end(scale: float) -> float:
        progress = (1 - noise) * math.exp(-PROGRESS * math.log(longer * scale))
        return progress + NOISE * noise * scale

    scale = min((scale for scale in SCALES if scale == 1 or leader * scale >= lowest), key=at_the_end)
    return half_decade(round(2 * math.log10(leader * scale))) if scale < 1 else leader


def conclude(
    tested: RangeTest,
    raced: Sequence[RacedRate],
    suggestion: float | None,
    leader: float,
    noise: float,
    learning_rate: float,
) -> LearningRateSearch:
    """Draw the conclusions from the measurements: what trains well around the pick, and what diverges."""
    first = min(raced, key=lambda rate: rate.expected_loss)
    raced = [
        replace(rate, diverged=True)
        if rate.learning_rate > first.learning_rate and rate.expected_loss > rate.losses[0]
        else rate
        for rate in raced
    ]
    alive = [rate for rate in raced if not rate.diverged]
    shortest = min(len(rate.losses) for rate in alive)
    early = {rate.learning_rate: fmean(_late(rate.losses[:shortest])) for rate in alive}
    least = min(early.values())
    well = [rate for rate, loss in early.items() if loss - least <= (USABLE - 1) * abs(least)]
    diverged = [rate.learning_rate for rate in raced if rate.diverged and rate.learning_rate > learning_rate]
    blows_up_at = tested.blows_up_at
    if not diverged and blows_up_at is not None and blows_up_at > max(early):
        diverged = [blows_up_at]
    return LearningRateSearch(
        learning_rate=learning_rate,
        leader=leader,
        noise=noise,
        usable=(min([learning_rate, *well]), max([learning_rate, *well])),
        diverges_at=min(diverged, default=None),
        lightning_suggestion=suggestion,
        range_test=tested,
        race=raced,
    )


def _late(losses: Sequence[float]) -> Sequence[float]:
    """The last quarter."""
    return losses[len(losses) * 3 // 4 :]


def _run_race(
    run: Callable[[list[Variant], list[Any]], list[Outcome]],
    take: Callable[[int], list[Any]],
    rates: list[float],
    steps: int,
    limits: tuple[float, float],
) -> tuple[list[RacedRate], dict[float, State | None]]:
    """Successive halving: a short leg for all rates, and longer ones for those ahead."""
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

    for number, (entrants, leg_steps) in enumerate(leg_lengths(steps, len(rates))):
        leg = take(leg_steps)
        ahead = sorted((lane for lane in lanes.values() if not lane.diverged), key=lambda lane: lane.expected_loss)
        run_leg([lane.learning_rate for lane in ahead[:entrants]] if number else rates, leg)
        while number == 0 and (beyond := _beyond(lanes, limits)):
            run_leg([beyond], leg)
    return [lanes[rate] for rate in sorted(lanes)], states


def _beyond(lanes: Mapping[float, RacedRate], limits: tuple[float, float]) -> float | None:
    """The rate past the edge, if the leader stands at it: where parameter groups differ, the range test can mislead."""
    leader = min(lanes.values(), key=lambda lane: lane.expected_loss).learning_rate
    position = round(2 * math.log10(leader))
    if leader == min(lanes):
        beyond = half_decade(position - 1)
    elif leader == max(lanes):
        beyond = half_decade(position + 1)
    else:
        return None
    return beyond if limits[0] <= beyond <= limits[1] else None


def _check_arguments(lowest: float, highest: float, num_rates: int, steps: int | None) -> None:
    if not 0 < lowest < highest < math.inf:
        raise UsageError(
            f"min_learning_rate={lowest}, max_learning_rate={highest}: give a range of positive rates, "
            "the lower one first"
        )
    if num_rates < 2:
        raise UsageError(f"num_rates={num_rates}: a race needs at least 2")
    if steps is not None and steps < 15 * num_rates:
        raise UsageError(f"steps={steps}: {num_rates} rates need at least {15 * num_rates} to tell them apart")


def _check_start(rehearsal: Rehearsal, first: Any) -> None:
    """One step of a copy: whatever cannot be raced says so here."""
    outcome = rehearsal.race([Variant(1e-8)], [first] * rehearsal.options.accumulate_grad_batches)[0]
    if not outcome.losses:
        name = type(rehearsal.module).__name__
        raise UsageError(f"model={name}: the loss is not finite at the start; check the inputs and initial weights")
