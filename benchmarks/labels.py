"""What is wrong with each run that `diagnosis.py` has made, read off its siblings, and which verdicts are right."""

import json
from pathlib import Path
from typing import Any

from cells import BLIND, DEVELOPMENT, FRESH
from measuring import RESULTS
from unstall import Cause

Run = dict[str, Any]
"""A line of a file: the cell, the rate, the accuracy, and the signals (`readings`) at a few steps."""
Accuracies = dict[tuple[Any, ...], float]
RUNS, FORKS = RESULTS / "diagnosis_runs.jsonl", RESULTS / "diagnosis_forks.jsonl"


def read(file: Path = RUNS) -> list[Run]:
    """Return the runs on disk."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def append(file: Path, run: Run) -> None:
    """Add a run to those on disk."""
    with file.open("a") as lines:
        lines.write(json.dumps(run) + "\n")


def key(run: Run) -> tuple[tuple[Any, ...], float]:
    """Return what tells a run from all others: its cell and its rate."""
    return tuple(run["cell"].values()), run["rate"]


def group(run: Run) -> str:
    """Return what part the run's network and data had in the choice of thresholds (docs/diagnosis.md)."""
    network, data = run["cell"]["network"], run["cell"]["data"]
    later = {**dict.fromkeys(FRESH, "fresh"), **dict.fromkeys(BLIND, "blind")}
    if network in later:
        return later[network]
    return "development" if network in DEVELOPMENT and data != "digits" else "held-out"


def last(run: Run) -> dict[str, Any]:
    """Return the signals at the end of a run."""
    readings: dict[str, dict[str, Any]] = run["readings"]
    return list(readings.values())[-1]


def truths(runs: list[Run]) -> list[set[str]]:
    """Return what is wrong with each run, by what became of its siblings; several things may be.

    A rate is *too high* (*too low*) if a rate at least ten times lower (higher) in the same cell ends with five points
    of accuracy more; a batch is *too small* if one sixteen times larger does, at the same rate and with as many
    samples. A spoilt start, network or data set counts if no rate in its cell comes within five points of the best
    rate of its unspoilt sibling, or above one half. A cell is *stuck* if no rate takes the unspoilt network that far.
    Where it is, and with random labels, accuracy says nothing about rates: there the training loss must differ by 2 %
    of the prior's entropy. In overfitting the held-out loss rose, and more than doubled the training loss: that is its
    definition.
    """
    cells: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        cells.setdefault(tuple(run["cell"].values()), []).append(run)
    best = {cell: max(run["accuracy"] for run in siblings) for cell, siblings in cells.items()}
    unspoilt: Accuracies = {}
    for cell, siblings in cells.items():
        if not siblings[0]["cell"]["spoilt"]:
            unspoilt[family(siblings[0])] = max(unspoilt.get(family(siblings[0]), 0.0), best[cell])
    return [_truth(run, cells[tuple(run["cell"].values())], best, unspoilt) for run in runs]


def _truth(run: Run, siblings: list[Run], best: Accuracies, unspoilt: Accuracies) -> set[str]:
    cell, signals = run["cell"], last(run)
    reached = best[tuple(cell.values())]
    stuck = not cell["spoilt"] and reached < 0.5

    def better(other: Run) -> bool:
        if stuck or cell["spoilt"] == "random labels":
            losses = [last(r).get("loss_ratio", 1e9) for r in (other, run)]
            return bool(losses[0] <= losses[1] - 0.02)
        return bool(other["accuracy"] >= run["accuracy"] + 0.05)

    found = set()
    if any(other["rate"] < 0.11 * run["rate"] and better(other) for other in siblings):
        found.add("too high")
    if any(other["rate"] > 9 * run["rate"] and better(other) for other in siblings):
        found.add("too low")
    if run.get("larger_batch", 0) >= run["accuracy"] + 0.05:
        found.add("batch too small")
    if cell["spoilt"] and reached < max(unspoilt.get(family(run), 0.0) - 0.05, 0.5):
        found.add(cell["spoilt"])
    if stuck:
        found.add("stuck")
    if signals.get("non_finite_step") is not None:
        found.add("non-finite")
    overfits = signals.get("validation_loss", 0) > 2 * signals.get("training_loss", 1e9)
    if overfits and signals.get("turned_epoch") is not None:
        found.add("overfitting")
    return found or {"healthy"}


def family(run: Run) -> tuple[Any, ...]:
    """Return what a run shares with its unspoilt siblings."""
    return tuple(value for key, value in run["cell"].items() if key not in ("spoilt", "batch_size", "activation"))


ACCEPTED: dict[str, tuple[str, ...]] = {
    "too high": (Cause.TOO_HIGH, Cause.DEAD_FROM_RATE),
    "too low": (Cause.TOO_LOW,),
    "batch too small": (Cause.BATCH_TOO_SMALL,),
    "x20": (Cause.BAD_SCALE,),
    "unscaled": (Cause.BAD_SCALE, "inputs far from unit scale", "inputs on a scale that hinders"),
    "zero": (Cause.DEAD_AT_START, Cause.BAD_SCALE, "units that are all the same"),
    "dead": (Cause.DEAD_AT_START,),
    "random labels": (Cause.NOTHING_TO_LEARN,),
    "one unit": (Cause.LOW_CAPACITY, Cause.BELOW_BASELINE),
    "ten sigmoid layers": (Cause.VANISHING,),
    "stuck": (Cause.VANISHING, Cause.BAD_SCALE, "an optimizer that does not suit"),
    "few samples": (Cause.OVERFITTING,),
    "overfitting": (Cause.OVERFITTING,),
    "non-finite": (Cause.NON_FINITE,),
    "healthy": (Cause.HEALTHY,),
}
"""Which verdicts are right for which truth: causes, and faults by their names."""


def accepted(truth: set[str]) -> set[str]:
    """Return the verdicts that are right."""
    return {cause for name in truth for cause in ACCEPTED[name]}
