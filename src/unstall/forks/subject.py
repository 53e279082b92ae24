"""The run under examination: what it comes to unchanged, and copies that are trained to be compared with that.

Every copy trains on the same batches as the others and from the same start (`unstall.trials.race`), so that their
losses differ by the one change alone.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from unstall.find import Config
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
    learning_rate_of,
    race,
    samples_in,
    unchanged_random_state,
)
from unstall.watch import Cause, Meter, Signals


def screening_steps(batch_size: int) -> int:
    """Return the steps of a screening fork: 80 at batch 128, for others as the square root, between 28 and 400.

    The noise of a mean gradient falls with the square root of the batch size; 80 steps at batch 128 tell the decades
    of learning rates apart (`benchmarks/diagnosis.py forks`).
    """
    return max(28, min(400, round(80 * math.sqrt(128 / max(1, batch_size)))))


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
    forks: list[Fork] = dataclasses.field(default_factory=list)

    @property
    def batch_size(self) -> int:
        """Samples per optimizer step."""
        return self.options.accumulate_grad_batches * samples_in(self.batches[0])

    @property
    def short(self) -> int:
        """Optimizer steps of a screening."""
        return self._screenings(1)

    @property
    def long(self) -> int:
        """Optimizer steps of a comparison with the run."""
        return self._screenings(4)

    @cached_property
    def rate(self) -> float:
        """The configured learning rate of the first parameter group that has one."""
        state = self.race([Variant()], [], keep_state=True)[0].state
        assert state is not None
        assert state.optimizer is not None
        return learning_rate_of(state.optimizer["param_groups"], state.schedulers)

    @cached_property
    def control(self) -> Outcome:
        """The unchanged copy."""
        return self.race([Variant()], self.training(self.long), self.held_out)[0]

    @cached_property
    def signals(self) -> Signals:
        """What is known of the run, or else what its first step and the losses of the unchanged copy show."""
        return self.known_signals or _measure(self)

    @cached_property
    def judge(self) -> Judge:
        """The judge of whatever is held to the same batches."""
        return Judge.over(self.held_out, self.signals.baseline or self._loss_of_constant())

    @cached_property
    def score(self) -> Score:
        """What the run comes to unchanged: from its start, or as it stands if that is better."""
        standing = [] if self.start is None else self.scores([Variant(start=State(self.start.weights))], 0)
        return self.judge.better_of(Score.of(self.control), *standing)

    @cached_property
    def first_batch(self) -> Any:
        """The first batch as the network sees it."""
        return self.as_seen(self.batches[:1])[0]

    def as_seen(self, batches: Sequence[Any]) -> list[Any]:
        """Return batches as the network sees them: a transfer hook may scale them."""
        module, device = self.module, self.device or self.module.device
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
        """Race variants of the module, or of another in its place, as the run's trainer would train them."""
        how: dict[str, Any] = {"options": options or self.options, "device": self.device, "trainer": self.trainer}
        return race(module or self.module, variants, batches, held_out, keep_state=keep_state, **how)

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

    def training(self, steps: int) -> Sequence[Any]:
        """Return the training batches of so many steps."""
        return self.batches[: steps * self.options.accumulate_grad_batches]

    def _loss_of_constant(self) -> float:
        """Return what the network reaches when it sees no input: the best constant prediction, for any loss."""
        variants = [Variant(learning_rate=rate) for rate in (self.rate, 1e-3, 1e-1)]
        return min(score.loss for score in self.scores(variants, self.short, transform=blank))


def _measure(subject: Subject) -> Signals:
    """Return the signals of a first step, and what the losses of the unchanged copy add to them."""
    control = subject.control
    module = copy.deepcopy(subject.module).to(subject.device or subject.module.device)
    module.trainer = subject.trainer
    for part in module.modules():
        if isinstance(part, pl.LightningModule):
            part.log = lambda *_, **__: None  # type: ignore[method-assign] # there is nowhere to log to
    meter = Meter(module.train())
    batch = subject.first_batch
    with unchanged_random_state(), torch.enable_grad():
        output = module.training_step(batch, 0)
        loss = output["loss"] if isinstance(output, Mapping) else output
        assert isinstance(loss, Tensor)  # the control has just trained with it
        torch.autograd.backward(loss)
    meter.before_step()
    meter.after_batch(loss, find_targets(batch))
    for step_loss, batch in zip(control.losses[1:], subject.batches[1:], strict=False):
        meter.after_batch(torch.tensor(step_loss), find_targets(batch), stepped=False)
    if not control.finite:
        meter.after_batch(torch.tensor(math.nan))
    return dataclasses.replace(meter.read(), step=len(control.losses), move=None)
