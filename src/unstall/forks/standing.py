"""What a run comes to unchanged, by the answers that it gives: at its rate, at others, and as it stands."""

from __future__ import annotations

from unstall.forks.legs import looks
from unstall.forks.mending import GAIN, USUAL_RATES, measure_of, quality_of
from unstall.forks.subject import Subject
from unstall.forks.targets import Task, quality
from unstall.forks.tried import Mended
from unstall.trials import Score


def reached(subject: Subject, task: Task, enough: float = 1 - GAIN) -> Score | None:
    """Return what the run comes to unchanged, at its own or a usual rate, or as it stands; None if that is not seen.

    Args:
        subject: The run.
        task: What its targets ask for.
        enough: Where a rate that has been trained already comes so far, the usual ones are not: with the default,
            nothing could be better by what counts.
    """
    own = as_it_is(subject, task)
    measure = measure_of(subject, Mended("", subject.module), task)
    known = [rate for rate in subject.own.trained(subject.long) if rate in USUAL_RATES]
    scores = [] if own is None else [own]
    scores += [score for _, score in subject.own.best_measured(known, [subject.long], measure)]
    if max(map(quality_of, scores), default=0.0) < enough:
        usual = [rate for rate in USUAL_RATES if rate not in known and not subject.is_own(rate)]
        lengths = looks(subject.module, subject.short, subject.long)
        scores += [score for _, score in subject.own.best_measured(usual, lengths, measure)]
    return max(scores, key=quality_of, default=None)


def as_it_is(subject: Subject, task: Task) -> Score | None:
    """Return what the run comes to at its own learning rate, or as it stands if that is better; None if not seen."""
    _ = subject.control
    measure = measure_of(subject, Mended("", subject.module), task)
    scores = [score for _, score in subject.own.best_measured([None], [subject.long], measure)]
    now = standing(subject, task)
    if now is not None:
        scores.append(Score(subject.control.held_out_loss, now))
    return max(scores, key=quality_of, default=None)


def standing(subject: Subject, task: Task) -> float | None:
    """Return how good the run is as it stands; None if it has not been trained, or if its answers are not seen."""
    if subject.start is None:
        return None
    return quality(subject, subject.module, subject.start.weights, subject.held_out, task)
