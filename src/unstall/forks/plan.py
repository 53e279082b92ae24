"""Which trials a run is worth, and in which order: each changes one thing, trains on, and compares.

report = fork(module, batches, held_out, signals=signals, start=state)
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl
import torch

from unstall.causes import Finding
from unstall.errors import UsageError
from unstall.forks.baselines import fits_few_samples, try_linear_model
from unstall.forks.changes import Config
from unstall.forks.examination import Examination, accuse, examine, suspect
from unstall.forks.remedies import try_in_place, try_larger_batch, try_rates
from unstall.forks.resorts import resort
from unstall.forks.subject import Subject
from unstall.forks.suspects import Rebuild, try_suspects
from unstall.forks.tried import Findings, Report
from unstall.forks.verdict import conclude
from unstall.trials import State, StepOptions, check_optimization
from unstall.watch import Signals


def fork(
    module: pl.LightningModule,
    batches: Sequence[Any],
    held_out: Sequence[Any],
    *,
    signals: Signals | None = None,
    start: State | None = None,
    config: Config | None = None,
    rebuild: Rebuild | None = None,
    options: StepOptions | None = None,
    device: torch.device | None = None,
    trainer: pl.Trainer | None = None,
    horizon: float = math.inf,
    findings: Sequence[Finding] = (),
) -> Report:
    """Find out by trial what holds a run back. Nothing that is given is changed.

    Args:
        module: The run's module at its initial weights.
        batches: Training batches in the run's order: four times `screening_steps(batch size)`, but no more than the
            whole run makes, since which rate is best depends on the number of steps.
        held_out: Batches that are not trained on.
        signals: What the run's own callback measured; without them less is known about units and gradients.
        start: Where the run stands, from its checkpoint; without it forks start from the initial weights only.
        config: The run's resolved configuration, in which settings are looked up by their usual names.
        rebuild: Builds the module at its initial weights from the configuration with an overlay.
        options: How a step is made, as in the run's trainer.
        device: Where to train; where the module is, if None.
        trainer: What `self.trainer` is to the module meanwhile.
        horizon: Optimizer steps of the whole run; infinite if nobody knows.
        findings: Faults that the run's own callback has found.

    Raises:
        UsageError: for manual optimization, several optimizers, or too few batches.
    """
    check_optimization(module)
    if len(batches) < 4 or not held_out:
        raise UsageError(f"batches={len(batches)}, held_out={len(held_out)}: give at least 4 to train on and 1 to test")
    subject = Subject(
        module, batches, held_out, signals, start, config or {}, options or StepOptions(), device, trainer, horizon
    )
    examined = examine(subject, findings)
    return accuse(examined) or resort(examined, suspect(examined, _try_all(examined, rebuild)))


def _try_all(examined: Examination, rebuild: Rebuild | None) -> Report:
    """Try what may help any run: other rates, a larger batch, another start; and what it should reach at least."""
    subject = examined.subject
    measured = subject.signals, subject.judge, subject.score
    rate, rates = try_rates(subject)
    findings = Findings(*measured, rate, try_larger_batch(subject), standing=subject.standing)
    try_in_place(subject, rate)
    best = findings.best
    if not findings.stuck and best.loss > 0.3 * findings.judge.reference:
        findings = replace(findings, linear=try_linear_model(subject, best))
    if findings.stuck or findings.below_linear or findings.badly_scaled or findings.dead_at_start:
        findings = replace(findings, suspect=try_suspects(subject, findings, rates, rebuild, examined.task))
    if findings.stuck:
        findings = replace(findings, fits_few=fits_few_samples(subject, rates))
    return conclude(findings, subject.forks)
