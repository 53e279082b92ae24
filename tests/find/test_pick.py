"""From what raced to the pick: arithmetic on races that are written down."""

import dataclasses
import itertools
import math

import pytest

from unstall.errors import UsageError
from unstall.find.pick import (
    RacedRate,
    candidates,
    conclude,
    expected_loss,
    first_leg,
    go_on,
    lead,
    leg_lengths,
    noise_share,
    settle,
    still_in,
)
from unstall.find.range_test import RangeTest


@pytest.mark.parametrize(("least", "top"), [(0.3, 1.0), (0.01, 0.032), (0.05, 0.1)])
def test_candidates_end_above_the_minimum_of_the_range_test(least: float, top: float) -> None:
    rates = [10 ** (-6 + k / 10) for k in range(80)]
    losses = [1 + abs(math.log10(rate / least)) for rate in rates]
    chosen = candidates(RangeTest(rates, losses), 5, 1e-8, 1e2)
    assert chosen[-1] in (top, pytest.approx(top * 10**0.5, rel=0.02))
    assert len(chosen) == 5
    assert all(b / a == pytest.approx(10**0.5, rel=0.03) for a, b in itertools.pairwise(chosen))
    assert max(candidates(RangeTest(rates, losses), 5, 1e-8, least)) <= least


def test_the_legs_share_the_steps_among_ever_fewer_rates() -> None:
    legs = leg_lengths(1000, 7)
    assert [entrants for entrants, _ in legs] == [7, 3, 2]
    assert sum(entrants * steps for entrants, steps in legs) == pytest.approx(1000, rel=0.01)
    assert leg_lengths(1000, 2)[1] == (3, 95), "two rates run the leg of three"


def test_the_expected_loss_is_the_worse_of_the_late_losses_and_the_held_out_one() -> None:
    assert expected_loss([9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 1.0, 3.0], 1.5) == 2
    assert expected_loss([9.0, 1.0], 1.5) == 1.5


def test_the_winner_is_lower_the_longer_the_fit_goes_on() -> None:
    finalists = [RacedRate(0.01, [0.22] * 20, 0.220, 0.2, False), RacedRate(0.1, [0.2] * 20, 0.200, 0.2, False)]
    assert lead(finalists, horizon=5).learning_rate == 0.1
    assert lead(finalists, horizon=20).learning_rate == 0.1
    assert lead(finalists, horizon=20 * 2**4).learning_rate == 0.01
    decayed = lead(finalists, horizon=20 * 2**4, share_left=0.0)
    assert decayed.learning_rate == 0.1, "the race has seen it without its noise"
    finalists[0] = dataclasses.replace(finalists[0], expected_loss=0.25)
    assert lead(finalists, horizon=math.inf).learning_rate == 0.1, "too far behind for any fit"


def test_a_lead_within_noise_is_not_preferred_to_a_lower_rate() -> None:
    calm = RacedRate(0.01, [0.24] * 20, 0.24, 0.2, False)
    short = RacedRate(0.001, [0.1] * 10, 0.1, 0.1, False)
    for swing, expected in ((0.01, 0.1), (0.15, 0.01)):
        wild = RacedRate(0.1, [0.2 + swing, 0.2 - swing] * 10, 0.2, 0.2, False)
        assert lead([short, calm, wild], horizon=20).learning_rate == expected


def test_where_every_rate_diverged_there_is_no_winner() -> None:
    raced = [RacedRate(rate, [2.0], math.inf, math.inf, True) for rate in (0.1, 1.0)]
    with pytest.raises(UsageError, match=r"every rate from 1\.0e-01 to 1\.0e\+00 diverges"):
        lead(raced, horizon=100)


def test_what_goes_away_at_a_lower_rate_is_noise() -> None:
    assert noise_share([0.5, 0.3], [0.4, 0.2]) == pytest.approx(0.25)
    assert noise_share([0.4, 0.2], [0.5, 0.3]) == 0
    assert noise_share([0.4], [0.5, 0.3]) == 1, "it diverged at the second step"
    assert noise_share([], []) == 0


def test_noise_lowers_the_rate_the_more_the_longer_the_fit() -> None:
    def picked(noise: float, longer: float, lowest: float = 1e-7) -> float:
        return settle(0.1, noise, longer, lowest)

    assert picked(0.0, 1000.0) == 0.1
    assert [picked(noise, 8.0) for noise in (0.05, 0.1, 0.5)] == [0.1, 0.032, 0.01]
    assert [picked(0.09, longer) for longer in (0.1, 1.0, 8.0)] == [0.1, 0.1, 0.032]
    assert picked(0.5, 8.0, lowest=0.03) == 0.032
    assert picked(0.5, 8.0, lowest=0.2) == 0.1
    assert picked(0.3, math.inf) == picked(0.3, 32.0)


def test_no_leg_goes_on_after_the_fit() -> None:
    assert leg_lengths(2854, 7, horizon=64) == [(7, 64)], "all rates race the whole fit"
    legs = leg_lengths(820, 7, horizon=120)
    assert legs[:2] == leg_lengths(820, 7)[:2]
    assert sum(steps for _, steps in legs) == 120
    assert leg_lengths(820, 7, horizon=10_000) == leg_lengths(820, 7)


def after_a_quarter(losses: dict[float, float]) -> list[RacedRate]:
    return [RacedRate(rate, [loss] * 13, loss, loss, math.isinf(loss)) for rate, loss in losses.items()]


def test_the_slowest_drop_out_of_the_first_leg_and_none_above_the_leader() -> None:
    spread = {1e-5: 2.3, 1e-4: 2.2, 1e-3: 1.9, 3.2e-3: 1.2, 1e-2: 0.6, 3.2e-2: 40.0, 0.1: math.inf}
    assert still_in(after_a_quarter(spread), last=False) == [1e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2]
    level = dict.fromkeys([1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0], 2.3) | {1.0: 2.2}
    assert still_in(after_a_quarter(level), last=False) == list(level), "nothing tells them apart yet"
    assert still_in(after_a_quarter({1e-2: math.inf}), last=False) == []


def test_of_the_last_two_the_higher_one_drops_out_if_it_is_behind() -> None:
    assert still_in(after_a_quarter({1e-2: 0.50, 3.2e-2: 0.51}), last=True) == [1e-2]
    assert set(still_in(after_a_quarter({1e-2: 0.9, 3.2e-2: 0.5}), last=True)) == {1e-2, 3.2e-2}


def test_the_fastest_goes_on_in_the_last_place_though_one_look_at_held_out_samples_was_bad() -> None:
    def after(losses: dict[float, tuple[float, float]]) -> list[RacedRate]:
        return [
            RacedRate(rate, [loss] * 13, max(loss, held_out), held_out, math.isinf(loss))
            for rate, (loss, held_out) in losses.items()
        ]

    noisy = after({1e-3: (0.9, 0.9), 3.2e-3: (0.8, 0.8), 1e-2: (0.7, 0.7), 3.2e-2: (0.5, 1.5), 0.1: (math.inf, 1.0)})
    assert go_on(noisy, 3) == [1e-2, 3.2e-3, 3.2e-2]
    assert go_on(noisy, 2) == [1e-2, 3.2e-2]
    assert set(still_in(noisy[2:4], last=True)) == {1e-2, 3.2e-2}
    quiet = after({1e-3: (0.9, 0.9), 3.2e-3: (0.8, 0.8), 1e-2: (0.6, 0.7), 3.2e-2: (0.7, 1.5)})
    assert go_on(quiet, 2) == [1e-2, 3.2e-3], "the fastest is among them"
    assert go_on(noisy[-1:], 2) == []


def test_the_first_leg_is_told_from_what_raced() -> None:
    def of(*steps: int) -> int:
        return first_leg([RacedRate(1e-2, [2.3] * length, 1, 1, False) for length in steps])

    assert of(13, 13, 53, 105, 142, 253) == of(53, 53, 53, 105, 253, 253) == 53
    assert of(105, 253, 253) == 105, "the others diverged"


def test_a_lower_rate_must_come_as_far_as_the_leader_was_seen_to_come() -> None:
    steep = [1 / (1 + step) for step in range(100)]
    flat = [1.0] * 100
    assert settle(0.1, 0.4, 1.0, 1e-7, flat) == settle(0.1, 0.4, 1.0, 1e-7) == 0.01
    assert settle(0.1, 0.4, 1.0, 1e-7, steep) == 0.032, "a tenth of the way is ten times the loss"
    assert settle(0.1, 0.4, 32.0, 1e-7, steep) == settle(0.1, 0.4, 32.0, 1e-7), "the fit is long enough"


def test_differences_of_nothing_decide_nothing() -> None:
    """Losses seen on an easy problem: 3.2e-3 came to 0.0012, 1e-2 to 0.0000, and 3.2e-2 died."""
    raced = [
        RacedRate(0.0032, [0.69] * 60 + [0.0012] * 40, 0.0012, 0.0012, False),
        RacedRate(0.01, [0.69] * 60 + [0.00001] * 40, 0.00001, 0.00001, False),
    ]
    assert lead(raced, horizon=100).learning_rate == 0.0032
    assert noise_share([0.001], [0.0005], start=0.69) < 0.2 < noise_share([0.001], [0.0005])
    assert noise_share([0.4], [0.3], start=0.69) == pytest.approx(0.25, abs=0.01)


def test_conclusions() -> None:
    raced = [
        RacedRate(0.01, [2.3] * 10, 1.2, 1.1, False),
        RacedRate(0.032, [2.3, 0.8] * 20, 0.8, 0.7, False),
        RacedRate(0.1, [2.3, 0.7] * 20, 0.75, 0.7, False),
        RacedRate(1.0, [2.3, 99.0], math.inf, math.inf, True),
    ]
    tested = RangeTest([0.1, 1.0, 10.0], [2.3, 1.0, 100.0])
    search = conclude(tested, raced, 3e-3, leader=0.1, noise=0.0, learning_rate=0.1)
    assert search.learning_rate == 0.1
    assert search.usable == (0.032, 0.1)
    assert search.diverges_at == 1.0
    assert conclude(tested, raced[:3], None, 0.1, 0.0, 0.1).diverges_at == tested.blows_up_at


def test_a_rate_that_dies_in_a_later_leg_is_not_picked() -> None:
    raced = [RacedRate(0.1, [2.0] * 4 + [1.0] * 40, 1.0, 1.0, False), RacedRate(1.0, [2.0, 0.1], math.inf, 9, True)]
    assert lead(raced, horizon=100).learning_rate == 0.1
    assert conclude(RangeTest([0.1, 1.0], [2.0, 1.0]), raced, None, 0.1, 0.0, 0.1).diverges_at == 1.0


def test_a_rate_that_has_hardly_moved_is_not_among_those_that_train_well() -> None:
    ends = {1e-4: 1.99, 1e-3: 1.9, 1e-2: 1.6, 1e-1: 1.5}
    raced = [RacedRate(rate, [2.0, *[loss] * 19], loss, loss, False) for rate, loss in ends.items()]
    search = conclude(RangeTest([0.1], [2.0]), raced, None, leader=0.1, noise=0.0, learning_rate=0.1)
    assert search.usable == (1e-2, 1e-1), "a loss of 1.9 is within half of the lowest, and of one that nothing taught"
