"""From what raced to the rate to train with. Arithmetic only: nothing is trained here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from unstall.errors import UsageError
from unstall.find.range_test import RangeTest

LEGS = ((None, 0.45), (3, 0.19), (2, 0.36))
"""How many rates run each leg, and its share of the steps. The leaders go on from where they are. The first leg is
long enough for the best rate to get over its first steps, which throw adaptive optimizers far off."""

LOOK, LEAST_LOOK, STAY = 0.25, 12, 4
"""Share of the first leg, and of the last, after which rates that cannot win any more drop out; the least steps of the
first that this must be; and how many stay in it at least. Of 47 searches at batch 32 and 128 it changed none; at batch
1024, where it would be five steps, a higher rate that was behind came back in 6 of 15 (docs/lr_find.md)."""

MARGIN = 0.25
"""Decades above the range test's minimum that surely race. Over 26 searches (benchmarks/lr_find.py, ReLU and tanh) the
best rate was from 0.5 decades above that minimum to 1.8 below."""

TOLERANCE = 0.04
"""For each doubling from the steps raced to those of the fit, a lower rate may be behind by this share of the loss."""

PROGRESS, NOISE = 0.12, 2.0
"""How fast a loss falls with the steps of a fit (`steps ** -PROGRESS`), and how much more noise there is at its end
than the probe brings to light. Chosen, as was the tolerance, on handwritten digits and the first draw of other data in
`benchmarks/lr_find.py`: 171 of 177 searches within a point of the best rate."""

SCALES = 1.0, 10**-0.5, 0.1
"""What the leader may be lowered to: itself, half a decade below, and a decade."""

LONGEST, UNKNOWN = 32.0, 2.0
"""How many times longer than the race a fit counts as at most: none longer was measured; and where nobody knows how
long it will be, such as over a stream."""

NOTHING = 0.003
"""Share of the loss at the start that a difference between losses must exceed to be one at all: a loss that has gone to
zero differs from another such loss by any factor. None of the tables of `benchmarks/lr_find.py`, where losses stay well
above it, is worse for it."""

SEEN = 0.3
"""Share of the race: how far a fit at a lower rate comes is read off the leader's own losses, if it is no further than
this. Beyond it the power law is safer: with 0.5 the leader was kept at a cliff that the race did not reach
(RMSprop on sigmoid layers, batch 1024, in `benchmarks/lr_find.py`)."""

USABLE = 1.5
"""A rate trains well if after the first leg its loss is at most this multiple of the lowest one. On the same cells such
rates came within about two and a half points of the best after two epochs. And it has come at least half of the way
down: early, or while a schedule warms up, losses may all be near that of the start."""


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

    @property
    def late_loss(self) -> float:
        """Mean training loss of the last quarter of its steps; infinite if it diverged."""
        return math.inf if self.diverged else fmean(_late(self.losses))


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
        configured: the rate that the module's own optimizer has; None if that is not known.
        fit_steps: optimizer steps of the fit; None if nobody knows.
        pace: how many times faster than in the fit its schedule ran in the race; 1 without one.
    """

    learning_rate: float
    leader: float
    noise: float
    usable: tuple[float, float]
    diverges_at: float | None
    lightning_suggestion: float | None
    range_test: RangeTest
    race: list[RacedRate]
    configured: float | None = None
    fit_steps: int | None = None
    pace: float = 1.0


def candidates(tested: RangeTest, num_rates: int, lowest: float, highest: float) -> list[float]:
    """Half-decade rates, ascending, that end just above the rate at which the range test's loss was lowest."""
    best = tested.learning_rates[tested.smoothed.index(min(tested.smoothed))]
    top = math.ceil(2 * (math.log10(best) + MARGIN))
    rates = [half_decade(top - i) for i in reversed(range(num_rates))]
    return [rate for rate in rates if lowest <= rate <= highest] or [math.sqrt(lowest * highest)]


def half_decade(position: int) -> float:
    """`10 ** (position / 2)` with two digits: ..., 0.32, 1.0, 3.2, ..."""
    return float(f"{10 ** (position / 2):.1e}")


def leg_lengths(steps: int, num_rates: int, horizon: float = math.inf) -> list[tuple[int, int]]:
    """How many rates run each leg, and for how many steps each: no rate makes more than the fit will."""
    legs, left = [], horizon
    for rates, share in LEGS:
        length = min(max(1, round(share * steps / min(rates or num_rates, num_rates))), left)
        left -= length
        if length > 0:
            legs.append((rates or num_rates, int(length)))
    return legs


def go_on(lanes: Sequence[RacedRate], entrants: int) -> list[float]:
    """Return the rates that go on after a leg: the best, of which the last gives way to the lowest training loss.

    A look at held-out samples is of one moment, and at a high rate weights jump: with BatchNorm that loss was seen at
    1.42, 0.78 and 0.73 within 18 steps (benchmarks/unseen.py, letters). So the fastest is not dropped on that alone.
    """
    alive = sorted((lane for lane in lanes if not lane.diverged), key=lambda lane: lane.expected_loss)
    fastest = min(alive, key=lambda lane: lane.late_loss, default=None)
    if entrants > 1 and fastest in alive[entrants:]:
        alive.insert(entrants - 1, fastest)
    return [lane.learning_rate for lane in alive[:entrants]]


def still_in(lanes: Sequence[RacedRate], last: bool) -> list[float]:
    """Return the rates that go on with a leg after its first quarter.

    In the first leg, those that do well so far, the best few, and all above the leader, whose first steps may have
    thrown them far off. In the last one, all but those above the leader that are behind by both losses: high rates
    descend faster, and stay behind.
    """
    ahead = sorted((lane for lane in lanes if not lane.diverged), key=lambda lane: lane.expected_loss)
    if not ahead:
        return []
    leader = ahead[0]
    above = [lane for lane in ahead if lane.learning_rate > leader.learning_rate]
    if last:
        behind = [lane for lane in above if lane.late_loss >= leader.late_loss]
        return [lane.learning_rate for lane in ahead if lane not in behind]
    limit = leader.expected_loss + (USABLE - 1) * abs(leader.expected_loss)
    well = [lane for lane in ahead if lane.expected_loss <= limit]
    return sorted({lane.learning_rate for lane in [*ahead[:STAY], *well, *above]})


def first_leg(alive: Sequence[RacedRate]) -> int:
    """Return the steps of the first leg: those that the ones that stayed in it have made at least."""
    return sorted((len(rate.losses) for rate in alive), reverse=True)[:STAY][-1]


def expected_loss(losses: Sequence[float], held_out_loss: float) -> float:
    """What a race says of a rate: the worse of two losses on samples that it had not been trained on.

    One is the mean training loss of the last quarter of its steps, each taken before the step: many batches, the
    same for all rates, on the weights of a good part of the way and not only of its end (progressive validation,
    Blum, Kalai and Langford 1999). The other one notices what was learned by heart, where batches come again.
    """
    return max(fmean(_late(losses)), held_out_loss)


def lead(raced: Sequence[RacedRate], horizon: float, share_left: float = 1.0) -> RacedRate:
    """Return the winner: of the rates that raced longest, the lowest that is behind by no more than chance and bias.

    Chance: one standard error of the difference between the late losses of the two, batch by batch. Bias: short races
    favour high rates, which descend faster, while what limits them in the end does not yet show. The longer the fit
    goes on after the race, the more a lower rate may be behind; not so where the race has seen a schedule lower the
    rate, and the noise with it. And nothing: losses that are both next to zero, beside that of the start, are equal.

    Args:
        raced: all rates.
        horizon: steps of the fit.
        share_left: of the rate at the end of the race: what a schedule has made of it.

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
    nothing = NOTHING * abs(first.losses[0])
    doublings = math.log2(min(LONGEST, max(1.0, horizon / longest)))
    bias = TOLERANCE * min(1.0, share_left) * doublings * abs(first.expected_loss)

    def chance(rate: RacedRate) -> float:
        gaps = [a - b for a, b in zip(_late(rate.losses), _late(first.losses), strict=True)]
        return stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 0.0

    close = [rate for rate in finalists if rate.expected_loss - first.expected_loss <= nothing + bias + chance(rate)]
    return min(close, key=lambda rate: rate.learning_rate)


def noise_share(losses: Sequence[float], lowered: Sequence[float], start: float = 0.0) -> float:
    """Return the share of a loss that goes away at once when the rate is lowered; 1 if it diverges as it is.

    Args:
        losses: per step, going on at the rate; those of a step that diverged are missing.
        lowered: the same from the same weights on the same batches, at a lower rate.
        start: the loss at the start, next to which a small one is nothing.
    """
    if len(losses) < len(lowered):
        return 1.0
    if not lowered or fmean(losses) <= 0:
        return 0.0
    nothing = NOTHING * abs(start)
    return max(0.0, 1 - (fmean(lowered) + nothing) / (fmean(losses) + nothing))


def settle(leader: float, noise: float, longer: float, lowest: float, losses: Sequence[float] = ()) -> float:
    """Return the rate to train with: the leader, or a lower one if its noise would be felt for most of the fit.

    A loss is taken as progress, which falls with the steps as `steps ** -PROGRESS`, plus noise, which stays. At a rate
    lower by a factor, progress takes so many times the steps, and noise is so many times less: the expected excess loss
    of SGD with a constant rate is proportional to it (Bottou, Curtis and Nocedal 2018, theorem 4.6). Where a lower rate
    would not come as far in the fit as the leader in the race, the leader's own losses say how far.

    Args:
        leader: the rate that won the race.
        noise: the share of its loss that is noise, as far as it showed.
        longer: steps of the fit over those of the race; below 1 counts as 1.
        lowest: no rate below is returned, unless the leader is.
        losses: the leader's in the race.
    """
    longer = min(LONGEST, max(1.0, longer))

    def at_the_end(scale: float) -> float:
        progress = math.exp(-PROGRESS * math.log(longer * scale))
        if losses and longer * scale <= SEEN:
            so_far = losses[: max(1, round(longer * scale * len(losses)))]
            nothing = NOTHING * abs(losses[0])
            end = fmean(_late(losses)) + nothing
            progress = max(progress, (fmean(_late(so_far)) + nothing) / end) if end > 0 else progress
        return (1 - noise) * progress + NOISE * noise * scale

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
    rose = [rate.learning_rate > first.learning_rate and rate.expected_loss > rate.losses[0] for rate in raced]
    raced = [replace(rate, diverged=True) if up else rate for rate, up in zip(raced, rose, strict=True)]
    alive = [rate for rate in raced if not rate.diverged]
    shortest = first_leg(alive)
    early = {rate.learning_rate: fmean(_late(rate.losses[:shortest])) for rate in alive if len(rate.losses) >= shortest}
    least = min(early.values())
    limit = min(least + (USABLE - 1) * abs(least), max(least, (least + first.losses[0]) / 2))
    well = [rate for rate, loss in early.items() if loss <= limit]
    diverged = [rate.learning_rate for rate in raced if rate.diverged and rate.learning_rate > learning_rate]
    if not diverged and tested.blows_up_at is not None and tested.blows_up_at > max(early):
        diverged = [tested.blows_up_at]
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
