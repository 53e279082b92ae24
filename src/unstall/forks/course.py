"""What shows of a run when its batches are looked at one after another, and its settings step by step."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from unstall.audit import Observation, tensors_in
from unstall.causes import Course
from unstall.forks.subject import Subject
from unstall.trials import Variant, in_fit, inputs_of
from unstall.watch import TargetCounts

LOOK_AHEAD = 10_000
"""Steps of a schedule that are looked at."""

LOOKED_AT = 10_000
"""Inputs of a batch that are looked at."""


def course_of(subject: Subject, seen: Observation, batches: Sequence[Any]) -> Course:
    """Return what the batches show when they are looked at one after another, and what the settings come to."""
    counts, not_finite = TargetCounts(), 0
    reference = seen.reference
    counts.kind = None if reference is None else reference.kind
    for batch in batches:
        targets = None if reference is None or reference.kind == "squares" else reference.targets(batch)
        if targets is not None:
            counts.after_batch(targets)
        floating = [part for part in tensors_in(batch) if part.is_floating_point()]
        not_finite = max(not_finite, sum(part.numel() - int(part.isfinite().sum()) for part in floating))
    counts.flush()
    counts.class_weights = () if reference is None else reference.weights
    rates, decay = _rates(subject)
    return Course(
        rate=rates[0],
        rate_share=fmean(rates[1:]) / rates[0] if rates[0] and len(rates) > 1 else None,
        last_rate=rates[-1],
        decay=decay,
        size_share=_size_share(subject) if decay else None,
        label_spread=counts.label_spread(),
        commonest=counts.commonest,
        not_finite=not_finite,
        inputs=_scales(batches, subject.as_seen(subject.held_out)),
    )


def _scales(*samples: Sequence[Any]) -> tuple[float, float, float, float] | None:
    """Return mean and standard deviation of the inputs of training and held-out batches; None if they have none."""
    known = [[inputs.flatten() for batch in part if (inputs := inputs_of(batch)) is not None] for part in samples]
    if not all(known):
        return None
    training, held_out = (torch.cat([each[:LOOKED_AT].float() for each in part]) for part in known)
    return float(training.mean()), float(training.std()), float(held_out.mean()), float(held_out.std())


def _rates(subject: Subject) -> tuple[list[float], float]:
    """Return the configured rate and that of each step, without a step of training; and the largest weight decay."""
    how = subject.module, Variant(), subject.options, subject.where, subject.trainer
    with in_fit(*how) as lane, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a schedule that moves on without a step of its optimizer
        optimization = lane.optimization
        groups, rates = optimization.optimizer.param_groups, [optimization.learning_rate]
        for step in range(int(min(subject.horizon, LOOK_AHEAD))):
            rates.append(float(groups[0]["lr"]))
            optimization.move_schedules(step + 1)
    return rates, max(float(group.get("weight_decay", 0.0)) for group in groups)


def _size_share(subject: Subject) -> float | None:
    """Return the norm of the unchanged copy's weights at its end over that at the start; None if it diverged."""
    if subject.control.state is None:
        return None
    before, after = subject.module.state_dict(), subject.control.state.weights
    names = [name for name, _ in subject.module.named_parameters() if name in after]
    norms = [torch.nn.utils.get_total_norm([state[name].abs().float() for name in names]) for state in (before, after)]
    return float(norms[1] / norms[0]) if norms[0] else None
