"""Remedies that leave the network alone: other learning rates, from the start or in place, and a larger batch."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from unstall.forks.changes import accumulation_overlay, batch_overlay, overlay_of
from unstall.forks.subject import Subject
from unstall.forks.tried import Fork
from unstall.trials import Judge, Score, Variant, can_be_one, samples_in
from unstall.watch import Cause

RATES = tuple(10.0**exponent for exponent in range(-5, 2))
"""An absolute grid: around a rate that is far off, a relative one finds nothing (1e-6 times 1000 still stalls)."""


SCREENED = 3
"""How many rates of that grid make the whole screening beside the run's own: those that lead after a glance."""


HIGHER = 3
"""Half decades by which rates are raised at most, above the four that start a race."""


RATE = "optimizer.lr", "lr", "learning_rate"
"""What a model's configuration may call its learning rate."""


def at_rates(*rates: float) -> list[Variant]:
    """Return a variant for each learning rate."""
    return [Variant(learning_rate=rate) for rate in rates]


def ahead(rates: Sequence[float], scores: Sequence[Score], count: int, judge: Judge) -> list[float]:
    """Return the rates that did best, so many of them, the best one first."""
    left, found = dict(zip(rates, scores, strict=True)), list[float]()
    while left and len(found) < count:
        found.append(list(left)[judge.best(list(left.values()))])
        del left[found[-1]]
    return found


def climb(
    rate: float, run: Callable[[list[float], int], list[Score]], lengths: Sequence[int], judge: Judge
) -> list[tuple[float, Score]]:
    """Race half decades around a rate, and on upwards while the highest is the best: a few steps prefer lower rates.

    Four rates start, and at the end of each length but the last the one furthest behind drops out: successive halving
    (Jamieson and Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016). The lowest
    loss is best, too: an accuracy is a matter of luck where the next rate is all that is at stake.

    Args:
        rate: The best of a coarse and short race.
        run: Races rates for so many steps.
        lengths: Steps, ascending, three numbers at most.
        judge: Says which of them is the best.

    Returns:
        Rates, as a person would type them, and what they came to at the last length; the highest first.
    """
    rates = [half_decades(rate, halves) for halves in (1, 0, -1, -2)]
    highest = rates[0]
    for steps in lengths[:-1]:
        rates = ahead(rates, run(rates, steps), len(rates) - 1, judge)
    rates.sort(reverse=True)
    scores = run(rates, lengths[-1])
    for _ in range(HIGHER):
        if rates[0] != highest or 0 not in (judge.safest(scores), _lowest(scores)):
            break
        highest = half_decades(highest, 1)
        rates = [highest, *rates]
        scores = [*run(rates[:1], lengths[-1]), *scores]
    return list(zip(rates, scores, strict=True))


def half_decades(rate: float, count: int) -> float:
    """Return a rate so many half decades above another, with the two digits that a person would type."""
    return float(f"{rate * 10 ** (count / 2):.2g}")


def _lowest(scores: Sequence[Score]) -> int:
    return min(range(len(scores)), key=lambda i: scores[i].loss)


def try_rates(subject: Subject) -> tuple[Fork, list[float]]:
    """Restart with rates a decade apart, then with half decades around the best one, for longer.

    Returns:
        The best rate but the run's own, and the few rates at which other changes are worth a try.
    """
    own, judge = subject.rate, subject.judge

    def run(rates: Sequence[float], steps: int) -> list[Score]:
        return subject.own.scores([None if subject.is_own(rate) else rate for rate in rates], steps)

    def note(rate: float, steps: int) -> None:
        score, other = run([own, rate], steps)
        subject.note(f"learning rate {rate:.2g}, {steps} steps", score, other)

    grid = [own, *(rate for rate in RATES if not 0.5 < rate / own < 2)]
    leading = [own, *ahead(grid[1:], run(grid[1:], subject.glance), SCREENED, judge)]
    best = leading[judge.best(run(leading, subject.short))]
    for rate in grid[1:]:
        note(rate, subject.short if rate in leading else subject.glance)
    raced = climb(best, run, subject.lengths, judge)
    others = [(rate, score) for rate, score in raced if not subject.is_own(rate)]
    for tried in subject.own.trained(subject.short):
        if tried is not None and tried not in (*grid, *dict(others)):
            note(tried, subject.short)
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


def try_in_place(subject: Subject, rate: Fork) -> None:
    """Go on from where the run stands at the rate that helps from its start: for the record, it repairs little."""
    if subject.start is None or not rate.helps or rate.learning_rate is None:
        return
    rates = subject.rate, rate.learning_rate
    on, other = subject.scores([Variant(each, start=subject.start) for each in rates], subject.short)
    subject.note(f"learning rate {rate.learning_rate:.2g} from here on, {subject.short} steps", on, other)
