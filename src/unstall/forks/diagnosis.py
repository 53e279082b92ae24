"""From a module and its data, or from a run's folder, to a report: rehearse the fit, take its batches, fork it."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from unstall.causes import Finding
from unstall.errors import UsageError
from unstall.find import Config, overlay_with_rate, rate_of_fit
from unstall.forks.examination import read_findings
from unstall.forks.plan import fork
from unstall.forks.report import VERDICT, read_signals, show, write_report
from unstall.forks.subject import screening_steps
from unstall.forks.suspects import Rebuild
from unstall.forks.tried import Report
from unstall.forks.verdict import UNTRIED
from unstall.runs import scratch_folder
from unstall.trials import Data, State, rehearse, samples_in, unchanged_random_state
from unstall.watch import Signals, Verdict

HELD_OUT_SAMPLES = 2000
"""Enough for the standard error of an accuracy to stay below one point (binomial, at 90 %: 0.7)."""


def diagnose_module(
    module: pl.LightningModule,
    data: Data = None,
    trainer: pl.Trainer | None = None,
    *,
    signals: Signals | None = None,
    start: State | None = None,
    config: Config | None = None,
    rebuild: Rebuild | None = None,
    findings: Sequence[Finding] = (),
) -> Report:
    """Find out by forks what holds `trainer.fit(module, data)` back. Nothing that is given is changed.

    Args:
        module: At its initial weights.
        data: What `Trainer.fit` takes: a data module; a training loader, or it and a validation loader; None for a
            module with loaders of its own. Where there is nothing to validate on, the first batches are held out.
        trainer: The one that would train: its accumulation, clipping, precision, device and number of steps are taken
            into account. None: Lightning's defaults, on the module's device.
        signals: What the fit's own callback measured; without them less is known about units and gradients.
        start: Where the fit stands, from its checkpoint; without it forks start from the initial weights only.
        config: The resolved configuration, in which settings are looked up by their usual names.
        rebuild: Builds the module at its initial weights from the configuration with an overlay.
        findings: Faults that the fit's own callback has found.

    Raises:
        UsageError: for manual optimization, several optimizers, or too little data.
    """
    with unchanged_random_state(), scratch_folder() as scratch:

        def rebuilt(overlay: dict[str, Any]) -> pl.LightningModule:
            assert rebuild is not None
            return rehearse(rebuild(overlay), data, trainer, scratch).module

        def rate_with(overlay: Config) -> float:
            assert rebuild is not None
            return rate_of_fit(rebuild(dict(overlay)), data, trainer)

        rehearsal = rehearse(module, data, trainer, scratch)
        accumulate = rehearsal.options.accumulate_grad_batches
        first, batches = next(rehearsal.batches()), rehearsal.batches()
        size = accumulate * samples_in(first)
        held_out = rehearsal.held_out(first, batches, HELD_OUT_SAMPLES)
        steps = int(min(4 * screening_steps(size), rehearsal.horizon))
        report = fork(
            rehearsal.module,
            list(itertools.islice(batches, steps * accumulate)),
            held_out,
            signals=signals,
            start=start,
            config=config,
            rebuild=None if rebuild is None else rebuilt,
            options=rehearsal.options,
            trainer=rehearsal.trainer,
            horizon=rehearsal.horizon,
            findings=findings,
        )
        fix = report.fix
        if config is None or rebuild is None or fix is None or fix.learning_rate is None:
            return report
        overlay = overlay_with_rate(config, fix.learning_rate, rate_with, fix.overlay)
    seen = replace(fix, overlay=overlay)
    return replace(report, fix=seen, forks=tuple(seen if each is fix else each for each in report.forks))


def without_forks(findings: Sequence[Finding], refusal: str, step: int) -> Report:
    """Return the report on a run that cannot be forked, and whose own callback has found what is wrong.

    Args:
        findings: Certain faults, at least one.
        refusal: Why there are no forks.
        step: How far the run came.
    """
    first = findings[0]
    verdict = Verdict(first.fault, UNTRIED, None, (), first.where, first.change, step)
    return Report(verdict, (), None, f"nothing was tried: {refusal}", tuple(findings))


def diagnose_run(
    folder: Path,
    module: pl.LightningModule,
    data: Data,
    trainer: pl.Trainer,
    *,
    config: Config,
    rebuild: Rebuild,
    checkpoint: Mapping[str, Any] | None = None,
) -> Report:
    """Find out by forks what holds the run in `folder` back, and write what was found there.

    Args:
        folder: The run's folder; its `diagnosis.json`, if there is one, holds what the run's callback measured.
        module: The run's module at its initial weights: built from the run's configuration and seed.
        data: The run's data, as for `diagnose_module`.
        trainer: As the run's, without a logger.
        config: The run's resolved configuration.
        rebuild: Builds the module at its initial weights from the configuration with an overlay.
        checkpoint: The run's last checkpoint; None if it has none yet.

    Raises:
        UsageError: for manual optimization, several optimizers or too little data, unless the run's own callback has
            found a certain fault; for a damaged `diagnosis.json`.
    """
    start = None
    if checkpoint is not None:
        optimizers = checkpoint.get("optimizer_states", [])
        start = State(
            checkpoint["state_dict"],
            optimizers[0] if optimizers else None,
            checkpoint.get("lr_schedulers", ()),
            checkpoint.get("global_step", 0),
            checkpoint.get("MixedPrecision", {}),
        )
    signals = read_signals(folder)
    known: dict[str, Any] = {"config": config, "rebuild": rebuild, "findings": read_findings(folder / VERDICT)}
    try:
        report = diagnose_module(module, data, trainer, signals=signals, start=start, **known)
    except UsageError as refusal:
        certain = [finding for finding in known["findings"] if finding.fault.certain]
        if not certain:
            raise
        report = without_forks(certain, str(refusal), 0 if signals is None else signals.step)
    write_report(folder, report, signals)
    show(report, folder)
    return report
