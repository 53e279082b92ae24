"""What a run comes to unchanged, by the answers that it gives: at its rate, at others, and as it stands."""

from __future__ import annotations

import math

from unstall.forks.legs import looks
from unstall.forks.mended import GAIN, USUAL_RATES, measure_of, quality_of
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
    _ = subject.control
    measure = measure_of(subject, Mended("", subject.module), task)
    known = [rate for rate in subject.own.trained(subject.long) if rate in (None, *USUAL_RATES)]
    scores = subject.own.best_measured(known, [subject.long], measure)
    if max((quality_of(score) for _, score in scores), default=0.0) < enough:
        usual = [rate for rate in USUAL_RATES if rate not in known and not subject.is_own(rate)]
        scores += subject.own.best_measured(usual, looks(subject.module, subject.short, subject.long), measure)
    score = max((score for _, score in scores), key=quality_of, default=Score(math.inf))
    now = standing(subject, task)
    if now is not None and now > quality_of(score):
        return Score(subject.control.held_out_loss, now)
    return score if score.accuracy is not None else None


def standing(subject: Subject, task: Task) -> float | None:
    """Return how good the run is as it stands; None if it has not been trained, or if its answers are not seen."""
    if subject.start is None:
        return None
    return quality(subject, subject.module, subject.start.weights, subject.held_out, task)
