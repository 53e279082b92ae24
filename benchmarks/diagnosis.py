"""How often is the diagnosis right? Hundreds of short labelled runs, and what became of their siblings.

    python benchmarks/diagnosis.py run         # makes benchmarks/diagnosis_runs.jsonl; hours, resumable, in parts
    python benchmarks/diagnosis.py forks       # diagnoses a sample of them by forks; about a minute each, resumable
    python benchmarks/diagnosis.py overhead    # what measuring costs
    python benchmarks/diagnosis_report.py      # the tables of docs/diagnosis.md from these files, in seconds

A *cell* is one network, optimizer, batch size, start and seed; its runs differ in the learning rate alone. What is
wrong with a run is read off its siblings (see `truths`), never off the detector.
"""

import argparse
import dataclasses
import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from problems import Residual
from unstall.diagnosis import Cause
from unstall.forks import Report, fork, screening_steps
from unstall.judge import Score
from unstall.meter import Meter
from unstall.network import MLP
from unstall.optimizer import KerasRMSprop
from unstall.signals import Signals

RUNS = Path(__file__).with_name("diagnosis_runs.jsonl")
FORKS = Path(__file__).with_name("diagnosis_forks.jsonl")
ROOT = Path(__file__).parents[1]
STEPS = {1: 1600, 8: 960, 32: 500, 128: 320, 1024: 120}
READINGS = 25, 50, 100, 200
DEVELOPMENT = "mlp", "deep"
"""Networks on which thresholds were chosen at first, on MNIST."""
FRESH = "layernorm", "residual"
"""Networks on which no threshold was chosen; what their runs showed mended two rules (docs/diagnosis.md)."""
BLIND = "dropout", "concatenated"
"""Networks whose runs were made last; no rule of the signals was changed after them, and one of the forks was."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """What a group of runs has in common."""

    network: str
    activation: str
    optimizer: str
    batch_size: int
    spoilt: str
    data: str
    seed: int


def optimizers() -> dict[str, Callable[..., torch.optim.Optimizer]]:
    """Return the optimizers; RMSprop has Keras's constants, KerasRMSprop its formula, too."""
    return {
        "SGD": torch.optim.SGD,
        "momentum": lambda weights, lr: torch.optim.SGD(weights, lr=lr, momentum=0.9),
        "RMSprop": lambda weights, lr: torch.optim.RMSprop(weights, lr=lr, alpha=0.9, eps=1e-7),
        "KerasRMSprop": KerasRMSprop,
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
        "Adagrad": torch.optim.Adagrad,
    }


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
    activations: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    activation = activations[cell.activation]
    if cell.network == "batchnorm":
        module: nn.Module = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 256), nn.BatchNorm1d(256), activation(),
            nn.Linear(256, 128), nn.BatchNorm1d(128), activation(), nn.Linear(128, 10),
        )  # fmt: skip
    elif cell.network == "layernorm":
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 256), nn.LayerNorm(256), activation(),
            nn.Linear(256, 256), nn.LayerNorm(256), activation(), nn.Linear(256, 10),
        )  # fmt: skip
    elif cell.network == "residual":
        skipped = [Residual(128, activation()) for _ in range(4)]
        module = nn.Sequential(nn.Flatten(), nn.Linear(inputs, 128), *skipped, nn.Linear(128, 10))
    elif cell.network == "dropout":
        module = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 384), activation(), nn.Dropout(0.2),
            nn.Linear(384, 192), activation(), nn.Dropout(0.2), nn.Linear(192, 10),
        )  # fmt: skip
    elif cell.network == "concatenated":
        blocks = [Concatenated(inputs + 96 * depth, 96, activation()) for depth in range(3)]
        module = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(inputs + 3 * 96, 10))
    elif cell.network == "cnn":
        module = nn.Sequential(
            nn.Conv2d(1, 8, 5, stride=2), activation(), nn.Conv2d(8, 16, 5, stride=2), activation(), nn.Flatten(),
            nn.Linear(256, 10),
        )  # fmt: skip
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


def load(name: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training inputs and labels, and held-out ones, inputs in [0, 1]."""
    if name == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        inputs, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        inputs, labels = inputs[order].reshape(-1, 1, 8, 8), labels[order]
        return inputs[:1400], labels[:1400], inputs[1400:], labels[1400:]
    if name == "synthetic":
        from sklearn.datasets import make_classification

        features, labels = make_classification(
            8000, 64, n_informative=24, n_redundant=8, n_classes=10, class_sep=2.0, random_state=0
        )
        inputs, labels = torch.tensor(features, dtype=torch.float32), torch.tensor(labels)
        inputs = (inputs / inputs.std()).reshape(-1, 1, 8, 8)
        return inputs[:6000], labels[:6000], inputs[6000:], labels[6000:]
    if name == "spheres":
        from sklearn.datasets import make_gaussian_quantiles

        features, labels = make_gaussian_quantiles(n_samples=8000, n_features=8, n_classes=5, random_state=0)
        inputs, labels = torch.tensor(features, dtype=torch.float32).reshape(-1, 1, 2, 4), torch.tensor(labels)
        return inputs[:6000], labels[:6000], inputs[6000:], labels[6000:]
    from torchvision.datasets import MNIST

    mnist = MNIST(ROOT / "data")
    inputs, labels = mnist.data[:, None] / 255, mnist.targets
    return inputs[:48_000], labels[:48_000], inputs[48_000:50_000], labels[48_000:50_000]


def train(cell: Cell, rate: float, data: tuple[Tensor, Tensor, Tensor, Tensor], enlarge: int = 1) -> dict[str, Any]:
    """Train one run; return its signals at a few steps and what it came to."""
    inputs, labels, held_inputs, held_labels = spoil(cell, data)
    batch_size, steps = cell.batch_size * enlarge, STEPS[cell.batch_size] // enlarge
    module = build(cell, inputs[0].numel())
    optimizer = optimizers()[cell.optimizer](module.parameters(), lr=rate)
    group = optimizer.param_groups[0]
    meter = Meter(module, momentum=group.get("momentum") or group.get("betas", [0.0])[0])
    readings = {}
    for step, batch in zip(range(1, steps + 1), batches(len(labels), batch_size, cell.seed), strict=False):
        loss = F.cross_entropy(module(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        meter.before_step()
        optimizer.step()
        meter.after_batch(loss, labels[batch])
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


def spoil(cell: Cell, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
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


@torch.no_grad()
def evaluate(module: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the held-out loss and accuracy."""
    module.eval()
    logits = module(inputs)
    module.train()
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def cells() -> list[Cell]:
    """Return the sampled cells in random order, each followed by its spoilt sibling."""
    draw = random.Random(0)
    chosen = []
    spoils = {
        "mlp": ["x20", "zero", "dead", "unscaled", "random labels", "one unit", "ten sigmoid layers", "few samples"],
        "deep": ["x20", "dead", "unscaled", "random labels", "few samples", "zero"],
        "batchnorm": ["random labels", "few samples", "zero"],
        "cnn": ["x20", "dead", "unscaled", "random labels", "few samples", "zero"],
    }
    names = list(optimizers())
    plan = [
        (network, data, index)
        for network, data, count in (
            ("mlp", "mnist", 10), ("deep", "mnist", 8), ("batchnorm", "mnist", 6), ("cnn", "mnist", 6),
            ("mlp", "digits", 6), ("deep", "digits", 3),
        )
        for index in range(count)
    ]  # fmt: skip
    draw.shuffle(plan)
    for network, data, index in plan:
        optimizer = names[index % len(names)]
        sizes = [128, 1, 128, 8, 32, 1024] if network in DEVELOPMENT else [128, 8, 128, 32]
        size = sizes[index % len(sizes)] if (network, data) != ("mlp", "digits") else (128, 8, 32)[index % 3]
        size = 32 if size == 1024 and (network == "cnn" or data == "digits") else size
        activation = draw.choice(["relu", "relu", "tanh", "sigmoid"])
        base = Cell(network, activation, optimizer, size, "", data, index % 3)
        chosen.append(base)
        spoilt = spoils[network][index % len(spoils[network])]
        chosen.append(
            dataclasses.replace(
                base,
                spoilt=spoilt,
                batch_size=max(size, 32) if size == 1 else size,
                activation={"dead": "relu", "zero": "relu", "ten sigmoid layers": "sigmoid"}.get(spoilt, activation),
            )
        )
    return chosen


def fresh_cells() -> list[Cell]:
    """Return cells of networks, a data set and seeds that no threshold was chosen on."""
    names = ["SGD", "momentum", "KerasRMSprop", "Adam", "AdamW", "Adagrad"]
    return _pairs(FRESH, ["mnist"] * 4 + ["synthetic"] * 3, names, seed=3)


def blind_cells() -> list[Cell]:
    """Return cells of other networks, another data set and other seeds still."""
    names = ["Adam", "KerasRMSprop", "Adagrad", "momentum", "SGD", "AdamW"]
    return _pairs(BLIND, ["mnist"] * 3 + ["spheres"] * 3, names, seed=6)


def _pairs(networks: tuple[str, ...], data_sets: list[str], names: list[str], seed: int) -> list[Cell]:
    """Return one cell for each network and data set, each followed by its spoilt sibling."""
    draw = random.Random(seed)
    spoils = ["x20", "dead", "unscaled", "random labels", "few samples", "zero"]
    plan = [(network, data) for data in data_sets for network in networks]
    chosen = []
    for index, (network, data) in enumerate(plan):
        size = (128, 32, 8, 128)[index // 2 % 4]
        activation = draw.choice(["relu", "relu", "tanh", "sigmoid"])
        base = Cell(network, activation, names[index % 6], size, "", data, seed + index % 3)
        spoilt = spoils[(5 * index + index // 6) % 6]
        if network == "layernorm" and spoilt == "dead":  # normalised units are not
            spoilt = "x20"
        relu = spoilt in ("dead", "zero")
        chosen += [base, dataclasses.replace(base, spoilt=spoilt, activation="relu" if relu else activation)]
    return chosen


def rates(cell: Cell) -> list[float]:
    """Return nine rates a decade apart, moved by half a decade in every other seed."""
    highest = 2 if cell.optimizer in ("SGD", "momentum") else 1
    return [10 ** (highest - 0.5 * (cell.seed % 2) - decade) for decade in range(9)]


def run(limit: int, part: int, parts: int) -> None:
    """Train whatever is not yet in the file of runs, and append it; of several processes, each takes its part."""
    torch.set_flush_denormal(True)
    done = set(map(key, read()))
    data: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    todo = [(cell, rate) for cell in [*cells(), *fresh_cells(), *blind_cells()] for rate in rates(cell)]
    print(f"{len(todo)} runs, {len(done)} done")
    for cell, rate in todo[part:limit:parts]:
        if (dataclasses.astuple(cell), rate) in done:
            continue
        if cell.data not in data:
            data[cell.data] = load(cell.data)
        result = train(cell, rate, data[cell.data])
        if cell.batch_size <= 8:
            result["larger_batch"] = train(cell, rate, data[cell.data], enlarge=16)["accuracy"]
        with RUNS.open("a") as file:
            file.write(json.dumps({"cell": dataclasses.asdict(cell), "rate": rate, **result}) + "\n")


def read(file: Path = RUNS) -> list[dict[str, Any]]:
    """Return the runs on disk."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def key(run: dict[str, Any]) -> tuple[tuple[Any, ...], float]:
    """Return what tells a run from all others: its cell and its rate."""
    return tuple(run["cell"].values()), run["rate"]


def group(run: dict[str, Any]) -> str:
    """Return what part the run's network and data had in the choice of thresholds (docs/diagnosis.md)."""
    network, data = run["cell"]["network"], run["cell"]["data"]
    later = {**dict.fromkeys(FRESH, "fresh"), **dict.fromkeys(BLIND, "blind")}
    if network in later:
        return later[network]
    return "development" if network in DEVELOPMENT and data != "digits" else "held-out"


def last(run: dict[str, Any]) -> dict[str, Any]:
    """Return the signals at the end of a run."""
    readings: dict[str, dict[str, Any]] = run["readings"]
    return list(readings.values())[-1]


def truths(runs: list[dict[str, Any]]) -> list[set[str]]:
    """Return what is wrong with each run, by what became of its siblings; several things may be.

    A rate is *too high* (*too low*) if a rate at least ten times lower (higher) in the same cell ends with five points
    of accuracy more; a batch is *too small* if one sixteen times larger does, at the same rate and with as many
    samples. A spoilt start, network or data set counts if no rate in its cell comes within five points of the best
    rate of its unspoilt sibling, or above one half. A cell is *stuck* if no rate takes the unspoilt network that far.
    Where it is, and with random labels, accuracy says nothing about rates: there the training loss must differ by 2 %
    of the prior's entropy. In overfitting the held-out loss rose, and more than doubled the training loss: that is its
    definition.
    """
    cells: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        cells.setdefault(tuple(run["cell"].values()), []).append(run)
    best = {cell: max(run["accuracy"] for run in siblings) for cell, siblings in cells.items()}
    unspoilt: dict[tuple[Any, ...], float] = {}
    for cell, siblings in cells.items():
        if not siblings[0]["cell"]["spoilt"]:
            unspoilt[family(siblings[0])] = max(unspoilt.get(family(siblings[0]), 0.0), best[cell])
    return [_truth(run, cells[tuple(run["cell"].values())], best, unspoilt) for run in runs]


def _truth(
    run: dict[str, Any],
    siblings: list[dict[str, Any]],
    best: dict[tuple[Any, ...], float],
    unspoilt: dict[tuple[Any, ...], float],
) -> set[str]:
    cell, signals = run["cell"], last(run)
    reached = best[tuple(cell.values())]
    stuck = not cell["spoilt"] and reached < 0.5

    def better(other: dict[str, Any]) -> bool:
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


def family(run: dict[str, Any]) -> tuple[Any, ...]:
    """Return what a run shares with its unspoilt siblings."""
    return tuple(value for key, value in run["cell"].items() if key not in ("spoilt", "batch_size", "activation"))


ACCEPTED: dict[str, tuple[Cause, ...]] = {
    "too high": (Cause.TOO_HIGH, Cause.DEAD_FROM_RATE),
    "too low": (Cause.TOO_LOW,),
    "batch too small": (Cause.BATCH_TOO_SMALL,),
    "x20": (Cause.BAD_SCALE,),
    "unscaled": (Cause.BAD_SCALE,),
    "zero": (Cause.DEAD_AT_START, Cause.BAD_SCALE),
    "dead": (Cause.DEAD_AT_START,),
    "random labels": (Cause.NOTHING_TO_LEARN,),
    "one unit": (Cause.LOW_CAPACITY, Cause.BELOW_BASELINE),
    "ten sigmoid layers": (Cause.VANISHING,),
    "stuck": (Cause.VANISHING, Cause.BAD_SCALE),
    "few samples": (Cause.OVERFITTING,),
    "overfitting": (Cause.OVERFITTING,),
    "non-finite": (Cause.NON_FINITE,),
    "healthy": (Cause.HEALTHY,),
}
"""Which verdicts are right for which truth."""


def accepted(truth: set[str]) -> set[Cause]:
    """Return the verdicts that are right."""
    return {cause for name in truth for cause in ACCEPTED[name]}


class Lit(pl.LightningModule):
    """A run of the grid as a LightningModule, for the forks."""

    def __init__(self, cell: Cell, rate: float, network: nn.Module) -> None:
        super().__init__()
        self.network, self.cell, self.rate = network, cell, rate

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the cross-entropy; log the accuracy."""
        logits = self.network(batch[0])
        self.log("train/accuracy", (logits.argmax(1) == batch[1]).float().mean())
        return F.cross_entropy(logits, batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the cell's optimizer."""
        return optimizers()[self.cell.optimizer](self.parameters(), lr=self.rate)


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
    data = {name: load(name) for name in ("mnist", "digits", "synthetic", "spheres")}
    best: dict[Cell, float] = {}
    for run in runs:
        cell = Cell(**run["cell"])
        best[cell] = max(run["accuracy"], best.get(cell, 0.0))
    for _, _, _, run in order[part:limit:parts]:
        if key(run) in done:
            continue
        cell = Cell(**run["cell"])
        report, retrained, changed = diagnose_by_forks(cell, run["rate"], last(run), data[cell.data])
        if changed not in best:  # such as sigmoid layers that are given ReLU
            best[changed] = max(train(changed, rate, data[cell.data])["accuracy"] for rate in rates(changed))
        result = {
            "cell": run["cell"],
            "rate": run["rate"],
            "cause": report.verdict.cause.value,
            "confidence": report.verdict.confidence,
            "fix": None if report.fix is None else report.fix.change,
            "accuracy": run["accuracy"],
            "retrained": retrained,
            "best": best[changed],
            "forks": [[f.change, *_rounded(f.before), *_rounded(f.after)] for f in report.forks],
        }
        with FORKS.open("a") as file:
            file.write(json.dumps(result) + "\n")


def _rounded(score: Score) -> tuple[float, float | None]:
    return float(f"{score.loss:.4g}"), None if score.accuracy is None else round(score.accuracy, 4)


def diagnose_by_forks(
    cell: Cell, rate: float, signals: dict[str, Any], data: tuple[Tensor, Tensor, Tensor, Tensor]
) -> tuple[Report, float | None, Cell]:
    """Return the report of `fork`, the accuracy of a whole run with its fix, and that run's cell."""
    inputs, labels, held_inputs, held_labels = spoil(cell, data)
    module = Lit(cell, rate, build(cell, inputs[0].numel()))
    count = min(4 * screening_steps(cell.batch_size), STEPS[cell.batch_size])
    order = batches(len(labels), cell.batch_size, cell.seed)
    training = [(inputs[batch], labels[batch]) for batch, _ in zip(order, range(count), strict=False)]
    held_out = list(zip(torch.split(held_inputs, 1000), torch.split(held_labels, 1000), strict=True))
    report = fork(module, training, held_out, signals=Signals(**{**signals, "step": int(signals["step"])}))
    if report.fix is None:
        return report, None, cell
    change = report.fix.change
    given = re.search(r"learning rate ([\d.e+-]+)", change)
    new = float(given[1]) if given else rate
    if change.startswith(("initial", "inputs")):
        cell = dataclasses.replace(cell, spoilt="")
    elif change.startswith("ReLU"):
        cell = dataclasses.replace(cell, activation="relu")
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
        optimizer = optimizers()["RMSprop"](module.parameters(), lr=1e-3)
        meter = Meter(module)
        order = batches(len(labels), 128, block)
        begin = time.perf_counter()
        for _, batch in zip(range(steps), order, strict=False):
            loss = F.cross_entropy(module(inputs[batch]), labels[batch])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            if metered:
                meter.before_step()
            optimizer.step()
            if metered:
                meter.after_batch(loss, labels[batch])
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
