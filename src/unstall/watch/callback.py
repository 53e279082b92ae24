"""The callback that watches a run: signals to TensorBoard, and a verdict as soon as there is one."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn

from unstall.audit import Observation, observe
from unstall.causes import COURSE_FAULTS, FAULTS, Fault, Finding, find
from unstall.errors import UsageError
from unstall.runs import GLANCE, as_json, draw_over_epochs, log_dir, logged_as, write_json
from unstall.trials import find_targets
from unstall.watch.causes import EARLIEST, Cause
from unstall.watch.conclusion import by_hand, conclude, on_few_batches
from unstall.watch.course import CourseRecord
from unstall.watch.meter import Meter
from unstall.watch.rules import Verdict, hopeless, name_cause
from unstall.watch.signals import Signals, at_a_glance
from unstall.watch.trainers import clip_norm, has_more_than, is_last_epoch, is_rehearsal

LARGEST = 2**31
"""Bytes of weights and buffers of which a copy is made before the first step; a larger module is not observed."""

EARLY_READINGS = 25, 50
"""Steps at which signals are read besides the regular ones: a blow-up shows by then (`docs/diagnosis.md`)."""


# Over 150 lines, because the hooks of a callback are its methods.
class Diagnosis(Callback):
    """Says why a run stalls, while it trains: under `verdict/` in TensorBoard, and in `diagnosis.json`.

    Works for any LightningModule with automatic optimization, and without a logger. Before the first step a copy of the
    module makes one on the first batch, and what is put together wrong is said at once. From then on it costs a look at
    the weights every 20 steps, and at the end two forward passes of a copy: in training and in evaluation mode. A
    healthy run gets one line at its end. Of a module that steps its optimizers itself the first step is looked at, and
    the order of gradients and steps: what is wrong for certain is said, and nothing else.

    Args:
        monitor: Name of the logged validation loss; `val_loss` and its like are found, too.
        every_n_steps: Batches between two readings of the signals.
        stop_hopeless: Stop a run that will not recover by itself.

    Raises:
        UsageError: if `every_n_steps` is not positive.
    """

    def __init__(self, monitor: str = "val/loss", every_n_steps: int = 100, stop_hopeless: bool = False) -> None:
        if every_n_steps < 1:
            raise UsageError(f"every_n_steps={every_n_steps}: give a positive number of batches, such as 100")
        self.monitor, self.every_n_steps, self.stop_hopeless = monitor, every_n_steps, stop_hopeless
        self.meter: Meter | None = None
        self.verdict: Verdict | None = None
        self.stopped = False
        self._state: dict[str, Any] | None = None
        self.course: CourseRecord | None = None
        self.observation: Observation | None = None
        self.audited: list[Finding] = []
        self.findings: list[Finding] = []
        self._suspicion: Cause | Fault | None = None
        self._announced: Cause | Fault | None = None
        self._batches = 0
        self._stepped = self._looked = False
        self._ended = self._drawn = -1

    @property
    def constant_loss(self) -> float | None:
        """What the best constant prediction of numbers comes to, as far as they were seen; None of other targets."""
        if self.meter is None or self.meter.losses.targets.kind not in ("binary", "squares"):
            return None
        self.meter.losses.targets.flush()
        return self.meter.losses.targets.baseline

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and tensors: the checkpoint loads with `weights_only=True`."""
        return {} if self.meter is None else self.meter.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts, when the weights are on their device."""
        self._state = state_dict or None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the initial weights."""
        self.verdict = self._suspicion = self._announced = None
        self.stopped = False
        self._batches, self._stepped, self._looked, self._ended, self._drawn = 0, False, False, -1, -1
        self.observation, self.audited, self.findings = None, [], []
        if self.meter is not None:
            self.meter.watch.stop()
        self.meter = self.course = None
        self._begin(trainer, pl_module)

    def _begin(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the initial weights, if there are any that one optimizer holds: lazy layers have none before a batch."""
        groups = trainer.optimizers[0].param_groups if len(trainer.optimizers) == 1 else []
        if not groups or _is_lazy(pl_module) or not any(weight.requires_grad for weight in pl_module.parameters()):
            return
        self.course = CourseRecord(trainer.optimizers[0], clip_norm(trainer), trainer.max_epochs)
        if not pl_module.automatic_optimization:  # which loss makes which step is not known
            return
        momentum = float(groups[0].get("momentum") or groups[0].get("betas", (0.0,))[0])
        self.meter = Meter(pl_module, momentum=momentum)
        if self._state is not None:
            self.meter.load_state_dict(self._state)
            self._state = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Before the first step, see whether the module is put together right."""
        if self._looked or self._batches or (self.meter is None and pl_module.automatic_optimization):
            return
        self._looked = True
        held = (*pl_module.parameters(), *pl_module.buffers())
        if _is_lazy(pl_module) or sum(tensor.nbytes for tensor in held) > LARGEST:
            return
        try:
            self.observation = observe(pl_module, batch, trainer.optimizers, trainer)
        except Exception:  # a step that does not work on a copy: nothing is said of it
            self.observation = None
            return
        self.audited = find(FAULTS, self.observation)
        reference = self.observation.reference
        if reference is not None and self.meter is not None:
            targets = self.meter.losses.targets
            targets.kind, targets.class_weights = reference.kind, reference.weights
        for finding in self.audited:
            if finding.fault.certain and (not is_rehearsal(trainer) or vars(trainer).get("fast_dev_run")):
                pl_module.print(f"Before the first step: {finding.where}; {finding.change}.")

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Look for gradients that are still there."""
        if self.course is None:
            self._begin(trainer, pl_module)
        if self.course is not None:
            self.course.before_backward(trainer.accumulate_grad_batches)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Note the weights before a step."""
        if self.meter is not None:
            self.meter.before_step()
            self._stepped = True
        if self.course is not None:
            self.course.before_step(self.meter is not None and self.meter.path.looking)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the loss; now and then read, log and judge."""
        if self.meter is None or self.course is None:
            return
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            self.course.skipped += 1
            return
        if trainer.accumulate_grad_batches > 1:
            loss = loss * trainer.accumulate_grad_batches  # Lightning hands out the loss divided by it
        targets = None if self.meter.losses.targets.complete else self._targets(batch)
        self.meter.after_batch(loss, targets, stepped=self._stepped)
        self.course.after_batch(batch, self.meter.losses.non_finite_step is not None)
        self._stepped = False
        self._batches += 1
        if self._batches % self.every_n_steps == 0 or self._batches in EARLY_READINGS:
            self._judge(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the validation loss beside the training loss since the last one."""
        name = logged_as(self.monitor, trainer.callback_metrics)
        if self.meter is None or trainer.sanity_checking or name is None:
            return
        self.meter.end_epoch()
        self.meter.validated(float(trainer.callback_metrics[name]), trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """In the last epoch, give the verdict before its checkpoint: a process that is killed then has written it."""
        if self.meter is not None and not is_rehearsal(trainer):
            curves = at_a_glance(self._read(trainer)).items()
            draw_over_epochs(trainer, {f"{GLANCE}/{name}": value for name, value in curves})
        if is_last_epoch(trainer):
            self._end(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the verdict, if that was not known for the last epoch."""
        if self.meter is not None:
            self.meter.watch.stop()
        if self._ended != trainer.global_step:
            self._end(trainer, pl_module)

    def _end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the verdict in one line, as text in TensorBoard and as `diagnosis.json`."""
        self._ended = trainer.global_step
        if self.meter is None:
            self._end_by_hand(trainer, pl_module)
            return
        signals = self._read(trainer)
        if self.course is not None and self.observation is not None and signals.step >= EARLIEST:
            self.course.end(trainer, pl_module)
        self.verdict = self._conclude(trainer, signals, ended=True)
        if is_rehearsal(trainer):
            return
        if self.verdict.cause != self._announced or self.verdict.cause == Cause.HEALTHY:
            _announce(pl_module, self.verdict)
        _keep(trainer, self.verdict, signals, self.findings)

    def _end_by_hand(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Name what is wrong for certain with a run whose module steps its optimizer itself, and nothing else."""
        course = [] if self.course is None else find(COURSE_FAULTS, self.course.read(None, None, True, ended=True))
        self.findings = [finding for finding in (*self.audited, *course) if finding.fault.certain]
        if self.findings and not is_rehearsal(trainer):
            self.verdict = by_hand(self.findings[0], trainer.global_step)
            _announce(pl_module, self.verdict)
            _keep(trainer, self.verdict, None, self.findings)

    def _judge(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        signals = self._read(trainer)
        verdict = self._conclude(trainer, signals)
        if not is_rehearsal(trainer) and self._drawn != trainer.global_step:  # a step may be of many batches
            self._drawn = trainer.global_step
            values = {
                f"verdict/{name}": float(value)
                for name, value in dataclasses.asdict(signals).items()
                if name != "step" and value is not None and math.isfinite(value)
            }
            for logger in trainer.loggers:
                logger.log_metrics(values, step=trainer.global_step)
        # One reading may be chance: two in a row must agree.
        certain = verdict.stalled and verdict.cause == self._suspicion
        self._suspicion = verdict.cause
        if certain and self._announced is None and not is_rehearsal(trainer):
            self._announced = verdict.cause
            _announce(pl_module, verdict)
            _keep(trainer, verdict, signals, self.findings)
        if self.stop_hopeless:
            stop = certain and hopeless(signals, verdict, trainer.estimated_stepping_batches - trainer.global_step)
            if trainer.strategy.reduce_boolean_decision(stop, all=False):
                self.stopped = trainer.should_stop = True

    def _conclude(self, trainer: pl.Trainer, signals: Signals, ended: bool = False) -> Verdict:
        assert self.meter is not None
        assert self.course is not None
        repeats = not has_more_than(None if self.observation is None else self.observation.samples, trainer)
        course = self.course.read(self.meter.losses, self.meter.path, repeats, ended)
        seen = self.observation
        if seen is not None and not {*seen.parameters} - {*seen.zero_gradient, *seen.without_gradient, *seen.not_held}:
            course = dataclasses.replace(course, zeroed=False)  # the optimizer never had one
        self.findings = sorted([*self.audited, *find(COURSE_FAULTS, course)], key=lambda each: not each.fault.certain)
        verdict = conclude(name_cause(signals), signals, self.findings)
        few = vars(trainer).get("overfit_batches")
        return on_few_batches(verdict, signals, few) if few else verdict

    def _targets(self, batch: Any) -> Tensor | None:
        """Return what the loss compares with, if that was seen; else what looks like it."""
        if self.observation is None:
            return find_targets(batch)
        return None if (reference := self.observation.reference) is None else reference.targets(batch)

    def _read(self, trainer: pl.Trainer) -> Signals:
        assert self.meter is not None
        signals = self.meter.read()
        if signals.batch_size is None:
            return signals
        together = trainer.accumulate_grad_batches * trainer.world_size
        return dataclasses.replace(signals, batch_size=signals.batch_size * together)


def _announce(pl_module: pl.LightningModule, verdict: Verdict) -> None:
    remedy = f"; {verdict.remedy}" if verdict.remedy else ""
    pl_module.print(f"Diagnosis at step {verdict.step}: {verdict.sentence}{remedy}.")


def _keep(trainer: pl.Trainer, verdict: Verdict, signals: Signals | None, findings: Sequence[Finding]) -> None:
    folder = log_dir(trainer)  # a broadcast: on every rank
    if not trainer.is_global_zero or folder is None:
        return
    write_verdict(folder, verdict, signals, findings)
    lines = [f"- {e.signal}: {e.value:.4g} (threshold {e.threshold:.4g})" for e in verdict.evidence]
    text = "\n".join([f"**{verdict.sentence}.** {verdict.remedy}", "", *lines])
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_text("diagnosis", text, verdict.step)
            logger.experiment.flush()


def _is_lazy(pl_module: pl.LightningModule) -> bool:
    return any(map(nn.parameter.is_lazy, (*pl_module.parameters(), *pl_module.buffers())))


def write_verdict(folder: Path, verdict: Verdict, signals: Signals | None, findings: Sequence[Finding] = ()) -> None:
    """Write `diagnosis.json` with the same keys as after forks, which are none yet."""
    found = [{"fault": each.fault, "sentence": each.where, "remedy": each.change} for each in findings]
    content = {**as_json(verdict), "findings": found, "forks": [], "fix": None, "verified": None, "signals": signals}
    write_json(folder / "diagnosis.json", content)
