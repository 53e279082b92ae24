"""What is measured of a run: the numbers and their formulas. `meter.py` gathers them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Signals:
    """What is known of a run at one moment; None means: not measured (yet).

    Args:
        step: Optimizer steps so far.
        initial_loss: Loss of the first batch, in the loss's own unit.
        loss: Mean loss of the latest (at most 50) batches.
        baseline: H0, the loss of the best constant prediction: the entropy (nats) of the class prior.
        initial_ratio: `initial_loss / baseline`; a network with outputs near zero starts near 1.
        loss_ratio: `loss / baseline`, or over `initial_loss` where there is no baseline.
        blow_up: Mean loss of batches 16 to 25 over the larger of the initial loss and the baseline.
        move: Distance from the initial weights over their norm.
        path_efficiency: Net over total movement in a window of steps, over what a random walk would have.
        straightness: The same for all steps since the start, as an exponent: 0 is a random walk, 1 straight on.
        predicted_gain: Sum of `-gradient . step` over that of the loss: what a batch's own step should gain of it.
        realised_gain: What the loss fell from one window to the next over the sum of the predicted gains.
        rebound: `loss` over the lowest mean loss of 50 batches so far.
        noise: Standard deviation of the latest batch losses over their mean.
        dead_at_start: Share of units, in the worst layer, whose output never changed over the first batch.
        dead: The same over the latest thousand inputs.
        gradient_ratio: Norm of the first layer's gradient over the last layer's, each per weight (root mean square);
            0 if none arrives at either.
        non_finite_step: Batch, counted from 1, whose loss was the first that was not finite.
        batch_size: Samples in a batch.
        training_loss: Mean training loss of the last whole epoch.
        validation_loss: The latest validation loss.
        generalisation_gap: `validation_loss - training_loss`.
        turned_epoch: Epoch (from 1) of the lowest validation loss, if it has risen since by more than 5 %.
        rise: Latest validation loss over the lowest one.
    """

    step: int = 0
    initial_loss: float | None = None
    loss: float | None = None
    baseline: float | None = None
    initial_ratio: float | None = None
    loss_ratio: float | None = None
    blow_up: float | None = None
    move: float | None = None
    path_efficiency: float | None = None
    straightness: float | None = None
    predicted_gain: float | None = None
    realised_gain: float | None = None
    rebound: float | None = None
    noise: float | None = None
    dead_at_start: float | None = None
    dead: float | None = None
    gradient_ratio: float | None = None
    non_finite_step: int | None = None
    batch_size: int | None = None
    training_loss: float | None = None
    validation_loss: float | None = None
    generalisation_gap: float | None = None
    turned_epoch: int | None = None
    rise: float | None = None

    @property
    def validation_ratio(self) -> float | None:
        """Latest validation loss over the training loss of the epoch before it."""
        known = self.validation_loss is not None and self.training_loss
        return self.validation_loss / self.training_loss if known else None  # type: ignore[operator]


def at_a_glance(signals: Signals) -> dict[str, float]:
    """Return what tells a rate that is too high from one that is too low, by the names of its curves over epochs.

    How far the weights have moved, as a power of ten of their initial norm, and how straight.
    """
    curves = {}
    if signals.move is not None and math.isfinite(signals.move):
        curves["7_log10_weights_moved"] = math.log10(max(signals.move, 1e-9))
    if signals.straightness is not None and math.isfinite(signals.straightness):
        curves["8_straightness"] = signals.straightness
    return curves


def over(numerator: float, denominator: float | None) -> float | None:
    """Return the quotient; None, which is "not measured", where there is nothing to divide by."""
    return numerator / denominator if denominator else None


def entropy(counts: Sequence[float]) -> float:
    """Return the entropy (nats) of the class prior: the cross-entropy of the best constant prediction, H0."""
    total = sum(counts)
    return -sum(count / total * math.log(count / total) for count in counts if count) + 0.0


def random_walk_efficiency(increments: int, stride: int, momentum: float) -> float:
    """Return net over total movement that pure noise would show: the null of `path_efficiency`.

    Gradients are taken as independent noise of equal size, and a step as their running average with decay b =
    `momentum`. The sum of m such steps then has a variance proportional to V(m) = m (1 + b)/(1 - b) - 2 b (1 -
    b^m)/(1 - b)^2 (the autocovariances b^lag, added up), and movement is measured over every `stride` steps. Without
    momentum it is 1/sqrt(increments); tests check it against simulated walks.

    Args:
        increments: Number of measured increments.
        stride: Steps per increment.
        momentum: Decay of the optimizer's running average of gradients, 0 <= b < 1.
    """

    def variance(steps: int) -> float:
        b = momentum
        return steps * (1 + b) / (1 - b) - 2 * b * (1 - b**steps) / (1 - b) ** 2

    return math.sqrt(variance(increments * stride) / variance(stride)) / increments


def straightness(efficiency: float, increments: int, stride: int, momentum: float) -> float:
    """Return `path_efficiency` as an exponent: 0 is the null, 1 a straight line, whatever the number of increments.

    A straight line is `1 / null` times as efficient as noise, which grows with the increments; the logarithm to that
    base does not.
    """
    return math.log(max(efficiency, 1e-6)) / -math.log(random_walk_efficiency(increments, stride, momentum))


def turning_point(losses: Sequence[float], rise: float = 1.05) -> int | None:
    """Return the index of the lowest validation loss if the last one lies above it by more than the factor `rise`.

    The factor is above what the validation loss of a healthy run wobbles by (`benchmarks/diagnosis_report.py`).
    """
    if not losses or not all(map(math.isfinite, losses)):
        return None
    lowest = min(range(len(losses)), key=losses.__getitem__)
    return lowest if losses[-1] > rise * losses[lowest] and losses[lowest] > 0 else None
