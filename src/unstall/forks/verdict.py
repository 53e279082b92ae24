"""From what was tried to the cause, the fix and what is left open. Pure functions: nothing is trained here."""

import math
from collections.abc import Sequence

from unstall.causes import TRIED_FAULTS, Fault
from unstall.forks.tried import Findings, Fork, Report
from unstall.trials import HELPS
from unstall.watch import Cause, Evidence, Signals, Verdict, describe, name_cause

RATES, FEW = "learning rate", "only"
"""How the forks begin that try other learning rates, and a few samples."""

FAR = 0.8
"""Share of the way from a constant to the best that was seen at which a run is not stalled: what would take it further
by a matter of degree (a rate, a batch size, more epochs) is offered. A fifth is also what a change has to take off the
error to help (`HELPS`)."""


UNTRIED = 0.9
"""How sure a fault is that is wrong by construction, where no change from outside could prove it."""

MEASURED_APART = next(fault for fault in TRIED_FAULTS if fault.startswith("validation"))

APART = 0.5
"""Share of the logged validation loss below which the training step's own, of held-out samples, is another quantity. As
much less is no accident of the samples: a network that overfits has both of them high."""


def conclude(findings: Findings, forks: Sequence[Fork]) -> Report:
    """Return the report on a run.

    Args:
        findings: What decides.
        forks: All that was tried, in order.
    """
    cause, fix, question = decide(findings)
    decisive, suspicion, signals = fix or findings.rate, name_cause(findings.signals), findings.signals
    ratio = findings.judge.ratio(decisive.before, decisive.after)
    evidence = (*suspicion.evidence, Evidence(f"error after / before: {decisive.change}", ratio, HELPS))
    causes = [suspicion.cause, suspicion.runner_up, Cause.HEALTHY]
    runner_up = next((other for other in causes if other not in (cause, None, Cause.UNSURE)), None)
    if cause == Cause.UNSURE:
        sure, sentence, remedy = 0.5, at_chance(forks), ""
    elif cause == MEASURED_APART:
        assert findings.standing is not None
        values = {"logged": signals.validation_loss, "returned": findings.standing.loss}
        sure, sentence, remedy = UNTRIED, MEASURED_APART.sentence.format(**values), MEASURED_APART.remedy
    else:
        assert isinstance(cause, Cause)
        sure, (sentence, remedy) = confidence(ratio), describe(cause, signals)
    if cause == Cause.HEALTHY and fix is not None:
        sentence = offer(sentence, fix)
        sure = confidence_of_offer(findings.progress(fix)) if fix.mends else sure
    verdict = Verdict(cause, sure, runner_up, evidence, sentence, remedy, signals.step)
    return Report(verdict, tuple(forks), fix, question)


def decide(findings: Findings) -> tuple[Cause | Fault, Fork | None, str]:
    """Return the cause, the smallest change that helps (if any does), and what the forks could not tell apart."""
    judge, rate, batch, suspect = findings.judge, findings.rate, findings.batch, findings.suspect
    if name_cause(findings.signals).cause == Cause.OVERFITTING:
        return MEASURED_APART if measured_apart(findings) else Cause.OVERFITTING, None, ""
    if suspect is not None and suspect.mends:
        return suspect.cause, suspect, ""

    def stalls(change: Fork | None) -> bool:
        return change is not None and change.mends and findings.progress(change) < FAR

    if stalls(rate) and rate.cause == Cause.TOO_HIGH and batch is not None and batch.helps:
        fix = batch if judge.helps(rate.after, batch.after) else rate
        question = (
            "a rate too high for the batch and a batch too small for the rate are partly the same thing: "
            f"{rate.change} brings the loss to {rate.after.loss:.3g}, {batch.change} to {batch.after.loss:.3g}"
        )
        return fix.cause, fix, question
    for change in (rate, batch):
        if change is not None and stalls(change):
            return change.cause, change, ""
    if findings.stuck and findings.fits_few:
        question = "labels unrelated to the inputs, or inputs that lack what the labels depend on"
        return Cause.NOTHING_TO_LEARN, None, question
    if findings.stuck:
        return cause_of_no_fit(findings), None, ""
    lesser = next((change for change in (suspect, rate, batch) if change is not None and change.helps), None)
    if findings.below_linear:
        return Cause.BELOW_BASELINE, lesser, ""
    if lesser is not None:
        return Cause.HEALTHY, lesser, f"whether {lesser.change} is worth it"
    return Cause.HEALTHY, None, f"what limits it next is {next_limit(findings.signals)}"


def measured_apart(findings: Findings) -> bool:
    """Return whether the training step's own loss of held-out samples is far below what validation logs."""
    logged, returned = findings.signals.validation_loss, findings.standing
    return logged is not None and returned is not None and 0 <= returned.loss < APART * logged


def cause_of_no_fit(findings: Findings) -> Cause:
    """Return why a network does not even learn a few samples by heart: what was measured of it, else nobody knows."""
    if findings.dead_at_start:
        return Cause.DEAD_AT_START
    if findings.badly_scaled:
        return Cause.BAD_SCALE
    # A ratio of exactly zero is no gradient that got small on its way.
    return Cause.VANISHING if 0 < (findings.signals.gradient_ratio or 0) < 0.01 else Cause.UNSURE


def at_chance(forks: Sequence[Fork]) -> str:
    """Return what is known of a run that learns nothing, and what was ruled out."""
    changes = ("other learning rates" if fork.change.startswith(RATES) else fork.change for fork in forks)
    tried = dict.fromkeys(change for change in changes if not change.startswith(FEW))
    return f"It stays at chance and does not learn even a few samples by heart; none of this helps: {', '.join(tried)}"


def next_limit(signals: Signals) -> str:
    """Return, as a clause, what keeps a healthy run from doing better."""
    training, validation = signals.training_loss, signals.validation_loss
    if training is None or validation is None:
        return "not known without a validation loss"
    return Cause.OVERFITTING.value if validation > 1.25 * training else Cause.LOW_CAPACITY.value


def offer(sentence: str, fix: Fork) -> str:
    """Return what is said of a healthy run, with what a change was seen to bring it."""
    before, after, name = fix.before.accuracy, fix.after.accuracy, "accuracy"
    if before is None or after is None or after <= before:
        before, after, name = fix.before.loss, fix.after.loss, "loss"
    return f"{sentence}; {fix.change}, tried, takes the {name} from {before:.3g} to {after:.3g}"


def confidence_of_offer(progress: float) -> float:
    """Return how sure it is that a run is healthy which a change takes further: from 0.5 at `FAR` on."""
    return confidence(HELPS * (1 - progress) / (1 - FAR))


def confidence(ratio: float) -> float:
    """Return how sure a verdict is, from 0.5 where `ratio`, the error after over before, is just what helps, to 0.98.

    Args:
        ratio: One that is not finite tells as much as a factor of two.
    """
    margin = abs(math.log2(max(ratio, 1e-6) / HELPS)) if math.isfinite(ratio) else 1.0
    return round(0.98 - 0.48 * 2 ** (-4 * min(margin, 5)), 3)
