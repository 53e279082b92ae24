"""Each rate's fate, in words that need no manual."""

import dataclasses
import math

import pytest

from unstall.find.pick import LearningRateSearch, RacedRate
from unstall.find.range_test import RangeTest
from unstall.find.words import answer, explanation, range_of, reason_for

RACE = [
    RacedRate(1e-4, [2.3] * 50, 2.0, 2.0, False),
    RacedRate(1e-3, [2.3] * 100, 0.3, 0.3, False),
    RacedRate(3.2e-3, [2.3] * 250, 0.2, 0.2, False),
    RacedRate(1e-2, [2.3] * 250, 0.25, 0.25, False),
    RacedRate(0.1, [2.3] * 50, 3.0, 3.0, False),
    RacedRate(1.0, [2.3, 99.0], math.inf, math.inf, True),
]

LEVEL = [
    RacedRate(1e-4, [2.3] * 50, 2.0, 2.0, False),
    *(
        RacedRate(rate, [2.3, *[loss] * 99], loss, loss, False)
        for rate, loss in ((1e-3, 0.31), (3.2e-3, 0.3), (1e-2, 0.32))
    ),
]


def search(pick: float = 3.2e-3, **changed: object) -> LearningRateSearch:
    found = LearningRateSearch(pick, 3.2e-3, 0.13, (1e-3, 1e-2), 1.0, 1e-4, RangeTest([1e-3], [2.3]), RACE)
    return dataclasses.replace(found, **changed)  # type: ignore[arg-type]


def reasons(found: LearningRateSearch) -> list[str]:
    return [reason_for(rate, found) for rate in found.race]


def test_every_rate_has_a_reason_of_its_own() -> None:
    assert reasons(search()) == [
        "too slow: dropped after 50 steps",
        "too slow: dropped after 100 steps",
        "picked: won the race with the lowest loss",
        "higher: in the end its loss was 1.2 times the winner's",
        "too high: dropped after 50 steps, its steps overshoot",
        "diverged: its loss ended above where it began",
    ]


def test_a_rate_that_trains_well_is_not_said_to_overshoot() -> None:
    early = [
        dataclasses.replace(rate, losses=rate.losses[:142]) if rate.learning_rate == 1e-2 else rate for rate in RACE
    ]
    said = "higher: still behind the winner after 142 steps, and high rates lose with time"
    assert reasons(search(race=early))[3] == said


def test_a_pick_below_the_winner_is_explained() -> None:
    found = search(pick=1e-3, fit_steps=3750)
    assert reasons(found)[1] == "picked: the best for a fit of 3750 steps, which a race of 250 steps does not show"
    assert reasons(found)[2] == "won the race with the lowest loss, but is too high for a fit of 3750 steps"
    (why,) = explanation(found)
    assert why.startswith("3.2e-03 won the race, but when it is lowered 13% of its loss goes away at once")
    assert "noise" not in " ".join([why, *reasons(found)])
    assert explanation(search()) == []
    assert answer(found) == "Train with a learning rate of 1.0e-03"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"diverges_at": 1e-2}, "Much depends on it: 1.0e-02, 3.1 times as much, diverges"),
        (
            {"race": LEVEL},
            "Not much depends on it: from 1.0e-03 to 1.0e-02 losses differ by less than a tenth over the same steps",
        ),
        ({"race": LEVEL, "diverges_at": 1e-2}, "Much depends on it: 1.0e-02, 3.1 times as much, diverges"),
        (
            {"usable": (3.2e-3, 3.2e-3)},
            "Much depends on it: 3.2e-03 alone trains well, and what lies beside it clearly worse",
        ),
        (
            {"pace": 15.0, "fit_steps": 3750},
            "Each rate is the one that the schedule multiplies, which ran 15 times faster in the race: 250 steps saw "
            "the whole of it",
        ),
    ],
)
def test_how_much_depends_on_the_answer_is_said(changed: dict[str, object], said: str) -> None:
    assert explanation(search(**changed)) == [said]  # type: ignore[arg-type]


def test_the_configured_rate_is_put_in_its_place() -> None:
    assert reasons(search(configured=0.01))[3].endswith("; the one that is configured")
    said = [explanation(search(configured=rate)) for rate in (3.2e-3, 1e-2, 1e-5, 0.1, 3.0)]
    assert said == [
        [],
        ["The configured 1.0e-02 is not wrong: it is among those that train well"],
        ["The configured 1.0e-05 is below those that train well"],
        ["The configured 1.0e-01 is above those that train well"],
        ["The configured 3.0e+00 diverges"],
    ]
    assert range_of(search()) == "1.0e-03 to 1.0e-02"


def test_a_winner_that_has_not_the_lowest_loss_says_why_and_losses_below_zero_are_not_divided() -> None:
    race = [dataclasses.replace(rate, expected_loss=rate.expected_loss - 5) for rate in RACE]
    race[3] = dataclasses.replace(race[3], expected_loss=-4.81)
    assert reasons(search(race=race))[2:4] == [
        "picked: won the race: the lowest rate whose loss is as good as the best, by no more than chance",
        "higher: a lower loss by no more than chance, and nearer to where it diverges",
    ]
    race[3] = dataclasses.replace(race[3], expected_loss=-4.7)
    assert reasons(search(race=race))[3] == "higher: a higher loss in the end"
