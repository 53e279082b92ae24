"""Optimizers that promise to need no learning rate, in whole fits on the blind cells of lr_find.py.

Real packages at their defaults: Prodigy, D-Adaptation (Adam), DoG with the average of the weights that its authors
evaluate, Schedule-Free AdamW. Beside them what people do without a search: the optimizers' own default rates, and
whichever half-decade rate is best after one epoch::

    python benchmarks/tuning_free.py run       # resumes; keeps benchmarks/data/tuning_free.csv
    python benchmarks/tuning_free.py report    # the table of docs/lr_find.md

A loss is against the best rate of the cell's own optimizer, so a rival that trains better has one below zero.
"""

import argparse
import functools
import importlib
import importlib.util
import inspect
import time
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from lr_find import LOOKS, MAKERS, OTHERS, PICKS, Cell, accuracy_at, append_rows, read_rows, read_truth
from measuring import RESULTS, table
from networks import build_network, evaluate, take_step
from problems import PROBLEMS, Data

FULL_FITS = RESULTS / "tuning_free.csv"
PACKAGES = {
    "Prodigy": ("prodigyopt", "Prodigy"),
    "D-Adaptation": ("dadaptation", "DAdaptAdam"),
    "DoG": ("dog", "DoG"),
    "Schedule-Free AdamW": ("schedulefree", "AdamWScheduleFree"),
}
COSTS = {
    "ours": "a search before the fit",
    "Prodigy": "another optimizer; two to three more copies of the weights",
    "D-Adaptation": "another optimizer; one more copy of the weights",
    "DoG": "another optimizer; the averaged weights must be evaluated in place of the trained ones",
    "Schedule-Free AdamW": "another optimizer; `.train()` and `.eval()` of the optimizer around each evaluation",
    "own default": "nothing",
    "best after one epoch": "an epoch of each rate",
}


def blind_cells() -> Iterator[tuple[Cell, dict[float, float]]]:
    """At batch 1024 first, which is soon done."""
    for batch_size in (1024, 128):
        for cell, accuracies in read_truth().items():
            if cell.data in OTHERS and cell.seed and cell.batch_size == batch_size:
                yield cell, accuracies


def train(
    cell: Cell,
    data: Data,
    make: Callable[[Any], torch.optim.Optimizer],
    averaged: bool = False,
    epochs: int | None = None,
) -> tuple[float, int]:
    """Validation accuracy over the last tenth of the steps, as lr_find.py has it, and the steps made."""
    inputs, targets, held_out, held_out_targets = data
    torch.manual_seed(cell.seed)
    network: nn.Module = build_network(cell.architecture, data)
    optimizer: Any = make(network.parameters())
    averager = importlib.import_module("dog").PolynomialDecayAverager(network) if averaged else None
    batches: list[Tensor] = []
    for _ in range(epochs or PROBLEMS[cell.data].epochs):
        batches += torch.split(torch.randperm(len(inputs)), cell.batch_size)
    looks = {len(batches) - round(i * len(batches) / 40) for i in range(LOOKS)} if epochs is None else {len(batches)}
    schedule_free = hasattr(optimizer, "eval")
    accuracies = []
    for step, indices in enumerate(batches, start=1):
        if schedule_free:
            optimizer.train()
        take_step(network, optimizer, inputs[indices], targets[indices])
        if averager is not None:
            averager.step()
        if step in looks:
            if schedule_free:
                optimizer.eval()
            evaluated = network if averager is None else averager.averaged_model
            accuracies.append(evaluate(evaluated, held_out, held_out_targets)[1])
    return fmean(accuracies), len(batches)


def run() -> None:
    """Train what the file lacks."""
    done = {(row["cell"], row["rule"]) for row in read_rows(FULL_FITS)}
    load = functools.cache(lambda name: PROBLEMS[name].load(""))
    trained: dict[tuple[str, ...], tuple[float, int]] = {}
    for cell, accuracies in blind_cells():
        for rule, (package, name) in PACKAGES.items():
            if (cell.name, rule) in done or importlib.util.find_spec(package) is None:
                continue
            key = rule, cell.data, cell.architecture, str(cell.batch_size)
            if key not in trained:  # whatever the cell's own optimizer is
                make = getattr(importlib.import_module(package), name)
                trained[key] = train(cell, load(cell.data), make, averaged=rule == "DoG")
            write(cell, rule, *trained[key])
        if (cell.name, "best after one epoch") not in done:
            after, steps = {}, 0
            for rate in accuracies:
                make = functools.partial(MAKERS[cell.optimizer], lr=rate)
                after[rate], more = train(cell, load(cell.data), make, epochs=1)
                steps += more
            write(cell, "best after one epoch", accuracies[max(after, key=lambda rate: after[rate])], steps)
        if (cell.name, "own default") not in done:
            maker = MAKERS[cell.optimizer]
            own = inspect.signature(getattr(maker, "func", maker)).parameters["lr"].default
            if isinstance(own, float):
                write(cell, "own default", accuracy_at(own, accuracies), 0)


def write(cell: Cell, rule: str, accuracy: float, steps: int) -> None:
    """Append what a rule comes to."""
    append_rows(FULL_FITS, ["cell", "rule", "accuracy", "steps"], [[cell.name, rule, f"{accuracy:.4f}", steps]])
    print(cell.name, rule, f"{accuracy:.4f}", f"{time.process_time():.0f} s", flush=True)


def report() -> None:
    """Print the table."""
    cells = {cell.name: accuracies for cell, accuracies in blind_cells()}
    rows = read_rows(FULL_FITS)
    complete = {row["cell"] for row in rows}
    losses: dict[str, list[float]] = {"ours": []}
    steps: dict[str, list[int]] = {"ours": []}
    for row in read_rows(PICKS):
        if row["rule"] == "ours" and row["cell"] in complete:
            found = accuracy_at(float(row["learning_rate"]), cells[row["cell"]])
            losses["ours"].append(100 * (max(cells[row["cell"]].values()) - found))
            steps["ours"].append(int(row["steps"]))
    for row in rows:
        loss = 100 * (max(cells[row["cell"]].values()) - float(row["accuracy"]))
        losses.setdefault(row["rule"], []).append(loss)
        steps.setdefault(row["rule"], []).append(0 if row["rule"] in PACKAGES else int(row["steps"]))
    lines = []
    for rule, values in losses.items():
        within = sum(value <= 1 for value in values) / len(values)
        beside = sorted(steps[rule])[len(values) // 2]
        figures = f"{within:.0%}", f"{fmean(values):.1f}", f"{max(values):.1f}"
        lines.append([rule, *figures, beside, len(values), COSTS[rule]])
    header = "| blind cells | within a point | mean loss | worst loss | steps beside the fit | fits | what it costs |"
    print("\n".join(table(header, lines)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    {"run": run, "report": report}[arguments.command]()


if __name__ == "__main__":
    main()
