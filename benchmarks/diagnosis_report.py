"""The tables of docs/diagnosis.md, from the runs that `benchmarks/diagnosis.py` has made.

python benchmarks/diagnosis_report.py
"""

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from labels import FORKS, Run, accepted, group, key, last, read, truths
from measuring import ROOT, replace_tables, share, table
from unstall import STALLS, Cause, Signals, name_cause

GROUPS = "development", "held-out", "fresh", "blind"
CLASSES: dict[str, tuple[tuple[str, ...], tuple[Cause, ...]]] = {
    "rate too high": (("too high",), (Cause.TOO_HIGH, Cause.DEAD_FROM_RATE)),
    "rate too low": (("too low",), (Cause.TOO_LOW,)),
    "batch too small": (("batch too small",), (Cause.BATCH_TOO_SMALL,)),
    "scale of inputs or weights": (("x20", "unscaled"), (Cause.BAD_SCALE,)),
    "dead from the start": (("zero", "dead"), (Cause.DEAD_AT_START,)),
    "vanishing gradients": (("ten sigmoid layers", "stuck"), (Cause.VANISHING,)),
    "nothing to learn": (("random labels",), (Cause.NOTHING_TO_LEARN,)),
    "too little capacity": (("one unit",), (Cause.LOW_CAPACITY, Cause.BELOW_BASELINE)),
    "overfitting": (("few samples", "overfitting"), (Cause.OVERFITTING,)),
    "non-finite loss": (("non-finite",), (Cause.NON_FINITE,)),
    "healthy": (("healthy",), (Cause.HEALTHY,)),
}


def said(run: Run) -> bool:
    """Return whether a stall is said of a run at its end: it is named, and surely enough."""
    verdict = name_cause(Signals(**last(run)))
    return verdict.stalled and verdict.sure


def announced(runs: list[Run], found: list[set[str]]) -> list[str]:
    """Return the table of the stalls that a training is told of, and of the healthy runs that are accused."""
    rows = []
    for name in (*GROUPS, "fresh and blind", "all"):
        those = [(run, truth) for run, truth in zip(runs, found, strict=True) if group(run) in name or name == "all"]
        stalls = [said(run) for run, truth in those if accepted(truth) & STALLS]
        healthy = [said(run) for run, truth in those if truth == {"healthy"}]
        rows.append([name, share(stalls), share(healthy)])
    return table("| runs | stalls that are said | | healthy ones accused | |", rows)


def cause_in(signals: dict[str, Any]) -> Cause:
    """Return our verdict on signals."""
    cause = name_cause(Signals(**signals)).cause
    assert isinstance(cause, Cause)  # a fault is found in a batch, not in signals
    return cause


def ours(run: Run) -> set[Cause]:
    """Return our verdict at the end of the run."""
    return {cause_in(last(run))}


NO_STALLS = set(Cause) - STALLS
"""What accuses nobody of a stall; all else does, faults by their names among it."""

DEAD = {Cause.DEAD_AT_START, Cause.DEAD_FROM_RATE}
"""Other tools see dead units, not since when: both causes are credited to them."""


def umlaut(run: Run) -> set[Cause]:
    """Return what UMLAUT's rules say (Schoop et al., CHI 2021; `umlaut/heuristics.py` of BerkeleyHCI/umlaut).

    A rate above 0.01 or below 1e-7; inputs outside -1 to 1; from one validation to the next, a higher validation loss
    with a training loss that is no higher. Its rule on a loss that is not a number asks for such inputs as well, and
    those on dropout, softmax, missing activations and shapes never apply here. Left out: validation accuracy above
    0.95 or five points over that of training, which names no cause of ours.
    """
    cell = run["cell"]
    found = {Cause.TOO_HIGH} if run["rate"] > 0.01 else {Cause.TOO_LOW} if run["rate"] < 1e-7 else set()
    if cell["spoilt"] == "unscaled" or cell["data"] in ("synthetic", "spheres"):
        found.add(Cause.BAD_SCALE)
    readings = [r for r in run["readings"].values() if r.get("training_loss") and r.get("validation_loss")]
    for before, after in pairwise(readings):
        worse = after["validation_loss"] > before["validation_loss"]
        if worse and after["training_loss"] <= before["training_loss"]:
            found.add(Cause.OVERFITTING)
    return found or {Cause.HEALTHY}


def sagemaker(run: Run) -> set[Cause]:
    """Return what those of SageMaker Debugger's rules say that the signals allow, with their documented defaults.

    DeadRelu and SaturatedActivation (over half of a layer; constant units are a lower bound), ExplodingTensor (not
    finite), WeightUpdateRatio (above 10; taken over the whole run), Overfit (validation a tenth above training) and
    LossNotDecreasing (by 0.1 %; means of 50 batches, its own are single ones). They name symptoms: the causes are our
    choice. Not recorded: VanishingGradient (1e-7) and PoorWeightInitialization, which would speak on spoilt starts.
    (docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html)
    """
    signals, readings = last(run), list(run["readings"].values())
    found: set[Cause] = set()
    if signals.get("dead", 0) > 0.5:
        found |= DEAD
    if signals.get("non_finite_step") is not None:
        found.add(Cause.NON_FINITE)
    if signals.get("move", 0) > 10:
        found.add(Cause.TOO_HIGH)
    if signals.get("validation_loss", 0) > 1.1 * signals.get("training_loss", math.inf):
        found.add(Cause.OVERFITTING)
    if len(readings) > 1 and not readings[-1]["loss"] < 0.999 * readings[-2]["loss"]:
        found.add(Cause.TOO_LOW)
    return found or {Cause.HEALTHY}


def autotrainer(run: Run) -> set[Cause]:
    """Return what those of AutoTrainer's rules say that the signals allow (Zhang et al., ICSE 2021; its repository).

    Not finite, or a validation loss of 1e5: exploding. Else, only if the accuracy stays below 0.6, the first that
    holds: dying ReLU (70 % constant units), vanishing (Euclidean norm of the first layer's gradient below 1e-3 of the
    last one's; its bound of 1e-4 on the norm itself is not recorded), slow convergence (accuracy rises by less than
    0.01 an epoch; only its end is recorded, so: 0.13 or less, which is our cut, at chance). It advises a higher rate
    against the last. Oscillation of the training accuracy is not recorded.
    """
    signals, cell = last(run), run["cell"]
    if signals.get("non_finite_step") is not None or not signals.get("validation_loss", 0) < 1e5:
        return {Cause.NON_FINITE}
    if run["accuracy"] >= 0.6:
        return {Cause.HEALTHY}
    if signals.get("dead", 0) >= 0.7:
        return set(DEAD)
    inputs = {"mnist": 784, "spheres": 8}.get(cell["data"], 64)
    weights = {"cnn": 200 / 2560, "concatenated": inputs * 96 / (inputs + 288) / 10}.get(cell["network"], inputs / 10)
    if cell["network"] in ("batchnorm", "dropout"):
        weights *= 2  # the last layer is half as wide as the first
    if signals.get("gradient_ratio", 1) * math.sqrt(weights) < 1e-3:
        return {Cause.VANISHING}
    return {Cause.TOO_LOW} if run["accuracy"] <= 0.13 else {Cause.HEALTHY}


def by_class(found: list[set[str]], verdicts: Sequence[set[Cause] | set[str]]) -> list[str]:
    """Return precision and recall per class, with intervals, as lines of Markdown."""
    rows = []
    for name, (labels, causes) in CLASSES.items():
        named = [bool(v & accepted(t)) for v, t in zip(verdicts, found, strict=True) if v & set(causes)]
        present = [bool(v & accepted(t)) for v, t in zip(verdicts, found, strict=True) if t & set(labels)]
        if named or present:
            rows.append([name, share(named), share(present)])
    return table("| class | precision | | recall | |", rows)


def false_alarms(found: list[set[str]], verdicts: list[set[Cause]]) -> list[bool]:
    """Return, for each healthy run, whether it was accused of a stall."""
    return [bool(v & STALLS) for v, t in zip(verdicts, found, strict=True) if t == {"healthy"}]


def detection(run: Run, truth: set[str]) -> int | None:
    """Return the step of the first two successive readings whose verdict is the same and right."""
    before = None
    for step, signals in run["readings"].items():
        cause = cause_in(signals)
        if cause == before and cause in accepted(truth) & STALLS:
            return int(step)
        before = cause
    return None


def random_rate(runs: list[Run], found: list[set[str]]) -> float:
    """Return how often another rate of the cell, taken at random, ends within one point of the cell's best."""
    shares = []
    for run, truth in zip(runs, found, strict=True):
        if truth & {"too high", "too low"}:
            others = [r["accuracy"] for r in runs if r["cell"] == run["cell"] and r is not run]
            best = max(run["accuracy"], *others)
            shares.append(statistics.mean(accuracy >= best - 0.01 for accuracy in others))
    return float(statistics.mean(shares))


def report_forks(forked: list[Run], labels: list[set[str]]) -> list[str]:
    """Return how often the diagnosis by forks was right, and whether its fixes, retrained in full, work."""
    rows = []
    for name in GROUPS:
        those = [(run, truth) for run, truth in zip(forked, labels, strict=True) if group(run) == name]
        right = [run["cause"] in accepted(truth) for run, truth in those]
        rates = [r for (_, truth), r in zip(those, right, strict=True) if truth & {"too high", "too low"}]
        healthy = [run["cause"] not in NO_STALLS for run, truth in those if truth == {"healthy"}]
        # With random labels, no accuracy is better than another.
        fixed = [run for run, truth in those if run["retrained"] is not None and "random labels" not in truth]
        works = [run["retrained"] >= run["best"] - 0.01 for run in fixed]
        gain = 100 * statistics.mean([run["retrained"] - run["accuracy"] for run in fixed] or [0.0])
        shares = (share(values) for values in (right, rates, healthy, works))
        rows.append([name, *shares, f"{gain:+.0f} points"])
    header = "| networks | right cause | | too high, too low | | false alarms | | fix within a point | | gain |"
    classes = by_class(labels, [{run["cause"]} for run in forked])
    return [*table(header, rows), "", f"By class, all networks, {len(forked)} runs:", "", *classes]


def report(runs: list[Run], found: list[set[str]], name: str) -> list[str]:
    """Return the tables of one group of runs as lines of Markdown."""
    chosen = [(run, truth) for run, truth in zip(runs, found, strict=True) if group(run) == name]
    those, labels = [run for run, _ in chosen], [truth for _, truth in chosen]
    own = [ours(run) for run in those]
    rows = []
    for judge_name, judge in JUDGES.items():
        verdicts = [judge(run) for run in those]
        right = [bool(v & accepted(t)) for v, t in zip(verdicts, labels, strict=True)]
        rows.append([judge_name, share(right), share(false_alarms(labels, verdicts))])
    steps = [(step, run) for run, truth in chosen if (step := detection(run, truth)) is not None]
    shares = [step / int(list(run["readings"])[-1]) for step, run in steps]
    stalls = sum(bool(accepted(truth) & STALLS) for truth in labels)
    return [
        f"**{name.capitalize()}, {len(those)} runs**",
        "",
        *by_class(labels, own),
        "",
        *table("| rules | right verdicts | | false alarms | |", rows),
        "",
        f"Unsure: {sum(Cause.UNSURE in verdict for verdict in own)}. Detected while training: {len(steps)} of {stalls} "
        f"stalls, at a median step of {statistics.median(step for step, _ in steps):.0f}, "
        f"{statistics.median(shares):.0%} of the run.",
        f"Another rate at random ends within a point of its cell's best in {random_rate(those, labels):.2f}.",
        "",
    ]


JUDGES: dict[str, Callable[[Run], set[Cause]]] = {
    "ours": ours,
    "UMLAUT's": umlaut,
    "SageMaker Debugger's": sagemaker,
    "AutoTrainer's": autotrainer,
}


def main() -> None:
    """Write everything into docs/diagnosis.md."""
    runs = read()
    found = truths(runs)
    signals = [line for name in GROUPS for line in report(runs, found, name)]
    signals += ["Said while training, at 85 % or more:", "", *announced(runs, found)]
    known = {key(run): truth for run, truth in zip(runs, found, strict=True)}
    forked = read(FORKS)
    by_forks = report_forks(forked, [known[key(run)] for run in forked])
    for name, lines in (("signals", signals), ("forks", by_forks)):
        replace_tables(ROOT / "docs" / "diagnosis.md", "diagnosis_report.py", name, lines)
        print("\n".join(lines))


if __name__ == "__main__":
    main()
