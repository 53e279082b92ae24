"""Why each rate won or lost, in words. Arithmetic only: nothing is trained or drawn here."""

from __future__ import annotations

import math
from statistics import fmean

from unstall.find.pick import LearningRateSearch, RacedRate, first_leg

SAME = 1e-2
"""Rates that differ by a smaller share are one to a reader."""


NEAR, WIDE = 4.0, 9.0
"""A factor that is at most one step of the race, half a decade; and one of two steps."""


LEVEL = 0.1
"""Share of the lowest loss: rates whose losses differ by less, over the same steps, are as good as each other."""


def reason_for(rate: RacedRate, search: LearningRateSearch) -> str:
    """Return why a rate that raced was picked, or was not.

    Args:
        rate: One of `search.race`.
        search: What was found.
    """
    steps = len(rate.losses)
    alive = [other for other in search.race if not other.diverged]
    longest = max(len(other.losses) for other in alive)
    winner = next(other for other in search.race if other.learning_rate == search.leader)
    if rate.diverged and steps == 0:
        reason = "diverged at once"
    elif rate.diverged:
        reason = "diverged: its loss ended above where it began"
    elif rate.learning_rate == search.learning_rate == search.leader:
        reason = "picked: " + _why_it_won(winner, search)
    elif rate.learning_rate == search.learning_rate:
        reason = f"picked: the best for {_fit(search)}, which a race of {longest} steps does not show"
    elif rate.learning_rate == search.leader:
        reason = f"{_why_it_won(winner, search)}, but is too high for {_fit(search)}"
    elif steps == longest:
        reason = f"{'higher' if rate.learning_rate > search.leader else 'slower'}: {_behind(rate, winner)}"
    elif search.leader < rate.learning_rate <= search.usable[1]:
        reason = f"higher: still behind the winner after {steps} steps, and high rates lose with time"
    elif rate.learning_rate < search.leader:
        reason = f"too slow: dropped after {steps} steps"
    else:
        reason = f"too high: dropped after {steps} steps, its steps overshoot"
    return reason + ("; the one that is configured" if is_configured(rate.learning_rate, search) else "")


def answer(search: LearningRateSearch) -> str:
    """Return the pick, as a title."""
    return f"Train with a learning rate of {search.learning_rate:.1e}"


def explanation(search: LearningRateSearch) -> list[str]:
    """Return what a reader may wonder about, a sentence each: a pick below the winner, a schedule, the configured rate,
    and how much depends on the answer."""
    sentences = []
    if search.pace > 1:
        longest = max(len(rate.losses) for rate in search.race)
        sentences.append(
            f"Each rate is the one that the schedule multiplies, which ran {search.pace:.2g} times faster in the race: "
            f"{longest} steps saw the whole of it"
        )
    if search.learning_rate < search.leader:
        sentences.append(
            f"{search.leader:.1e} won the race, but when it is lowered {search.noise:.0%} of its loss goes away at "
            f"once: that much its large steps cost, and would for the whole of {_fit(search)}, in which the lower rate "
            "has time enough to get as far"
        )
    low, high = search.usable
    configured = search.configured
    if configured is not None and not is_configured(search.learning_rate, search):
        if low * (1 - SAME) <= configured <= high * (1 + SAME):
            sentences.append(f"The configured {configured:.1e} is not wrong: it is among those that train well")
        elif search.diverges_at is not None and configured >= search.diverges_at:
            sentences.append(f"The configured {configured:.1e} diverges")
        else:
            side = "below" if configured < low else "above"
            sentences.append(f"The configured {configured:.1e} is {side} those that train well")
    if (how_much := _how_much_depends(search)) is not None:
        sentences.append(how_much)
    return sentences


def is_configured(rate: float, search: LearningRateSearch) -> bool:
    """Whether a rate is the one that the module's own optimizer has."""
    return search.configured is not None and math.isclose(rate, search.configured, rel_tol=SAME)


def range_of(search: LearningRateSearch) -> str:
    """Return the rates that train well, as `1.0e-03 to 1.0e-02`."""
    low, high = search.usable
    return f"{low:.1e} to {high:.1e}" if low < high else f"{low:.1e} alone"


def _how_much_depends(search: LearningRateSearch) -> str | None:
    low, high = search.usable
    cliff = search.diverges_at
    if cliff is not None and cliff <= NEAR * search.learning_rate:
        return f"Much depends on it: {cliff:.1e}, {cliff / search.learning_rate:.1f} times as much, diverges"
    level = _level(search)
    if level[-1] >= WIDE * level[0]:
        return (
            f"Not much depends on it: from {level[0]:.1e} to {level[-1]:.1e} losses differ by less than a tenth "
            "over the same steps"
        )
    if high <= NEAR * low:
        return f"Much depends on it: {range_of(search)} trains well, and what lies beside it clearly worse"
    return None


def _level(search: LearningRateSearch) -> list[float]:
    """The rates that got beyond the first leg, if their losses are level where the first of them stopped; else the
    pick."""
    alive = [rate for rate in search.race if not rate.diverged]
    beyond = [rate for rate in alive if len(rate.losses) > first_leg(alive)]
    steps = min((len(rate.losses) for rate in beyond), default=0)
    late = [fmean(rate.losses[steps * 3 // 4 : steps]) for rate in beyond]
    level = bool(late) and max(late) - min(late) <= LEVEL * abs(min(late)) and min(late) < beyond[0].losses[0] / 2
    return [rate.learning_rate for rate in beyond] if level else [search.learning_rate]


def _why_it_won(winner: RacedRate, search: LearningRateSearch) -> str:
    least = min(rate.expected_loss for rate in search.race if not rate.diverged)
    if winner.expected_loss <= least:
        return "won the race with the lowest loss"
    return "won the race: the lowest rate whose loss is as good as the best, by no more than chance"


def _behind(rate: RacedRate, winner: RacedRate) -> str:
    if rate.expected_loss <= winner.expected_loss:
        return "a lower loss by no more than chance, and nearer to where it diverges"
    if winner.expected_loss <= 0:  # a likelihood's logarithm: shares of it mean nothing
        return "a higher loss in the end"
    return f"in the end its loss was {rate.expected_loss / winner.expected_loss:.2g} times the winner's"


def _fit(search: LearningRateSearch) -> str:
    return "a fit" if search.fit_steps is None else f"a fit of {search.fit_steps} steps"
