"""Change one thing, train on, compare: what a suspicion is worth, and which remedy works.

    report = fork(module, batches, held_out, signals=signals, start=state)

Every fork trains on the same batches as the others and from the same start (`race.py`), so that their losses differ
by the one change alone.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from unstall.errors import UsageError
from unstall.forks.changes import Config, merged, overlay_of
from unstall.forks.suspects import Rebuild, Suspect, find_suspects
from unstall.forks.tried import Fork, Report
from unstall.trials import (
    HELPS,
    Judge,
    Outcome,
    Score,
    State,
    StepOptions,
    Variant,
    blank,
    check_optimization,
    find_targets,
    first_samples,
    race,
    samples_in,
    unchanged_random_state,
)
from unstall.watch import Cause, Evidence, Meter, Signals, Verdict, describe, name_cause

RATES = tuple(10.0**exponent for exponent in range(-5, 2))
"""An absolute grid: around a rate that is far off, a relative one finds nothing (1e-6 times 1000 still stalls)."""


SMALL_BATCH, SMALL_STEPS = 32, 150
"""Samples that any network with enough capacity and living units learns by heart in so many steps."""


RATE = "optimizer.lr", "lr", "learning_rate"
"""What a model's configuration may call its learning rate."""


def climb(
    rate: float, run: Callable[[list[float]], list[Score]], choose: Callable[[list[Score]], int]
) -> list[tuple[float, Score]]:
    """Race half decades around a rate, and on upwards while the highest is the best: a few steps prefer lower rates.

    The lowest loss is best, too: an accuracy is a matter of luck where the next rate is all that is at stake.

    Args:
        rate: The best of a coarse and short race.
        run: Races rates.
        choose: Says which of them is the best.

    Returns:
        Rates, as a person would type them, and what they came to; the highest first, seven at most.
    """
    rates = [float(f"{rate * 10 ** (half / 2):.2g}") for half in (1, 0, -1, -2)]
    scores = run(rates)
    while len(rates) < 7 and 0 in (choose(scores), min(range(len(scores)), key=lambda i: scores[i].loss)):
        rates = [float(f"{rates[0] * 10**0.5:.2g}"), *rates]
        scores = [*run(rates[:1]), *scores]
    return list(zip(rates, scores, strict=True))


def screening_steps(batch_size: int) -> int:
    """Return the steps of a screening fork: 80 at batch 128, for others as the square root, between 28 and 400.

    The noise of a mean gradient falls with the square root of the batch size; 80 steps at batch 128 tell the decades
    of learning rates apart (`benchmarks/diagnosis.py forks`).
    """
    return max(28, min(400, round(80 * math.sqrt(128 / max(1, batch_size)))))


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

    Raises:
        UsageError: for manual optimization, several optimizers, or too few batches.
    """
    check_optimization(module)
    if len(batches) < 4 or not held_out:
        raise UsageError(f"batches={len(batches)}, held_out={len(held_out)}: give at least 4 to train on and 1 to test")
    trial = _Trial(module, batches, held_out, config or {}, rebuild, start)
    trial.shared = {"options": options or StepOptions(), "device": device, "trainer": trainer}
    return trial.report(signals)


class _Trial:
    """The forks of one run."""

    def __init__(
        self,
        module: pl.LightningModule,
        batches: Sequence[Any],
        held_out: Sequence[Any],
        config: Config,
        rebuild: Rebuild | None,
        start: State | None,
    ) -> None:
        self.module, self.batches, self.held_out = module, batches, held_out
        self.config, self.rebuild, self.start = config, rebuild, start
        self.shared: dict[str, Any] = {}
        self.forks: list[Fork] = []

    def report(self, signals: Signals | None) -> Report:
        accumulate = self.shared["options"].accumulate_grad_batches
        self.batch_size = accumulate * samples_in(self.batches[0])
        steps = max(1, len(self.batches) // accumulate)
        self.short, self.long = (min(count * screening_steps(self.batch_size), steps) for count in (1, 4))
        self.rate = self._configured_rate()
        (control,) = self._race([Variant()], self.long)
        self.signals = signals or self._measure(control)
        self.judge = Judge.over(self.held_out, self.signals.baseline or self._loss_of_constant())
        self.before = self._better_of(Score.of(control), *self._standing())

        suspicion = name_cause(self.signals)
        rate, tried = self._rates()
        batch = self._larger_batch()
        self._in_place()
        best = self._better_of(self.before, rate.after)
        stuck = not self.judge.learned(best)
        linear = self._linear(best) if not stuck and best.loss > 0.3 * self.judge.reference else None
        below_linear = linear is not None and self.judge.worse(best, linear)
        suspect = None
        spoilt = (self.signals.initial_ratio or 1) > 2 or self._dead_at_start
        if stuck or below_linear or spoilt:
            suspect = self._best_suspect(best, tried)
        fits = self._fits_few(tried) if stuck else None

        question = ""
        lesser = next((change for change in (suspect, rate, batch) if change is not None and change.helps), None)
        if suspicion.cause == Cause.OVERFITTING:
            cause, fix = Cause.OVERFITTING, None
        elif suspect is not None and suspect.mends:
            cause, fix = suspect.cause, suspect
        elif rate.mends:
            cause, fix = rate.cause, rate
            if batch is not None and batch.helps and cause == Cause.TOO_HIGH:
                question = (
                    "a rate too high for the batch and a batch too small for the rate are partly the same thing: "
                    f"{rate.change} brings the loss to {rate.after.loss:.3g}, {batch.change} to {batch.after.loss:.3g}"
                )
                if self.judge.helps(rate.after, batch.after):
                    cause, fix = batch.cause, batch
        elif batch is not None and batch.mends:
            cause, fix = batch.cause, batch
        elif stuck:
            cause, fix = (Cause.NOTHING_TO_LEARN if fits else self._cause_of_no_fit()), None
            question = "labels unrelated to the inputs, or inputs that lack what the labels depend on" if fits else ""
        elif below_linear:
            cause, fix = Cause.BELOW_BASELINE, lesser
        else:
            cause, fix = Cause.HEALTHY, lesser
            question = f"what limits it next is {self._next_limit()}"
            if fix is not None:
                question = f"whether {fix.change} is worth it: it does better still, by less than five points"
        return Report(self._verdict(cause, fix or rate, suspicion), tuple(self.forks), fix, question)

    @cached_property
    def _first_batch(self) -> Any:
        """The first batch as the network sees it: a transfer hook may scale it."""
        module, device = self.module, self.shared["device"] or self.module.device
        batch = module.transfer_batch_to_device(module.on_before_batch_transfer(self.batches[0], 0), device, 0)
        return module.on_after_batch_transfer(batch, 0)

    def _race(
        self,
        variants: Sequence[Variant],
        steps: int,
        module: pl.LightningModule | None = None,
        change: Callable[[Any], Any] = lambda batch: batch,
    ) -> list[Outcome]:
        count = steps * self.shared["options"].accumulate_grad_batches
        training = [change(batch) for batch in self.batches[:count]]
        return race(
            module or self.module, variants, training, [change(batch) for batch in self.held_out], **self.shared
        )

    def _scores(
        self,
        variants: Sequence[Variant],
        steps: int,
        module: pl.LightningModule | None = None,
        change: Callable[[Any], Any] = lambda batch: batch,
    ) -> list[Score]:
        return [Score.of(outcome) for outcome in self._race(variants, steps, module, change)]

    def _configured_rate(self) -> float:
        state = race(self.module, [Variant()], [], keep_state=True, **self.shared)[0].state
        assert state is not None
        assert state.optimizer is not None
        group = state.optimizer["param_groups"][0]
        return float(group.get("initial_lr", group["lr"]))

    def _standing(self) -> list[Score]:
        """Return what the run has come to as it stands, if it does."""
        return [] if self.start is None else self._scores([Variant(start=State(self.start.weights))], 0)

    def _better_of(self, *scores: Score) -> Score:
        return scores[self.judge.best(scores)]

    def _measure(self, control: Outcome) -> Signals:
        """Return the signals of a first step, and what the losses of the unchanged fork add to them."""
        module = copy.deepcopy(self.module).to(self.shared["device"] or self.module.device)
        module.trainer = self.shared["trainer"]
        for part in module.modules():
            if isinstance(part, pl.LightningModule):
                part.log = lambda *_, **__: None  # type: ignore[method-assign] # there is nowhere to log to
        meter = Meter(module.train())
        batch = self._first_batch
        with unchanged_random_state(), torch.enable_grad():
            output = module.training_step(batch, 0)
            loss = output["loss"] if isinstance(output, Mapping) else output
            assert isinstance(loss, Tensor)  # the control has just trained with it
            torch.autograd.backward(loss)
        meter.before_step()
        meter.after_batch(loss, find_targets(batch))
        for step_loss, batch in zip(control.losses[1:], self.batches[1:], strict=False):
            meter.after_batch(torch.tensor(step_loss), find_targets(batch), stepped=False)
        if not control.finite:
            meter.after_batch(torch.tensor(math.nan))
        return dataclasses.replace(meter.read(), step=len(control.losses), move=None)

    def _loss_of_constant(self) -> float:
        """Return what the network reaches when it sees no input: the best constant prediction, for any loss."""
        variants = [Variant(learning_rate=rate) for rate in (self.rate, 1e-3, 1e-1)]
        return min(score.loss for score in self._scores(variants, self.short, change=blank))

    def _rates(self) -> tuple[Fork, list[float]]:
        """Restart with rates a decade apart, then with half decades around the best one, for longer."""
        grid = [self.rate, *(rate for rate in RATES if not 0.5 < rate / self.rate < 2)]
        screened = self._scores([Variant(learning_rate=rate) for rate in grid], self.short)
        for rate, score in zip(grid[1:], screened[1:], strict=True):
            self._note(f"learning rate {rate:.2g}, {self.short} steps", screened[0], score)
        best = grid[self.judge.best(screened)]
        raced = climb(
            best,
            lambda rates: self._scores([Variant(learning_rate=rate) for rate in rates], self.long),
            self.judge.safest,
        )
        others = [(rate, score) for rate, score in raced if not self._is_own(rate)]
        forks = [
            self._note(
                f"learning rate {rate:.2g}",
                self.before,
                score,
                overlay_of(self.config, RATE, rate),
                Cause.TOO_LOW if rate > self.rate else Cause.TOO_HIGH,
            )
            for rate, score in others
        ]
        chosen = self.judge.safest([score for _, score in others])
        return forks[chosen], sorted({others[chosen][0], best, self.rate})

    def _is_own(self, rate: float) -> bool:
        return 0.9 < rate / self.rate < 1.1

    def _larger_batch(self) -> Fork | None:
        """Restart with batches merged, so that all samples are seen just as often."""
        merge = min(16, 512 // self.batch_size)
        if self.batch_size > 64 or self.long < 2 * merge:
            return None
        (score,) = self._scores([Variant(merge=merge)], self.long)
        size = merge * self.batch_size
        overlay = overlay_of(self.config, ("batch_size",), size, place="data")
        return self._note(f"batch size {size}", self.before, score, overlay, Cause.BATCH_TOO_SMALL)

    def _in_place(self) -> None:
        """Go on from where the run stands, at other rates: for the record, it repairs little."""
        if self.start is None:
            return
        factors = (1.0, 0.01, 0.1, 10.0)
        variants = [Variant(learning_rate=self.rate * factor, start=self.start) for factor in factors]
        on, *others = self._scores(variants, self.short)
        for factor, score in zip(factors[1:], others, strict=True):
            self._note(f"learning rate {self.rate * factor:.2g} from here on, {self.short} steps", on, score)

    def _best_suspect(self, best: Score, rates: Sequence[float]) -> Fork | None:
        """Change the network or its inputs, at a few rates each; then the best change at half decades, for longer."""
        grid = sorted({*rates, 1e-3, 1e-2, 1e-1})
        found: list[tuple[Fork, float, Suspect]] = []
        spoilt = Cause.DEAD_AT_START if self._dead_at_start else Cause.BAD_SCALE
        for suspect in find_suspects(self.module, self._first_batch, self.config, self.rebuild, spoilt):
            scores = self._race_with(suspect, grid, 2 * self.short)
            at = self.judge.best(scores)
            found.append((self._accuse(suspect, grid[at], best, scores[at]), grid[at], suspect))
        if not found:
            return None
        # By loss: what mends the accuracy and leaves the network sure of its mistakes is not the cause.
        fork, rate, suspect = min(found, key=lambda item: item[0].after.loss)
        if not fork.helps and fork.after.loss > best.loss:
            return fork
        raced = climb(rate, lambda rates: self._race_with(suspect, rates, self.long), self.judge.safest)
        rate, score = raced[self.judge.safest([score for _, score in raced])]
        return self._accuse(suspect, rate, best, score)

    def _race_with(self, suspect: Suspect, rates: Sequence[float], steps: int) -> list[Score]:
        variants = [Variant(learning_rate=rate) for rate in rates]
        return self._scores(variants, steps, suspect.module, suspect.transform)

    def _accuse(self, suspect: Suspect, rate: float, before: Score, after: Score) -> Fork:
        faster = overlay_of(self.config, RATE, rate)
        overlay = merged(suspect.setting, faster) if suspect.setting is not None and faster is not None else None
        change = suspect.change if self._is_own(rate) else f"{suspect.change}, learning rate {rate:.2g}"
        return self._note(change, before, after, overlay, suspect.cause)

    def _fits_few(self, rates: Sequence[float]) -> bool:
        """Return whether a few samples can be learned by heart: then it is not the network that fails."""
        few = first_samples(self.batches, SMALL_BATCH)
        variants = [Variant(learning_rate=rate) for rate in sorted({*rates, 1e-3, 1e-2, 1e-1})]
        outcomes = race(self.module, variants, [few] * SMALL_STEPS, [few], **self.shared)
        loss = min(outcome.held_out_loss for outcome in outcomes)
        reference = self.judge.reference
        self._note(f"only {SMALL_BATCH} samples, {SMALL_STEPS} times", Score(reference), Score(loss))
        return loss < 0.5 * reference

    def _linear(self, best: Score) -> Score | None:
        """Return what a linear model in the place of `module.network` comes to; None where there is none."""
        network = getattr(self.module, "network", None)
        inputs = self._first_batch[0] if isinstance(self._first_batch, (tuple, list)) else None
        if not isinstance(network, nn.Module) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
            return None
        module = copy.deepcopy(self.module)
        with torch.no_grad():
            outputs = copy.deepcopy(network).eval()(inputs[:1].to(module.device))
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            return None
        linear = nn.Linear(inputs[0].numel(), outputs.shape[1])
        module.network = nn.Sequential(nn.Flatten(), linear).to(module.device)
        variants = [Variant(learning_rate=rate) for rate in (1e-1, 1e-2, 1e-3)]
        score = self._better_of(*self._scores(variants, self.long, module))
        self._note("a linear model instead", best, score)
        return score

    @property
    def _dead_at_start(self) -> bool:
        return (self.signals.dead_at_start or 0) > 0.9

    def _cause_of_no_fit(self) -> Cause:
        if self._dead_at_start:
            return Cause.DEAD_AT_START
        if (self.signals.initial_ratio or 1) > 2:
            return Cause.BAD_SCALE
        vanishing = self.signals.gradient_ratio is not None and self.signals.gradient_ratio < 0.01
        return Cause.VANISHING if vanishing else Cause.LOW_CAPACITY

    def _next_limit(self) -> str:
        training, validation = self.signals.training_loss, self.signals.validation_loss
        if training is None or validation is None:
            return "not known without a validation loss"
        return Cause.OVERFITTING.value if validation > 1.25 * training else Cause.LOW_CAPACITY.value

    def _verdict(self, cause: Cause, decisive: Fork, suspicion: Verdict) -> Verdict:
        ratio = self.judge.ratio(decisive.before, decisive.after)
        margin = abs(math.log2(max(ratio, 1e-6) / HELPS)) if math.isfinite(ratio) else 1.0
        evidence = (*suspicion.evidence, Evidence(f"error after / before: {decisive.change}", ratio, HELPS))
        causes = [suspicion.cause, suspicion.runner_up, Cause.HEALTHY]
        runner_up = next((other for other in causes if other not in (cause, None, Cause.UNSURE)), None)
        confidence = round(0.98 - 0.48 * 2 ** (-4 * min(margin, 5)), 3)
        sentence, remedy = describe(cause, self.signals)
        return Verdict(cause, confidence, runner_up, evidence, sentence, remedy, self.signals.step)

    def _note(
        self,
        change: str,
        before: Score,
        after: Score,
        overlay: dict[str, Any] | None = None,
        cause: Cause = Cause.UNSURE,
    ) -> Fork:
        helps, mends = self.judge.helps(before, after), self.judge.mends(before, after)
        self.forks.append(Fork(change, before, after, overlay, cause, helps, mends))
        return self.forks[-1]
