"""How often is the diagnosis right? Hundreds of short labelled runs, and what became of their siblings.

    python benchmarks/diagnosis.py run         # makes data/diagnosis_runs.jsonl; hours, resumable, in parts
    python benchmarks/diagnosis.py forks       # diagnoses a sample of them by forks; about a minute each, resumable
    python benchmarks/diagnosis.py overhead    # what measuring costs
    python benchmarks/diagnosis_report.py      # the tables of docs/diagnosis.md from these files, in seconds

A *cell* is one network, optimizer, batch size, start and seed; its runs differ in the learning rate alone. What is
wrong with a run is read off its siblings (labels.py), never off the detector.
"""

import argparse
import dataclasses
import functools
import random
import re
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from cells import Cell, blind_cells, cells, fresh_cells, rates
from labels import FORKS, RUNS, append, group, key, last, read, truths
from lesson.network import ACTIVATIONS, MLP
from networks import OPTIMIZERS, Lit, Residual, convolutional, evaluate, feed_forward, take_step
from problems import Data, load_for_diagnosis
from unstall import Meter, Report, Score, Signals, fork, screening_steps

STEPS = {1: 1600, 8: 960, 32: 500, 128: 320, 1024: 120}
READINGS = 25, 50, 100, 200


class Concatenated(nn.Module):
    """Append what a layer makes of its inputs to them."""

    def __init__(self, inputs: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(inputs, width), activation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, inputs) to (batch, inputs + width)."""
        return torch.cat([inputs, self.layer(inputs)], dim=1)


def build(cell: Cell, inputs: int) -> nn.Module:
    """Build the cell's network from the global seed."""
    activation = ACTIVATIONS[cell.activation]
    if cell.network == "batchnorm":
        module: nn.Module = feed_forward([inputs, 256, 128, 10], activation, nn.BatchNorm1d)
    elif cell.network == "layernorm":
        module = feed_forward([inputs, 256, 256, 10], activation, nn.LayerNorm)
    elif cell.network == "residual":
        skipped = [Residual(128, activation()) for _ in range(4)]
        module = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 128), *skipped, nn.Linear(128, 10))
    elif cell.network == "dropout":
        module = feed_forward([inputs, 384, 192, 10], activation, dropout=0.2)
    elif cell.network == "concatenated":
        blocks = [Concatenated(inputs + 96 * depth, 96, activation()) for depth in range(3)]
        module = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(inputs + 3 * 96, 10))
    elif cell.network == "cnn":
        module = convolutional(activation)
    else:
        hidden = {"mlp": [512 if inputs == 784 else 128], "deep": [256] * 3}[cell.network]
        hidden = {"one unit": [1], "ten sigmoid layers": [64] * 10}.get(cell.spoilt, hidden)
        module = MLP([inputs, *hidden, 10], activation=cell.activation)  # type: ignore[arg-type]
    with torch.no_grad():
        for weight in module.parameters():
            if weight.ndim > 1:
                weight.mul_({"x20": 20.0, "zero": 0.0}.get(cell.spoilt, 1.0))
            elif cell.spoilt == "dead" and len(weight) != 10:
                weight.fill_(-10.0)
    return module


def train(cell: Cell, rate: float, data: Data, enlarge: int = 1) -> dict[str, Any]:
    """Train one run; return its signals at a few steps and what it came to."""
    inputs, labels, held_inputs, held_labels = spoil(cell, data)
    batch_size, steps = cell.batch_size * enlarge, STEPS[cell.batch_size] // enlarge
    module = build(cell, inputs[0].numel())
    optimizer = OPTIMIZERS[cell.optimizer](module.parameters(), lr=rate)
    group = optimizer.param_groups[0]
    meter = Meter(module, momentum=group.get("momentum") or group.get("betas", [0.0])[0])
    readings = {}
    for step, batch in zip(range(1, steps + 1), batches(len(labels), batch_size, cell.seed), strict=False):
        take_step(module, optimizer, inputs[batch], labels[batch], meter)
        if step % (steps // 4) == 0:
            meter.end_epoch()
            held_loss, accuracy = evaluate(module, held_inputs, held_labels)
            meter.validated(held_loss, step)
        if step in READINGS or step == steps:
            readings[step] = {
                name: float(f"{value:.4g}")
                for name, value in dataclasses.asdict(meter.read()).items()
                if value is not None
            }
    return {"accuracy": round(accuracy, 4), "held_out_loss": float(f"{held_loss:.4g}"), "readings": readings}


def spoil(cell: Cell, data: Data) -> Data:
    """Seed the global generator and return the cell's data, spoilt if they are to be."""
    inputs, labels, held_inputs, held_labels = data
    torch.manual_seed(cell.seed)
    if cell.spoilt == "random labels":
        labels = torch.randint(10, labels.shape)
    if cell.spoilt == "unscaled":
        inputs, held_inputs = inputs * 255, held_inputs * 255
    if cell.spoilt == "few samples":
        inputs, labels = inputs[:500], labels[:500]
    return inputs, labels, held_inputs, held_labels


def batches(samples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield index batches of shuffled epochs for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from torch.split(order[: max(1, samples // batch_size) * batch_size], batch_size)


def run(limit: int, part: int, parts: int) -> None:
    """Train whatever is not yet in the file of runs, and append it; of several processes, each takes its part."""
    torch.set_flush_denormal(True)
    done = set(map(key, read()))
    load = functools.cache(load_for_diagnosis)
    todo = [(cell, rate) for cell in [*cells(), *fresh_cells(), *blind_cells()] for rate in rates(cell)]
    print(f"{len(todo)} runs, {len(done)} done")
    for cell, rate in todo[part:limit:parts]:
        if (dataclasses.astuple(cell), rate) in done:
            continue
        result = train(cell, rate, load(cell.data))
        if cell.batch_size <= 8:
            result["larger_batch"] = train(cell, rate, load(cell.data), enlarge=16)["accuracy"]
        append(RUNS, {"cell": dataclasses.asdict(cell), "rate": rate, **result})


def run_forks(limit: int, part: int, parts: int, only: str = "") -> None:
    """Diagnose a sample of the runs by forks, retrain each in full with the fix, and append what came of it.

    `only` takes the runs of one group, or those with nothing wrong (`healthy`).
    """
    torch.set_flush_denormal(True)
    runs = read()
    pairs = list(zip(runs, truths(runs), strict=True))
    random.Random(1).shuffle(pairs)
    # The rarer what is wrong, the earlier its turn: every kind is in any sample.
    turn: dict[tuple[str, str], int] = {}
    order = []
    for run, truth in pairs:
        kind = sorted(truth)[0], group(run)
        turn[kind] = turn.get(kind, 0) + 1
        order.append((turn[kind], group(run), sorted(truth), run))
    order.sort(key=lambda item: item[:3])
    order = [item for item in order if not only or only == item[1] or [only] == item[2]]
    done = set(map(key, read(FORKS)))
    load = functools.cache(load_for_diagnosis)
    best: dict[Cell, float] = {}
    for run in runs:
        cell = Cell(**run["cell"])
        best[cell] = max(run["accuracy"], best.get(cell, 0.0))
    for _, _, _, run in order[part:limit:parts]:
        if key(run) in done:
            continue
        cell = Cell(**run["cell"])
        report, retrained, changed = diagnose_by_forks(cell, run["rate"], last(run), load(cell.data))
        if changed not in best:  # such as sigmoid layers that are given ReLU
            best[changed] = max(train(changed, rate, load(cell.data))["accuracy"] for rate in rates(changed))
        result = {
            "cell": run["cell"],
            "rate": run["rate"],
            "cause": getattr(report.verdict.cause, "value", str(report.verdict.cause)),
            "confidence": report.verdict.confidence,
            "fix": None if report.fix is None else report.fix.change,
            "accuracy": run["accuracy"],
            "retrained": retrained,
            "best": best[changed],
            "forks": [[f.change, *_rounded(f.before), *_rounded(f.after)] for f in report.forks],
        }
        append(FORKS, result)


def _rounded(score: Score) -> tuple[float, float | None]:
    return float(f"{score.loss:.4g}"), None if score.accuracy is None else round(score.accuracy, 4)


def diagnose_by_forks(
    cell: Cell, rate: float, signals: dict[str, Any], data: Data
) -> tuple[Report, float | None, Cell]:
    """Return the report of `fork`, the accuracy of a whole run with its fix, and that run's cell.

    No accuracy of a fix that no cell has, such as another loss or more epochs.
    """
    inputs, labels, held_inputs, held_labels = spoil(cell, data)
    module = Lit(build(cell, inputs[0].numel()), functools.partial(OPTIMIZERS[cell.optimizer], lr=rate))
    count = min(4 * screening_steps(cell.batch_size), STEPS[cell.batch_size])
    order = batches(len(labels), cell.batch_size, cell.seed)
    training = [(inputs[batch], labels[batch]) for batch, _ in zip(order, range(count), strict=False)]
    held_out = list(zip(torch.split(held_inputs, 1000), torch.split(held_labels, 1000), strict=True))
    report = fork(module, training, held_out, signals=Signals(**{**signals, "step": int(signals["step"])}))
    change = "" if report.fix is None else report.fix.change
    if not change.startswith(("learning rate", "batch", "initial", "inputs", "ReLU", "Adam", "128 units")):
        return report, None, cell
    given = re.search(r"learning rate ([\d.e+-]+)", change)
    new = float(given[1]) if given else rate
    if change.startswith(("initial", "inputs", "128 units")):
        cell = dataclasses.replace(cell, spoilt="")
    elif change.startswith("ReLU"):
        cell = dataclasses.replace(cell, activation="relu")
    elif change.startswith("Adam"):
        cell = dataclasses.replace(cell, optimizer="Adam")
    enlarge = int(change.split()[-1]) // cell.batch_size if change.startswith("batch") else 1
    return report, train(cell, new, data, enlarge)["accuracy"], cell


def overhead(blocks: int = 60, steps: int = 100) -> None:
    """Print how much longer a step takes with the meter: blocks with and without it in turn, in one process."""
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    inputs, labels = torch.rand(20_000, 784), torch.randint(10, (20_000,))
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for block in range(2 * blocks):
        metered = (block + block // 2) % 2 == 0
        module = MLP([784, 512, 10])
        optimizer = OPTIMIZERS["RMSprop"](module.parameters(), lr=1e-3)
        meter = Meter(module)
        order = batches(len(labels), 128, block)
        begin = time.perf_counter()
        for _, batch in zip(range(steps), order, strict=False):
            take_step(module, optimizer, inputs[batch], labels[batch], meter if metered else None)
        if metered:
            meter.read()  # the callback's default interval
        seconds[metered].append(time.perf_counter() - begin)
    with_it, without = sorted(seconds[True]), sorted(seconds[False])
    ratios = [with_it[len(with_it) // k] / without[len(without) // k] for k in (4, 2)]
    print(f"a step with the meter takes {ratios[1]:.3f} times as long (medians; lower quartiles: {ratios[0]:.3f})")


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "forks", "overhead"])
    parser.add_argument("--limit", type=int, default=100_000, help="only the first so many runs")
    parser.add_argument("--part", type=int, nargs=2, default=(0, 1), metavar=("K", "N"), help="every N-th run from K")
    parser.add_argument("--only", default="", help="forks: only this group of runs, or only healthy ones")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.limit, *arguments.part)
    elif arguments.command == "forks":
        part, parts = arguments.part
        run_forks(arguments.limit, part, parts, arguments.only)
    else:
        overhead()


if __name__ == "__main__":
    main()
