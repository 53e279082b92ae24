"""What a run comes to unchanged is the best of a few rates, read off what has been trained already."""

import pytest

from forks.blobs import Lit, blobs
from unstall.forks.examination import examine
from unstall.forks.mending import GAIN
from unstall.forks.remedies import try_rates
from unstall.forks.standing import reached, standing
from unstall.forks.subject import Subject
from unstall.forks.targets import Task
from unstall.trials import State


def task_of(subject: Subject) -> Task:
    task = examine(subject).task
    assert task is not None
    return task


def whole_lengths(subject: Subject) -> list[float | None]:
    return subject.own.trained(subject.long)


def test_a_run_that_learns_nothing_is_tried_at_the_two_usual_rates_that_lead() -> None:
    subject = Subject(Lit(1e-6), *blobs(64))
    score = reached(subject, task_of(subject))
    assert score is not None
    assert score.accuracy is not None
    assert score.accuracy > 0.8
    assert whole_lengths(subject) == [None, 0.1, 0.01] or whole_lengths(subject) == [None, 0.01, 0.1]


def test_a_run_that_does_well_is_not_tried_at_others() -> None:
    subject = Subject(Lit(0.5), *blobs(64))
    score = reached(subject, task_of(subject))
    assert score is not None
    assert score.accuracy is not None
    assert score.accuracy > 1 - GAIN, "nothing could be better by five points"
    assert whole_lengths(subject) == [None]


def test_what_the_rates_have_trained_is_not_trained_again() -> None:
    subject = Subject(Lit(1e-6), *blobs(64))
    try_rates(subject)
    before = dict(subject.own.known)
    reached(subject, task_of(subject))
    assert all(subject.own.known[trained].losses == outcome.losses for trained, outcome in before.items())


def test_a_run_is_as_good_as_it_stands() -> None:
    subject = Subject(Lit(1e-6), *blobs(64))
    task = task_of(subject)
    assert standing(subject, task) is None, "nobody knows where"
    good = subject.own.at([0.3], subject.long)[0].state
    assert good is not None
    stood = Subject(Lit(1e-6), *blobs(64), start=State(good.weights))
    score = reached(stood, task, enough=0.0)
    assert score is not None
    assert score.accuracy == pytest.approx(standing(stood, task))
