"""What nothing shows and a trial finds: a loss, inputs or an optimizer in whose place another does far better."""

from __future__ import annotations

from typing import Any

from unstall.causes.cause import Fault, Shown


def by_trial(seen: Any) -> Shown:
    """Nothing shows; the copy that is mended so leaves at most half of the error of the best learning rate."""
    return None


def as_it_stands(seen: Any) -> Shown:
    """Nothing shows; on held-out samples the training step returns less than half of what validation logs."""
    return None


TRIED_FAULTS = (
    Fault(
        "last activation and loss do not fit the targets",
        by_trial,
        "At no learning rate does it come to what the same network does with {change}",
        "let the loss have the last layer's output as it is, and take the one that the targets ask for",
        "F.cross_entropy(logits, labels)",
        mend="output",
    ),
    Fault(
        "inputs on a scale that hinders",
        by_trial,
        "At no learning rate does it come to what it does with {change}",
        "standardise them with the mean and standard deviation of the training set",
        "inputs = (inputs - mean) / std",
        mend="inputs",
    ),
    Fault(
        "an optimizer that does not suit",
        by_trial,
        "At no learning rate does it come to what it does with {change}",
        "take that one",
        "torch.optim.Adam(self.parameters(), lr=1e-3)",
        mend="optimizer",
    ),
    Fault(
        "too few epochs",
        by_trial,
        "It ended too early: it does far better with {change}",
        "train for more epochs",
        mend="longer",
    ),
    Fault(
        "validation that measures something else",
        as_it_stands,
        "Validation logs a loss of {logged:.3g}, where the training step returns {returned:.3g} for held-out samples",
        "compute both losses with the same function, and see which terms only one of them has",
    ),
)
