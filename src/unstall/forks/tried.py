"""What was tried, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl

from unstall.causes import Fault, Finding
from unstall.trials import Judge, Score, State, StepOptions
from unstall.watch import Cause, Signals, Verdict

Setting = tuple[tuple[str, ...], Any, str]
"""What a setting may be called, its value, and the part of the configuration it is in."""


@dataclass(frozen=True)
class Mended:
    """A fault mended.

    Args:
        change: In words.
        module: The mended copy, or the run's own module.
        transform: What is done to each batch.
        options: How steps are made; None: as in the run.
        shuffled: Whether the samples are drawn anew.
        passes: How often the batches are gone through.
        start: From where; None: from the module's own weights.
        rates: To be tried; empty: the run's own and the usual ones.
        settings: What makes it permanent.
    """

    change: str
    module: pl.LightningModule
    transform: Callable[[Any], Any] = lambda batch: batch
    options: StepOptions | None = None
    shuffled: bool = False
    passes: int = 1
    start: State | None = None
    rates: tuple[float, ...] = ()
    settings: tuple[Setting, ...] = ()


@dataclass(frozen=True)
class Fork:
    """One change and its effect.

    Args:
        change: What was changed, in words.
        before: What the run came to without the change, after as many samples.
        after: What it came to with it.
        overlay: The settings that make the change permanent, as nested dictionaries; None if it has no setting.
        cause: What the change would mend.
        helps: Whether it makes a difference that matters.
        mends: Whether the difference is one between a stall and a healthy run.
        mended: The changed copy, untrained, with what else is changed; None where only settings are.
        measure: How good, as a share of right answers or of the variance explained, weights of that copy are on the
            held-out batches.
        learning_rate: With which it trained, where the overlay has to bring that; else None.
    """

    change: str
    before: Score
    after: Score
    overlay: dict[str, Any] | None = field(default=None, repr=False)
    cause: Cause | Fault = Cause.UNSURE
    helps: bool = False
    mends: bool = False
    mended: Mended | None = field(default=None, repr=False, compare=False)
    learning_rate: float | None = field(default=None, repr=False)
    measure: Callable[[Mapping[str, Any]], float | None] | None = field(default=None, repr=False, compare=False)

    @property
    def module(self) -> pl.LightningModule | None:
        """The changed copy, untrained; None where only settings are changed."""
        return None if self.mended is None else self.mended.module


@dataclass(frozen=True)
class Findings:
    """What a verdict is made of; None means: not tried.

    Args:
        signals: What was measured of the run.
        judge: Compares the scores.
        before: What the run comes to unchanged.
        rate: The best of the other learning rates.
        batch: The larger batch.
        linear: What a linear model in the network's place comes to.
        suspect: The best change of the network or its inputs.
        fits_few: Whether the network learns a few samples by heart.
        standing: What the run comes to as it stands.
    """

    signals: Signals
    judge: Judge
    before: Score
    rate: Fork
    batch: Fork | None = None
    linear: Score | None = None
    suspect: Fork | None = None
    fits_few: bool | None = None
    standing: Score | None = None

    @property
    def best(self) -> Score:
        """What the run comes to at the best of all learning rates."""
        return self.judge.better_of(self.before, self.rate.after)

    def progress(self, change: Fork) -> float:
        """Return how far the run has come, as it stands, of the way from a constant to what a change brings."""
        return self.judge.progress(self.standing or change.before, change.after)

    @property
    def stuck(self) -> bool:
        """Whether it learns nothing at any learning rate."""
        return not self.judge.learned(self.best)

    @property
    def below_linear(self) -> bool:
        """Whether a linear model does better."""
        return self.linear is not None and self.judge.worse(self.best, self.linear)

    @property
    def dead_at_start(self) -> bool:
        """Whether hardly a unit of some layer was alive at first."""
        return (self.signals.dead_at_start or 0) > 0.9

    @property
    def badly_scaled(self) -> bool:
        """Whether the first loss was far above the best constant prediction's."""
        return (self.signals.initial_ratio or 1) > 2


@dataclass(frozen=True)
class Report:
    """A diagnosis whose remedies were tried.

    Args:
        verdict: The cause, its confidence and the evidence.
        forks: What was tried, in order.
        fix: The smallest change that helps, or None.
        open_question: What the forks could not tell apart; empty if nothing.
        findings: The faults that one step, or the course of the run, showed.
        references: Share of right answers, or of the variance explained, of what is to be beaten: a constant, a linear
            model; empty where nobody knows.
    """

    verdict: Verdict
    forks: tuple[Fork, ...]
    fix: Fork | None
    open_question: str = ""
    findings: tuple[Finding, ...] = ()
    references: Mapping[str, float] = field(default_factory=dict)
