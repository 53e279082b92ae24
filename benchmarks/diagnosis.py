"""How often is the diagnosis right? Hundreds of short labelled runs, and what became of their siblings.

    python benchmarks/diagnosis.py run       # makes benchmarks/diagnosis_runs.jsonl, resumable; about an hour
    python benchmarks/diagnosis.py           # the table of docs/diagnosis.md, from that file, in seconds

A *cell* is one network, optimizer, batch size, start and seed; its runs differ in the learning rate alone. What is
wrong with a run is read off its siblings (see `truths`), never off the detector.
"""

import argparse
import dataclasses
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall.network import MLP
from unstall.meter import Meter

RUNS = Path(__file__).with_name("diagnosis_runs.jsonl")
ROOT = Path(__file__).parents[1]
STEPS = {1: 1600, 8: 960, 32: 500, 128: 320, 1024: 120}
READINGS = 25, 50, 100, 200
DEVELOPMENT = "mlp", "deep"
"""Networks on which thresholds were chosen; all others, and the data set digits, were only reported on."""


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
    """Return the optimizers; RMSprop has Keras's constants."""
    return {
        "SGD": torch.optim.SGD,
        "momentum": lambda weights, lr: torch.optim.SGD(weights, lr=lr, momentum=0.9),
        "RMSprop": lambda weights, lr: torch.optim.RMSprop(weights, lr=lr, alpha=0.9, eps=1e-7),
        "Adam": torch.optim.Adam,
        "AdamW": torch.optim.AdamW,
        "Adagrad": torch.optim.Adagrad,
    }


def build(cell: Cell, inputs: int) -> nn.Module:
    """Build the cell's network from the global seed."""
    activations: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    activation = activations[cell.activation]
    if cell.network == "batchnorm":
        module: nn.Module = nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 256), nn.BatchNorm1d(256), activation(),
            nn.Linear(256, 128), nn.BatchNorm1d(128), activation(), nn.Linear(128, 10),
        )  # fmt: skip
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
    from torchvision.datasets import MNIST

    mnist = MNIST(ROOT / "data")
    inputs, labels = mnist.data[:, None] / 255, mnist.targets
    return inputs[:48_000], labels[:48_000], inputs[48_000:50_000], labels[48_000:50_000]


def train(cell: Cell, rate: float, data: tuple[Tensor, Tensor, Tensor, Tensor], enlarge: int = 1) -> dict[str, Any]:
    """Train one run; return its signals at a few steps and what it came to."""
    inputs, labels, held_inputs, held_labels = data
    batch_size, steps = cell.batch_size * enlarge, STEPS[cell.batch_size] // enlarge
    torch.manual_seed(cell.seed)
    if cell.spoilt == "random labels":
        labels = torch.randint(10, labels.shape)
    if cell.spoilt == "unscaled":
        inputs, held_inputs = inputs * 255, held_inputs * 255
    if cell.spoilt == "few samples":
        inputs, labels = inputs[:500], labels[:500]
    module = build(cell, inputs[0].numel())
    optimizer = optimizers()[cell.optimizer](module.parameters(), lr=rate)
    group = optimizer.param_groups[0]
    meter = Meter(module, momentum=group.get("momentum") or group.get("betas", [0.0])[0])
    readings = {}
    for step, batch in zip(range(1, steps + 1), batches(len(labels), batch_size, cell.seed), strict=False):
        loss = F.cross_entropy(module(inputs[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
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


def batches(samples: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield index batches of shuffled epochs for ever."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(samples, generator=generator)
        yield from order[: max(1, samples // batch_size) * batch_size].split(batch_size)


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


def rates(cell: Cell) -> list[float]:
    """Return nine rates a decade apart, moved by half a decade in every other seed."""
    highest = 2 if cell.optimizer in ("SGD", "momentum") else 1
    return [10 ** (highest - 0.5 * (cell.seed % 2) - decade) for decade in range(9)]


def run(limit: int | None) -> None:
    """Train whatever is not yet in the file of runs, and append it."""
    torch.set_flush_denormal(True)
    done = {(tuple(r["cell"].values()), r["rate"]) for r in read()} if RUNS.exists() else set()
    data: dict[str, tuple[Tensor, Tensor, Tensor, Tensor]] = {}
    todo = [(cell, rate) for cell in cells() for rate in rates(cell)]
    print(f"{len(todo)} runs, {len(done)} done")
    for cell, rate in todo[:limit]:
        if (dataclasses.astuple(cell), rate) in done:
            continue
        if cell.data not in data:
            data[cell.data] = load(cell.data)
        result = train(cell, rate, data[cell.data])
        if cell.batch_size <= 8:
            result["larger_batch"] = train(cell, rate, data[cell.data], enlarge=16)["accuracy"]
        with RUNS.open("a") as file:
            file.write(json.dumps({"cell": dataclasses.asdict(cell), "rate": rate, **result}) + "\n")


def read() -> list[dict[str, Any]]:
    """Return the runs on disk."""
    return [json.loads(line) for line in RUNS.read_text().splitlines()]


def main() -> None:
    """Run or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["run", "report"], default="report")
    parser.add_argument("--limit", type=int, help="only the first so many runs")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments.limit)


if __name__ == "__main__":
    main()
