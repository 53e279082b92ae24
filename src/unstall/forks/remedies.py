"""Remedies that leave the network alone: other learning rates, from the start or in place, and a larger batch."""

from collections.abc import Callable
from dataclasses import replace

from unstall.forks.changes import accumulation_overlay, batch_overlay, overlay_of
from unstall.forks.subject import Subject
from unstall.forks.tried import Fork
from unstall.trials import Score, Variant, can_be_one, samples_in
from unstall.watch import Cause

RATES = tuple(10.0**exponent for exponent in range(-5, 2))
"""An absolute grid: around a rate that is far off, a relative one finds nothing (1e-6 times 1000 still stalls)."""


RATE = "optimizer.lr", "lr", "learning_rate"
"""What a model's configuration may call its learning rate."""


def at_rates(*rates: float) -> list[Variant]:
    """Return a variant for each learning rate."""
    return [Variant(learning_rate=rate) for rate in rates]


def climb(
    rate: float, run: Callable[[list[float]], list[Score]], choose: Callable[[list[Score]], int]
) -> list[tuple[float, Score]]:
    """Race half decades around a rate, and on upwards while the highest is the best: a few steps prefer lower rates.

    The lowest loss is best, too: an accuracy is a matter of luck where the next rate is all that is at stake.

    Args:
        rate: The best of a coarse and short race.
        run: Races rates.
        choose: Says which of them is the best.

    Returns:
        Rates, as a person would type them, and what they came to; the highest first, seven at most.
    """
    rates = [float(f"{rate * 10 ** (half / 2):.2g}") for half in (1, 0, -1, -2)]
    scores = run(rates)
    while len(rates) < 7 and 0 in (choose(scores), min(range(len(scores)), key=lambda i: scores[i].loss)):
        rates = [float(f"{rates[0] * 10**0.5:.2g}"), *rates]
        scores = [*run(rates[:1]), *scores]
    return list(zip(rates, scores, strict=True))


def try_rates(subject: Subject) -> tuple[Fork, list[float]]:
    """Restart with rates a decade apart, then with half decades around the best one, for longer.

    Returns:
        The best rate but the run's own, and the few rates at which other changes are worth a try.
    """
    own, judge = subject.rate, subject.judge
    grid = [own, *(rate for rate in RATES if not 0.5 < rate / own < 2)]
    screened = subject.scores(at_rates(*grid), subject.short)
    for rate, score in zip(grid[1:], screened[1:], strict=True):
        subject.note(f"learning rate {rate:.2g}, {subject.short} steps", screened[0], score)
    best = grid[judge.best(screened)]
    raced = climb(best, lambda rates: subject.scores(at_rates(*rates), subject.long), judge.safest)
    others = [(rate, score) for rate, score in raced if not subject.is_own(rate)]
    forks = [
        subject.note(
            f"learning rate {rate:.2g}",
            subject.score,
            score,
            overlay_of(subject.config, RATE, rate),
            Cause.TOO_LOW if rate > own else Cause.TOO_HIGH,
            rate,
        )
        for rate, score in others
    ]
    chosen = judge.safest([score for _, score in others])
    return forks[chosen], sorted({others[chosen][0], best, own})


def try_larger_batch(subject: Subject) -> Fork | None:
    """Restart with batches merged, so that all samples are seen just as often; None where the batch is large.

    Where it helps, and no setting of the run is the batch size, gradients are accumulated instead: that is one.
    """
    merge = min(16, 512 // subject.batch_size)
    if subject.batch_size > 64 or subject.long < 2 * merge:
        return None
    (score,) = subject.scores([Variant(merge=merge)], subject.long)
    change = f"batch size {merge * subject.batch_size}"
    accumulated = f"{change}, as the gradients of {merge * subject.options.accumulate_grad_batches} batches"
    overlay = batch_overlay(subject.config, samples_in(subject.batches[0]), merge)
    learning_rate = subject.rate if overlay is not None else None  # a module may scale it with the batch size
    # Batches that cannot be one, such as padded ones, are accumulated: the same but for what looks across samples.
    merged = change if can_be_one(subject.batches[:merge]) else accumulated
    where = ", set where the loader is made" if subject.config and overlay is None else ""
    cause = Cause.BATCH_TOO_SMALL
    fork = subject.note(merged + where, subject.score, score, overlay, cause, learning_rate)
    overlay = accumulation_overlay(subject.config, merge)
    if not where or not fork.helps or overlay is None:
        return fork
    own = subject.options
    fewer = own.steps_per_epoch and max(1, own.steps_per_epoch // merge)
    options = replace(own, accumulate_grad_batches=merge * own.accumulate_grad_batches, steps_per_epoch=fewer)
    (outcome,) = subject.race([Variant()], subject.training(subject.long), subject.held_out, options=options)
    instead = subject.note(accumulated, subject.score, Score.of(outcome), overlay, cause, subject.rate)
    return instead if instead.helps and not subject.judge.worse(instead.after, fork.after) else fork


def try_in_place(subject: Subject) -> None:
    """Go on from where the run stands, at other rates: for the record, it repairs little."""
    if subject.start is None:
        return
    rates = [subject.rate * factor for factor in (1.0, 0.01, 0.1, 10.0)]
    on, *others = subject.scores([Variant(rate, start=subject.start) for rate in rates], subject.short)
    for rate, score in zip(rates[1:], others, strict=True):
        subject.note(f"learning rate {rate:.2g} from here on, {subject.short} steps", on, score)
