"""The thresholds of what only time can tell; real fits are in tests/watch/test_course.py."""

from dataclasses import replace

import pytest

from unstall.causes.cause import find
from unstall.causes.course import COURSE_FAULTS, Course

SOUND = Course(rate=0.1, rate_share=1.0, last_rate=0.1, clip_share=0.8, decay=1e-4, size_share=1.2, label_spread=1.0)


def faults(seen: Course) -> list[str]:
    return [str(finding.fault) for finding in find(COURSE_FAULTS, seen)]


def test_a_sound_course_and_one_that_was_not_seen_show_nothing() -> None:
    assert faults(SOUND) == faults(Course()) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rate_share": 0.01, "last_rate": 1e-6}, "a schedule that takes the step away"),
        ({"clip_share": 0.01}, "gradients clipped away"),
        ({"decay": 0.5, "size_share": 0.1}, "weight decay too strong"),
        ({"leftover": True}, "gradients that add up"),
        ({"zeroed": True}, "gradients zeroed before the step"),
        ({"repeated": True}, "the same batch again"),
        ({"label_spread": 0.1}, "training data sorted by class"),
        ({"commonest": 0.97}, "one class makes up nearly all"),
        ({"commonest": 1.0}, "one label for all samples"),
        ({"not_finite": 3}, "numbers that are not finite"),
        ({"still_falling": 0.3}, "too few epochs"),
        ({"modes": (0.1, 1.9), "scale": 2.3}, "evaluation unlike training"),
    ],
)
def test_each_shows_by_itself(change: dict[str, object], fault: str) -> None:
    assert faults(replace(SOUND, **change)) == [fault]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("epochs", "remedy"), [(5, "train for more epochs, such as 10"), (None, "train for more epochs")]
)
def test_how_many_epochs_more_is_said_where_it_is_known(epochs: int | None, remedy: str) -> None:
    (found,) = find(COURSE_FAULTS, replace(SOUND, still_falling=0.3, epochs=epochs))
    assert found.change == remedy


@pytest.mark.parametrize(
    "change",
    [
        {"rate_share": 0.05, "last_rate": 0.1},  # a long warm-up that has ended
        {"rate_share": 0.3, "last_rate": 1e-9},  # a schedule that decays to nothing at the end
        {"decay": 0.5, "size_share": 0.9},
        {"size_share": 0.1},  # without a decay to blame
        {"commonest": 0.6, "clip_share": 0.3, "label_spread": 0.8, "not_finite": 0, "still_falling": 0.02},
    ],
)
def test_what_is_usual_does_not(change: dict[str, object]) -> None:
    assert faults(replace(SOUND, **change)) == []  # type: ignore[arg-type]
