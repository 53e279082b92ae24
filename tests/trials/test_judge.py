import math

import pytest
import torch

from unstall.trials.judge import Judge, Score
from unstall.trials.variants import Outcome, Variant

H0 = math.log(10)


def outcome(metrics: dict[str, float], finite: bool = True) -> Outcome:
    return Outcome(Variant(), [2.0], [0.5, 0.7] if finite else [], metrics, finite)


@pytest.mark.parametrize("name", ["train/accuracy", "train_acc", "acc", "Accuracy"])
def test_an_accuracy_is_found_by_its_name(name: str) -> None:
    assert Score.of(outcome({"loss": 0.6, name: 0.8})) == Score(0.6, 0.8)


@pytest.mark.parametrize("name", ["train/loss", "accuracy/gap", "vacc", "top5"])
def test_nothing_else_is_taken_for_one(name: str) -> None:
    assert Score.of(outcome({name: 0.8})) == Score(0.6, None)


def test_what_diverged_has_no_accuracy() -> None:
    assert Score.of(outcome({"acc": 0.8}, finite=False)) == Score(math.inf, None)


def test_the_lower_of_two_rates_is_taken_unless_the_lead_is_more_than_noise() -> None:
    judge = Judge(H0)
    assert judge.safest([Score(0.99), Score(1.0), Score(1.2)]) == 1
    assert judge.safest([Score(0.9), Score(1.0), Score(1.2)]) == 0
    assert judge.safest([Score(math.inf), Score(math.inf)]) == 1
    assert judge.best([Score(0.99), Score(1.0), Score(1.2)]) == 0


def test_accuracy_decides_and_loss_among_those_within_its_standard_error() -> None:
    judge = Judge(H0, chance=0.1, samples=2000)  # at 0.84 the standard error is 0.0082
    learned_by_heart = [Score(1.2, 0.84), Score(0.8, 0.833), Score(0.6, 0.81)]
    assert judge.best(learned_by_heart) == judge.safest(learned_by_heart) == 1
    assert Judge(H0).best(learned_by_heart) == 2, "without classes there is only the loss"
    assert judge.best([Score(9.0, 0.1), Score(2.302, 0.09), Score(2.4, 0.2)]) == 1, "none is well above chance"
    assert judge.best([Score(math.inf), Score(3.0, 0.7)]) == 1
    assert judge.better_of(*learned_by_heart) == Score(0.8, 0.833)


def test_a_change_helps_by_five_points_and_a_fifth_of_the_error() -> None:
    judge = Judge(H0, chance=0.1, samples=2000)
    assert judge.helps(Score(2.3, 0.1), Score(2.2, 0.5)), "the loss alone has hardly moved"
    assert not judge.helps(Score(0.3, 0.90), Score(0.2, 0.94)), "four points, and a loss that hardly matters"
    assert judge.helps(Score(1.0, 0.90), Score(0.2, 0.94)), "four points, and a loss that does"
    assert not judge.helps(Score(1.0, 0.50), Score(0.1, 0.58)), "less than a fifth"
    assert not judge.helps(Score(1.0, 0.90), Score(0.1, 0.88)), "sure of its mistakes no more, and more of them"
    assert judge.helps(Score(math.inf), Score(1.0, 0.6)), "by loss: what diverged has no accuracy"
    assert not judge.helps(Score(1.0, 0.6), Score(math.inf))
    assert not judge.helps(Score(math.inf), Score(math.inf))


def test_what_mends_a_stall_brings_five_points() -> None:
    judge = Judge(H0, chance=0.1, samples=2000)
    assert judge.mends(Score(1.0, 0.80), Score(0.2, 0.86))
    assert not judge.mends(Score(1.0, 0.80), Score(0.2, 0.85)), "it helps: a quarter of the error, and a better loss"
    assert not judge.mends(Score(0.3, 0.60), Score(0.2, 0.66)), "less than a fifth of the error"
    assert judge.mends(Score(2.30, 0.10), Score(1.8, 0.12)), "by loss, where no accuracy is well above chance"
    assert Judge(H0).mends(Score(1.0), Score(0.7)), "and where none is known"
    assert not Judge(H0).mends(Score(1.0, 0.97), Score(0.1, 1.0)), "what is right nearly always has not stalled"


def test_without_accuracy_a_change_helps_by_a_fifth_of_the_loss_and_a_twentieth_of_the_constant_predictions() -> None:
    judge = Judge(H0)
    assert judge.helps(Score(1.0), Score(0.79))
    assert not judge.helps(Score(1.0), Score(0.81))
    assert not judge.helps(Score(0.2), Score(0.1)), "half the loss, and not a twentieth of H0"


def test_learned_is_better_than_the_best_constant_prediction() -> None:
    judge = Judge(H0, chance=0.1, samples=2000)
    assert not judge.learned(Score(2.29, 0.12))
    assert judge.learned(Score(2.29, 0.3))
    assert judge.learned(Score(11.0, 0.8)), "sure of its mistakes, yet mostly right"
    assert judge.learned(Score(1.0))
    assert not judge.learned(Score(math.inf))


def test_a_tenth_behind_is_worse() -> None:
    judge = Judge(H0, chance=0.1, samples=2000)
    assert judge.worse(Score(0.3, 0.80), Score(0.6, 0.85))
    assert not judge.worse(Score(0.9, 0.82), Score(0.6, 0.83))
    assert Judge(H0).worse(Score(0.9), Score(0.6))


def test_one_sample_of_a_hundred_is_not_worse() -> None:
    few, many = Judge(H0, chance=0.1, samples=100), Judge(H0, chance=0.1, samples=2000)
    assert not few.worse(Score(0.2, 0.93), Score(0.9, 0.94)), "its standard error is 0.024"
    assert many.worse(Score(0.2, 0.93), Score(0.9, 0.94))


@pytest.mark.parametrize(
    ("judge", "before", "after", "share"),
    [
        (Judge(H0, 0.1, 2000), Score(0.9, 0.82), Score(0.3, 0.91), 0.72 / 0.81),
        (Judge(H0, 0.1, 2000), Score(2.30, 0.10), Score(2.2, 0.12), 0.0),
        (Judge(H0, 0.1, 2000), Score(0.3, 0.91), Score(0.9, 0.82), 1.0),
        (Judge(2.0), Score(0.5), Score(0.25), 1.5 / 1.75),
        (Judge(2.0), Score(5.0), Score(0.25), -3.0 / 1.75),
        (Judge(2.0), Score(math.inf), Score(0.25), 0.0),
        (Judge(2.0), Score(2.5), Score(2.5), 0.0),
        (Judge(1.0, down_to_zero=False), Score(-3.0), Score(-4.0), 0.8),
    ],
)
def test_progress_is_the_share_of_the_way_from_a_constant(
    judge: Judge, before: Score, after: Score, share: float
) -> None:
    assert judge.progress(before, after) == pytest.approx(share, abs=0.05 if before.accuracy == 0.1 else 1e-6)


def test_chance_is_the_share_of_the_most_frequent_class() -> None:
    inputs = torch.zeros(3, 2)
    batches = [(inputs, torch.tensor([0, 1, 1])), (inputs, torch.tensor([1, 2, 1]))]
    assert Judge.over(batches, H0) == Judge(H0, pytest.approx(4 / 6), 6)
    assert Judge.over([(inputs, torch.tensor([0.0, 0.5, 1.0]))], 1.0) == Judge(1.0), "numbers are no classes"
    assert Judge.over([(inputs, torch.tensor([[0.0], [1.0], [1.0]]))], H0) == Judge(H0, pytest.approx(2 / 3), 3)
    assert Judge.over([(inputs, torch.eye(3))], H0) == Judge(H0, pytest.approx(1 / 3), 3)
    assert Judge.over([(inputs, torch.zeros(3, 4, dtype=torch.long))], 1.0) == Judge(1.0)
    assert Judge.over([inputs], 1.0) == Judge(1.0)


def test_of_a_loss_that_does_not_end_at_zero_progress_counts() -> None:
    contrastive = Judge(5.85, down_to_zero=False)
    assert contrastive.mends(Score(5.85), Score(4.97)), "all that can be gained, and 15 % of the loss"
    assert not contrastive.helps(Score(5.00), Score(4.97))
    assert not Judge(5.85).mends(Score(5.85), Score(4.97))
    density = Judge(0.5, down_to_zero=False)
    assert density.mends(Score(0.4), Score(-3.0))
    assert not density.helps(Score(-2.9), Score(-3.0))
    assert density.learned(Score(-1.0))
    assert not Judge(-1.0, down_to_zero=False).learned(Score(-1.01))
    assert density.worse(Score(-2.0), Score(-3.0))
    assert not density.worse(Score(-2.9), Score(-3.0))
    assert density.helps(Score(math.inf), Score(-3.0))
    assert not density.helps(Score(-3.0), Score(math.inf))
    assert density.safest([Score(-2.0), Score(-3.0), Score(-2.95), Score(-2.5)]) == 2
