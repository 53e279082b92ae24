"""Does the found learning rate train? Ours against other finders, on a grid of cells with a known answer.

A cell is an optimizer, a batch size, an architecture, a scaling of MNIST's inputs, and a seed. Its truth is the
validation accuracy of half-decade constant rates after two full epochs of a plain PyTorch loop, as the mean of five
looks at the last tenth of the steps: one look alone wavers by several points at rates that are too high::

    python benchmarks/lr_find.py truth      # about an hour on one core; resumes, keeps benchmarks/lr_find_truth.csv
"""

from __future__ import annotations

import argparse
import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST

TRUTH = Path(__file__).with_name("lr_find_truth.csv")
EPOCHS = 2
LOOKS = 5
VALIDATION = 12_000

CHOSEN_ON = ("relu", "tanh")
"""The architectures on which the finder's constants were chosen; the others were only ever reported on."""
HELD_OUT = ("sigmoid", "batchnorm", "cnn")
BATCH_SIZES = (128, 1024, 8)
SCALINGS = ("unit", "standard")

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "rmsprop-keras": lambda parameters, lr: torch.optim.RMSprop(parameters, lr=lr, alpha=0.9, eps=1e-7),
    "rmsprop": torch.optim.RMSprop,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adagrad": torch.optim.Adagrad,
}
FIRST_GUESS = {"sgd": 0, "momentum": -1, "rmsprop-keras": -3, "rmsprop": -3, "adam": -3, "adamw": -3, "adagrad": -2}
"""log10 of the rate with which the truth starts; it goes on to both sides until accuracy has clearly fallen."""
FALLEN, COLLAPSED = 0.05, 0.15
"""Two neighbouring rates that far below the best, or one that far, end the search on their side: accuracy rises and
falls once."""


@dataclass(frozen=True)
class Cell:
    """One problem of the grid."""

    optimizer: str
    batch_size: int
    architecture: str
    scaling: str
    seed: int


def build_network(architecture: str) -> nn.Sequential:
    """Small enough to train thousands of times; Glorot-uniform weights and zero biases as in the base config."""
    activations: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    layers: list[nn.Module]
    if architecture == "cnn":
        layers = [nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(16 * 4 * 4, 10)]
    elif architecture == "batchnorm":
        layers = [nn.Flatten(), nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU()]
        layers += [nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)]
    else:
        widths = {"relu": [512], "tanh": [256, 128], "sigmoid": [256]}[architecture]
        layers, inputs = [nn.Flatten()], 784
        for width in widths:
            layers += [nn.Linear(inputs, width), activations[architecture]()]
            inputs = width
        layers.append(nn.Linear(inputs, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def load_mnist(root: str, scaling: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs and targets, validation inputs and targets; inputs `(N, 1, 28, 28)`, the last 20 % held out."""
    mnist = MNIST(root, train=True)
    inputs = mnist.data.unsqueeze(1).float() / 255
    if scaling == "standard":
        inputs = (inputs - inputs.mean()) / inputs.std()
    targets = mnist.targets
    return inputs[:-VALIDATION], targets[:-VALIDATION], inputs[-VALIDATION:], targets[-VALIDATION:]


def train_fully(cell: Cell, learning_rate: float, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[float, float]:
    """Validation accuracy at a constant rate: at the end, and over the last tenth; 0 where the loss left the reals."""
    inputs, targets, held_out, held_out_targets = data
    torch.manual_seed(cell.seed)
    network = build_network(cell.architecture)
    optimizer = OPTIMIZERS[cell.optimizer](network.parameters(), lr=learning_rate)
    batches = [part for _ in range(EPOCHS) for part in torch.randperm(len(inputs)).split(cell.batch_size)]
    looks = {len(batches) - round(i * len(batches) / 40) for i in range(LOOKS)}
    accuracies = []
    for step, indices in enumerate(batches, start=1):
        loss = F.cross_entropy(network(inputs[indices]), targets[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 1 and not torch.isfinite(loss):
            return 0.0, 0.0
        if step in looks:
            network.eval()
            with torch.no_grad():
                accuracies.append((network(held_out).argmax(1) == held_out_targets).float().mean().item())
            network.train()
    return accuracies[-1], fmean(accuracies)


def draw_cells(rounds: int) -> Iterator[Cell]:
    """Each round visits every optimizer at every batch size, and takes turns over architectures; scaling is drawn."""
    draw = random.Random(0)
    for round_ in range(rounds):
        architectures = CHOSEN_ON if round_ % 2 == 0 else HELD_OUT
        for i, batch_size in enumerate(BATCH_SIZES):
            for j, optimizer in enumerate(OPTIMIZERS):
                architecture = architectures[(i + j + round_ // 2) % len(architectures)]
                scaling = draw.choice(SCALINGS)
                if batch_size > 8 or (j + round_) % 3 == 0:  # 12,000 steps a rate: a third of these must do
                    yield Cell(optimizer, batch_size, architecture, scaling, seed=round_ // 2)


def read_truth(path: Path = TRUTH) -> dict[Cell, dict[float, float]]:
    """`{cell: {learning rate: validation accuracy}}`."""
    truth: dict[Cell, dict[float, float]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                cell = Cell(
                    row["optimizer"], int(row["batch_size"]), row["architecture"], row["scaling"], int(row["seed"])
                )
                truth.setdefault(cell, {})[float(row["learning_rate"])] = float(row["accuracy"])
    return truth


def make_truth(data_dir: str, rounds: int) -> None:
    """Train the cells that the file lacks, and append each as it is finished."""
    done = read_truth()
    data = {scaling: load_mnist(data_dir, scaling) for scaling in SCALINGS}
    for cell in draw_cells(rounds):
        if cell in done:
            continue
        last: dict[int, float] = {}
        accuracy: dict[int, float] = {}
        start = 2 * FIRST_GUESS[cell.optimizer]
        for direction in (1, -1):
            position, fallen = start, 0
            while fallen < 2 and -12 <= position <= 4:
                if position not in accuracy:
                    rate = 10 ** (position / 2)
                    last[position], accuracy[position] = train_fully(cell, rate, data[cell.scaling])
                loss = max(accuracy.values()) - accuracy[position]
                fallen = 2 if loss > COLLAPSED else fallen + 1 if loss > FALLEN else 0
                position += direction
        new_file = not TRUTH.exists()
        with TRUTH.open("a", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            if new_file:
                rows.writerow([*Cell.__annotations__, "learning_rate", "last", "accuracy"])
            for half_decade, value in sorted(accuracy.items()):
                rate = 10 ** (half_decade / 2)
                rows.writerow([*vars(cell).values(), f"{rate:.3g}", f"{last[half_decade]:.4f}", f"{value:.4f}"])
        print(cell, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["truth"])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--rounds", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    make_truth(arguments.data_dir, arguments.rounds)


if __name__ == "__main__":
    main()
