"""The run under examination: what it comes to unchanged, and copies that are trained to be compared with that.

Every copy trains on the same batches as the others and from the same start (`unstall.trials.race`), so that their
losses differ by the one change alone.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from unstall.audit import Observation, observe
from unstall.errors import UsageError
from unstall.find import Config
from unstall.forks.legs import Legs, small
from unstall.forks.tried import Fork
from unstall.trials import (
    Judge,
    Outcome,
    Score,
    State,
    StepOptions,
    Variant,
    blank,
    find_targets,
    in_fit,
    put_back,
    race,
    samples_in,
    scale_of_inputs,
    scaled,
    unchanged_random_state,
    with_inputs,
)
from unstall.watch import Cause, Meter, Signals

DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
"""Losses of torch that are zero where the prediction is the target, and nowhere less."""
GLANCE = 20
"""Steps before which no rate is dropped: by then it shows which ones blow up."""


def screening_steps(batch_size: int) -> int:
    """Return the steps of a screening fork: 80 at batch 128, for others as the square root, between 28 and 400.

    The noise of a mean gradient falls with the square root of the batch size; 80 steps at batch 128 tell the decades
    of learning rates apart (`benchmarks/diagnosis.py forks`).
    """
    return max(28, min(400, round(80 * math.sqrt(128 / max(1, batch_size)))))


# Over 150 lines, because each measurement of a run is kept beside what it is made of.
@dataclasses.dataclass(frozen=True)
class Subject:
    """What `fork` is given, with the record of what was tried on it. Each measurement is made when first asked for."""

    module: pl.LightningModule
    batches: Sequence[Any]
    held_out: Sequence[Any]
    known_signals: Signals | None = None
    start: State | None = None
    config: Config = dataclasses.field(default_factory=dict)
    options: StepOptions = dataclasses.field(default_factory=StepOptions)
    device: torch.device | None = None
    trainer: pl.Trainer | None = None
    horizon: float = math.inf
    forks: list[Fork] = dataclasses.field(default_factory=list)

    @property
    def where(self) -> torch.device:
        """Where to train."""
        return self.device or self.module.device

    @property
    def _how(self) -> dict[str, Any]:
        return {"options": self.options, "device": self.device, "trainer": self.trainer}

    @property
    def batch_size(self) -> int:
        """Samples per optimizer step."""
        return self.options.accumulate_grad_batches * samples_in(self.batches[0])

    @property
    def glance(self) -> int:
        """Optimizer steps after which the rates furthest behind drop out of a screening."""
        return min(self.short, max(GLANCE, self.short // 4))

    @property
    def short(self) -> int:
        """Optimizer steps of a screening."""
        return self._screenings(1)

    @property
    def long(self) -> int:
        """Optimizer steps of a comparison with the run."""
        return self._screenings(4)

    @property
    def lengths(self) -> list[int]:
        """Optimizer steps at which the rates of a race are compared: of a screening, twice that, and the whole."""
        return sorted({self.short, min(2 * self.short, self.long), self.long})

    @cached_property
    def rate(self) -> float:
        """The configured learning rate of the first parameter group that has one."""
        with in_fit(self.module, Variant(), self.options, self.where, self.trainer) as lane:
            return lane.optimization.learning_rate

    @cached_property
    def own(self) -> Legs:
        """The run's own module, at its learning rate and at others."""

        def leg(variants: Sequence[Variant], first: int, last: int) -> list[Outcome]:
            keep = last == self.long or small(self.module)
            return race(self.module, variants, self.training(last, first), self.held_out, keep_state=keep, **self._how)

        return Legs(leg)

    @cached_property
    def control(self) -> Outcome:
        """The unchanged copy; on its way the steps with which shorter trials are compared."""
        for steps in (self.glance, self.short) if small(self.module) else ():
            self.own.at([None], steps)
        return self.own.at([None], self.long)[0]

    @cached_property
    def signals(self) -> Signals:
        """What is known of the run, or else what its first step and the losses of the unchanged copy show."""
        return dataclasses.replace(self.known_signals or _measure(self), batch_size=self.batch_size)

    @cached_property
    def observation(self) -> Observation | None:
        """What one step on the first batch shows; None if it cannot be made on a copy."""
        return _observed(self, self.first_batch)

    @cached_property
    def inputs_alone(self) -> bool:
        """Whether inputs can be changed, and what the loss compares with then stays: not so in an autoencoder."""
        if scale_of_inputs(self.first_batch) is None:
            return False
        # Which counts are zero does not change with their scale, but from sample to sample.
        changed = scaled(self.first_batch, 0.5), with_inputs(self.first_batch, lambda inputs: inputs.roll(1, 0))
        observed = self.observation, *(_observed(self, batch) for batch in changed)
        targets = [seen.comparison.target for seen in observed if seen is not None and seen.comparison is not None]
        return len(targets) == len(observed) and all(torch.equal(targets[0], target) for target in targets)

    @cached_property
    def judge(self) -> Judge:
        """The judge of whatever is held to the same batches."""
        reference = self.signals.baseline or _loss_of_constant(self)
        return Judge.over(self.held_out, reference, down_to_zero=_down_to_zero(self))

    @cached_property
    def standing(self) -> Score | None:
        """What the run comes to as it stands; None if it has not been trained."""
        return None if self.start is None else self.scores([Variant(start=State(self.start.weights))], 0)[0]

    @cached_property
    def score(self) -> Score:
        """What the run comes to unchanged: from its start, or as it stands if that is better."""
        return self.judge.better_of(Score.of(self.control), self.standing or Score(math.inf))

    @cached_property
    def first_batch(self) -> Any:
        """The first batch as the network sees it."""
        return self.as_seen(self.batches[:1])[0]

    def as_seen(self, batches: Sequence[Any], module: pl.LightningModule | None = None) -> list[Any]:
        """Return batches as the network sees them, or as another module does: a transfer hook may scale them."""
        module, device = module or self.module, self.where
        before = [module.on_before_batch_transfer(batch, 0) for batch in batches]
        moved = [module.transfer_batch_to_device(batch, device, 0) for batch in before]
        return [module.on_after_batch_transfer(batch, 0) for batch in moved]

    def race(
        self,
        variants: Sequence[Variant],
        batches: Sequence[Any],
        held_out: Sequence[Any] = (),
        module: pl.LightningModule | None = None,
        keep_state: bool = False,
        options: StepOptions | None = None,
    ) -> list[Outcome]:
        """Race variants of the module, or of another in its place, as the run's trainer would train them.

        A change that the module does not survive, such as inputs that it refuses, counts as divergence.
        """
        how = self._how | {"options": options or self.options, "keep_state": keep_state}
        try:
            return race(module or self.module, variants, batches, held_out, **how)
        except Exception as error:
            if (isinstance(error, UsageError) and module is None) or any(variant.start for variant in variants):
                raise
            _ = self.control  # what fails without a change, too, is raised there
            return [Outcome(variant, [], [], {}, finite=False) for variant in variants]

    def scores(
        self,
        variants: Sequence[Variant],
        steps: int,
        module: pl.LightningModule | None = None,
        transform: Callable[[Any], Any] = lambda batch: batch,
    ) -> list[Score]:
        """Race variants on the run's first batches; `transform` is what is done to each, held out or not."""
        training = [transform(batch) for batch in self.training(steps)]
        held_out = [transform(batch) for batch in self.held_out]
        return [Score.of(outcome) for outcome in self.race(variants, training, held_out, module)]

    def is_own(self, rate: float) -> bool:
        """Return whether a learning rate is the configured one, or as good as."""
        return 0.9 < rate / self.rate < 1.1

    def note(
        self,
        change: str,
        before: Score,
        after: Score,
        overlay: dict[str, Any] | None = None,
        cause: Cause = Cause.UNSURE,
        learning_rate: float | None = None,
    ) -> Fork:
        """Add a fork to the record, judged; the arguments are those of `Fork`."""
        helps, mends = self.judge.helps(before, after), self.judge.mends(before, after)
        self.forks.append(Fork(change, before, after, overlay, cause, helps, mends, None, learning_rate))
        return self.forks[-1]

    def _screenings(self, count: int) -> int:
        available = max(1, len(self.batches) // self.options.accumulate_grad_batches)
        return min(count * screening_steps(self.batch_size), available)

    def training(self, steps: int, first: int = 0) -> Sequence[Any]:
        """Return the training batches up to a step, from the first one on or from another."""
        each = self.options.accumulate_grad_batches
        return self.batches[first * each : steps * each]


def _observed(subject: Subject, batch: Any) -> Observation | None:
    with in_fit(subject.module, Variant(), subject.options, subject.where, subject.trainer) as lane:
        try:
            return observe(lane.module, batch, [lane.optimization.optimizer], subject.trainer)
        except Exception:  # a step that does not work on a copy: nothing is known of it
            return None


def _down_to_zero(subject: Subject) -> bool:
    """Return whether zero is the least that the loss can be, as far as is known."""
    seen = subject.observation
    if any(loss < 0 for loss in subject.control.losses):
        return False
    if seen is None or seen.reference is not None:
        return True
    return seen.comparison is not None and seen.comparison.loss in DISTANCES and not seen.comparison.computed


def _loss_of_constant(subject: Subject) -> float:
    """Return what the network reaches without any input, the best constant prediction; else the loss at its start."""
    losses: list[float] = []
    if subject.inputs_alone:
        variants = [Variant(learning_rate=rate) for rate in (subject.rate, 1e-3, 1e-1)]
        losses = [score.loss for score in subject.scores(variants, subject.short, transform=blank)]
    return min([loss for loss in losses if math.isfinite(loss)] or subject.control.losses[:1] or [math.inf])


def _measure(subject: Subject) -> Signals:
    """Return the signals of a first step, and what the losses of the unchanged copy add to them."""
    control, seen = subject.control, subject.observation
    reference = None if seen is None else seen.reference

    def targets_of(batch: Any) -> Tensor | None:
        where_compared = find_targets if seen is None else None if reference is None else reference.targets
        targets = None if where_compared is None else where_compared(batch)
        return None if targets is None else targets.cpu()  # the first batch may be on a device, the others here

    random, learning = unchanged_random_state(), torch.enable_grad()
    how = Variant(), subject.options, subject.where, subject.trainer
    with random, learning, in_fit(subject.module, *how) as lane:
        meter = Meter(lane.module)
        if reference is not None:
            meter.losses.targets.kind, meter.losses.targets.class_weights = reference.kind, reference.weights
        loss = lane.loss(subject.batches[0])
        if loss is not None:
            torch.autograd.backward(loss)
            meter.before_step()
            meter.after_batch(loss.detach().cpu(), targets_of(subject.first_batch))
        for step_loss, batch in zip(control.losses[1:], subject.batches[1:], strict=False):
            meter.after_batch(torch.tensor(step_loss), targets_of(batch), stepped=False)
        if not control.finite:
            meter.after_batch(torch.tensor(math.nan))
        if control.state is not None:
            put_back(lane.module, control.state.weights)
        signals = meter.read()
    move = None if control.state is None else signals.move
    return dataclasses.replace(signals, step=len(control.losses), move=move)
