"""Why a run does not do better: the vocabulary, with a sentence and a remedy for each cause."""

import dataclasses
import math
import re
from enum import Enum
from typing import Any

from unstall.watch.signals import Signals


class Cause(str, Enum):
    """Why a run does not do better."""

    NON_FINITE = "non-finite loss"
    TOO_HIGH = "learning rate too high"
    TOO_LOW = "learning rate too low"
    BATCH_TOO_SMALL = "batch too small"
    BAD_SCALE = "inputs or initial weights of the wrong scale"
    DEAD_AT_START = "units dead from the start"
    DEAD_FROM_RATE = "units killed by the learning rate"
    VANISHING = "vanishing gradients"
    NOTHING_TO_LEARN = "nothing to learn"
    BELOW_BASELINE = "no better than a linear model"
    LOW_CAPACITY = "too little capacity"
    OVERFITTING = "overfitting"
    HEALTHY = "healthy"
    UNSURE = "unsure"


EXPLANATIONS: dict[Cause, tuple[str, str]] = {
    Cause.NON_FINITE: (
        "The loss was no longer finite at batch {non_finite_step}",
        "restart with a learning rate ten times lower, or clip the gradients",
    ),
    Cause.TOO_HIGH: (
        "The learning rate is too high: the weights have moved {move:.3g} times their initial size and the loss is "
        "{loss_ratio:.3g} times that of {reference}",
        "restart with one ten times lower (lowering it in place does not repair the weights)",
    ),
    Cause.TOO_LOW: (
        "The learning rate is too low: the weights go straight ahead and have moved only {move:.2g} times their size",
        "restart with a learning rate ten times higher",
    ),
    Cause.BATCH_TOO_SMALL: (
        "The batch of {batch_size} is too small for this learning rate: its noise undoes what the steps gain",
        "raise the batch size, or lower the learning rate",
    ),
    Cause.BAD_SCALE: (
        "The first loss was {initial_ratio:.3g} times that of {reference}: inputs or initial weights are too large",
        "scale the inputs to about 1 and initialise the weights for their layer's size",
    ),
    Cause.DEAD_AT_START: (
        "{dead_at_start:.0%} of the units of a layer gave the same output for every input from the very first step; "
        "no gradient passes them",
        "initialise the weights anew: no learning rate revives such units",
    ),
    Cause.DEAD_FROM_RATE: (
        "{dead:.0%} of the units of a layer now give the same output for every input ({dead_at_start:.0%} at first): "
        "too high a learning rate has killed them",
        "restart with a learning rate ten times lower",
    ),
    Cause.VANISHING: (
        "The first layer's gradient is {gradient_ratio:.1g} of the last one's: it vanishes on its way back",
        "use normalisation, skip connections or fewer layers, and ReLU where there is a sigmoid or tanh",
    ),
    Cause.NOTHING_TO_LEARN: (
        "The steps are large enough, yet the loss stays at that of {reference}: labels unrelated to the inputs",
        "check that inputs and labels belong together",
    ),
    Cause.BELOW_BASELINE: (
        "It trains, but no better than a linear model on the same inputs",
        "look for a better learning rate, then for a better network",
    ),
    Cause.LOW_CAPACITY: (
        "A wider network, tried beside it, does better at the same learning rates",
        "give the network more units or layers",
    ),
    Cause.OVERFITTING: (
        "It overfits: the validation loss was lowest in epoch {turned_epoch}, and is now {validation_ratio:.3g} times "
        "the training loss",
        "stop at that epoch, or use more data or regularisation",
    ),
    Cause.HEALTHY: ("Training is healthy", ""),
    Cause.UNSURE: ("Either {first} or {second}: the signals are too close to their thresholds to tell", "{remedy}"),
}
"""What the terminal says, and what to do about it."""


MEMORISED = (
    "It overfits: the training samples are learned by heart (loss {loss_ratio:.1g} times that of {reference}), and the "
    "validation loss is {validation_ratio:.3g} times the training loss",
    "use more data or regularisation",
)
"""The same for overfitting whose validation loss has not risen: it stopped falling, and the training loss went on."""


TRIED = {
    Cause.TOO_HIGH: "The learning rate is too high: lower ones, tried beside it, do better",
    Cause.TOO_LOW: "The learning rate is too low: higher ones, tried beside it, do better",
    Cause.BAD_SCALE: "Other initial weights, or inputs of another scale, tried beside it, do better at the same rates",
    Cause.VANISHING: "Other activations, tried beside it, do better at the same learning rates",
}
"""The same where what the sentence would say was not measured, as of a module that ended or whose reference is unknown:
then a trial has found the cause."""


EARLIEST = 100
"""Steps before which most rules accuse nobody: a healthy loss may still be above chance, its path still straight."""


STALLS = frozenset(Cause) - {Cause.HEALTHY, Cause.UNSURE, Cause.OVERFITTING, Cause.LOW_CAPACITY, Cause.BELOW_BASELINE}


def describe(cause: Cause, signals: Signals, candidates: tuple[Cause, ...] = ()) -> tuple[str, str]:
    """Return one sentence on what happened, and the remedy as a clause."""
    values: dict[str, Any] = {
        name: math.nan if value is None else value for name, value in dataclasses.asdict(signals).items()
    }
    values["validation_ratio"] = math.nan if signals.validation_ratio is None else signals.validation_ratio
    values["reference"] = "the first batch" if signals.baseline is None else "the best constant prediction"
    if candidates:
        values["first"], values["second"] = (candidate.value for candidate in candidates)
        values["remedy"] = "; or ".join(EXPLANATIONS[c][1] for c in candidates if c != Cause.HEALTHY)
    sentence, remedy = EXPLANATIONS[cause]
    if cause == Cause.OVERFITTING and signals.turned_epoch is None:
        sentence, remedy = MEMORISED
    if cause == Cause.HEALTHY and signals.step < EARLIEST:
        sentence = "Nothing wrong shows in the first {step} steps, which are too few to tell"
    if cause in TRIED and any(values[name] != values[name] for name in re.findall(r"{(\w+)", sentence)):
        sentence = TRIED[cause]
        if cause == Cause.TOO_HIGH and signals.non_finite_step is not None:
            sentence = "The learning rate is too high: the loss was no longer finite at batch {non_finite_step}"
    return sentence.format(**values), remedy.format(**values)
