"""What only time can tell: a schedule, a clip or a decay that takes the step away, gradients and data out of order."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unstall.causes.cause import Fault, Shown


@dataclass(frozen=True)
class Course:
    """What the course of a training showed; None means: not seen (yet).

    Args:
        rate: The configured learning rate of the first parameter group.
        rate_share: Mean of the rates that were in force, over the configured one.
        last_rate: The latest one.
        clip_share: Mean share of the gradient's norm that clipping leaves.
        decay: The largest weight decay of any parameter group.
        size_share: Norm of the weights over their norm at the start.
        leftover: Whether there were gradients of an earlier step before a backward pass.
        zeroed: Whether the gradients were zero again before the step.
        skipped: Share of the batches for which the step returned no loss.
        repeated: Whether the first batches were the same.
        label_spread: Mean entropy of the labels within a batch, over that of as many labels drawn from all.
        commonest: Share of the commonest label.
        not_finite: How many numbers of a batch were not finite, once a loss was not.
        still_falling: Share by which the latest losses were below those just before them when the training ended.
        modes: Loss of the latest batch in training and in evaluation mode, once the training has ended.
        scale: The loss of the best constant prediction; that of the first batch where it is not known.
        epochs: For how many it was to train, if that was said.
        inputs: Mean and standard deviation of all inputs, of the training samples and of the held-out ones.
    """

    rate: float | None = None
    rate_share: float | None = None
    last_rate: float | None = None
    clip_share: float | None = None
    decay: float = 0.0
    size_share: float | None = None
    leftover: bool = False
    zeroed: bool = False
    skipped: float | None = None
    repeated: bool = False
    label_spread: float | None = None
    commonest: float | None = None
    not_finite: int | None = None
    still_falling: float | None = None
    modes: tuple[float, float] | None = None
    scale: float | None = None
    epochs: int | None = None
    inputs: tuple[float, float, float, float] | None = None


def schedule(seen: Course) -> Shown:
    """A schedule that has fallen to nothing, or not yet risen: a tenth of the rate on average, and now."""
    if seen.rate_share is None or seen.rate is None or seen.last_rate is None or seen.rate <= 0:
        return None
    if seen.rate_share >= 0.1 or seen.last_rate >= 0.1 * seen.rate:
        return None
    return {"rate": seen.rate, "share": seen.rate_share, "last": seen.last_rate}


def clipped(seen: Course) -> Shown:
    """Clipping that leaves less than a twentieth of the gradient in most steps."""
    return {"share": seen.clip_share} if seen.clip_share is not None and seen.clip_share < 0.05 else None


def decayed(seen: Course) -> Shown:
    """Weights that have shrunk to a third, under a decay that is ten times the usual one."""
    if seen.size_share is None or seen.decay < 0.05 or seen.size_share > 0.33:
        return None
    return {"decay": seen.decay, "size": seen.size_share}


def leftover(seen: Course) -> Shown:
    """Gradients of the step before are still there."""
    return {} if seen.leftover else None


def zeroed(seen: Course) -> Shown:
    """No gradient is left when the optimizer makes its step, although there was one."""
    return {} if seen.zeroed else None


def skipped(seen: Course) -> Shown:
    """Half of the batches, or more, for which the step returned None: Lightning goes on without a step."""
    return {"share": seen.skipped} if (seen.skipped or 0) >= 0.5 else None


def repeated(seen: Course) -> Shown:
    """The same batch, again and again."""
    return {} if seen.repeated else None


def sorted_by_class(seen: Course) -> Shown:
    """Batches whose labels are much more alike than labels drawn at random."""
    return {"spread": seen.label_spread} if seen.label_spread is not None and seen.label_spread < 0.5 else None


def imbalanced(seen: Course) -> Shown:
    """One class that makes up nine tenths, and more, of the samples."""
    return {"share": seen.commonest} if seen.commonest is not None and 0.9 <= seen.commonest < 1 else None


def same_label(seen: Course) -> Shown:
    """One label, and no other, in all that was seen."""
    return {} if seen.commonest == 1 else None


def not_finite(seen: Course) -> Shown:
    """Numbers that are not finite in a batch."""
    return {"count": seen.not_finite} if seen.not_finite else None


def too_few_epochs(seen: Course) -> Shown:
    """A loss that fell by a tenth within the latest fifty batches, when the training ended."""
    if (seen.still_falling or 0) <= 0.1:
        return None
    return {"share": seen.still_falling, "such_as": f", such as {2 * seen.epochs}" if seen.epochs else ""}


def unlike_training(seen: Course) -> Shown:
    """The same samples, learned in training mode, cost far more in evaluation mode: its running statistics are off."""
    if seen.modes is None or not seen.scale or seen.scale <= 0:
        return None
    training, evaluation = seen.modes
    learned, lost = training < 0.5 * seen.scale, evaluation - training > 0.3 * seen.scale
    return {"training": training, "evaluation": evaluation} if learned and lost and evaluation > 2 * training else None


def held_out_apart(seen: Course) -> Shown:
    """Held-out inputs whose spread is 2.5 times that of the training inputs, or as much less, or a spread away."""
    if seen.inputs is None or not all(map(math.isfinite, seen.inputs)):
        return None
    mean, spread, other_mean, other_spread = seen.inputs
    if spread <= 0 or (0.4 <= other_spread / spread <= 2.5 and abs(other_mean - mean) <= spread):
        return None
    return {"mean": mean, "spread": spread, "other_mean": other_mean, "other_spread": other_spread}


COURSE_FAULTS = (
    Fault(
        "numbers that are not finite",
        not_finite,
        "The data hold numbers that are not finite, {count} of them in one batch",
        "fill or drop them before training",
        "torch.nan_to_num(inputs)",
        certain=True,
        mend="inputs",
    ),
    Fault(
        "held-out inputs unlike the training inputs",
        held_out_apart,
        "The inputs have mean {mean:.3g} and standard deviation {spread:.3g} in training, and {other_mean:.3g} and "
        "{other_spread:.3g} in validation",
        "prepare both in the same way: the same scale, mean and standard deviation",
        certain=True,
    ),
    Fault(
        "gradients that add up",
        leftover,
        "The gradients of earlier steps are still there when the next ones are computed",
        "set them to zero before each backward pass, as Lightning does by itself",
        certain=True,
    ),
    Fault(
        "gradients zeroed before the step",
        zeroed,
        "The gradients are zero when the optimizer makes its step",
        "set them to zero after the step, or leave that to Lightning",
        certain=True,
    ),
    Fault(
        "batches without a loss",
        skipped,
        "training_step returned no loss for {share:.0%} of the batches, and nothing is learned from those",
        "return the loss of every batch",
        "return loss",
        certain=True,
    ),
    Fault(
        "a schedule that takes the step away",
        schedule,
        "The schedule has left {share:.1%} of the learning rate of {rate:.2g} on average, and {last:.2g} now",
        "give it the length of the training, in the unit that it counts (steps or epochs)",
        '{"scheduler": scheduler, "interval": "epoch"}',
        mend="schedule",
    ),
    Fault(
        "gradients clipped away",
        clipped,
        "Clipping leaves {share:.1%} of the gradient",
        "raise gradient_clip_val above the usual norm of the gradient, or leave it out",
        mend="clip",
    ),
    Fault(
        "weight decay too strong",
        decayed,
        "A weight decay of {decay:g} has shrunk the weights to {size:.0%} of their size",
        "lower it to 1e-4 or less",
        "weight_decay=1e-4",
        mend="decay",
    ),
    Fault(
        "training data sorted by class",
        sorted_by_class,
        "The labels within a batch have {spread:.0%} of the entropy of labels drawn at random: the data are in order",
        "shuffle the training data",
        "DataLoader(..., shuffle=True)",
        mend="order",
    ),
    Fault(
        "the same batch again",
        repeated,
        "The first batches hold the same numbers",
        "look at what the sampler and the data set return",
    ),
    Fault(
        "one label for all samples",
        same_label,
        "All labels that were seen are the same: there is nothing to tell apart",
        "look at how the labels are made, such as a division or a cast of whole numbers, or the wrong column",
        "labels.unique(return_counts=True)",
        certain=True,
    ),
    Fault(
        "one class makes up nearly all",
        imbalanced,
        "{share:.1%} of the labels are the same: always giving that answer is right so often",
        "weight the classes in the loss, or draw the rare ones more often, and look at recall instead of accuracy",
        "F.cross_entropy(logits, labels, weight=1 / shares)",
        mend="balance",
    ),
    Fault(
        "evaluation unlike training",
        unlike_training,
        "The same samples cost {training:.3g} in training mode and {evaluation:.3g} in evaluation mode",
        "give batch normalization a momentum of 0.1 and larger batches, or use LayerNorm or GroupNorm, and see what "
        "else asks for self.training",
        "nn.BatchNorm1d(features, momentum=0.1)",
        certain=True,
        mend="modes",
    ),
    Fault(
        "too few epochs",
        too_few_epochs,
        "The loss was still falling when the training ended, by {share:.0%} within the latest batches",
        "train for more epochs{such_as}",
        mend="longer",
    ),
)
