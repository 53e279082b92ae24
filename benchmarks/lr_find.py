"""Does the found learning rate train? Ours against other finders, on a grid of cells with a known answer.

A cell is an optimizer, a batch size, an architecture, a data set (problems.py), and a seed. Its truth is the validation
accuracy of half-decade constant rates after a whole fit by a plain PyTorch loop (two epochs of MNIST, about 2,000 steps
elsewhere), as the mean of five looks at the last tenth of the steps: one look alone wavers by several points at rates
that are too high::

    python benchmarks/lr_find.py truth      # hours on one core; resumes, keeps benchmarks/data/lr_find_truth.csv
    python benchmarks/lr_find.py compare    # every finder on those cells; resumes, keeps data/lr_find_picks.csv
    python benchmarks/lr_find.py report     # the table, from the two files
    python benchmarks/lr_find.py seconds    # how long a search takes; alone on the machine

The finder's constants were chosen on MNIST and on the first draw of the other data; the second draw came later. The
other finders are in rivals.py.
"""

import argparse
import csv
import functools
import itertools
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from lesson.network import MLP
from lesson.optimizer import KerasRMSprop
from measuring import RESULTS, table
from networks import OPTIMIZERS, Lit, build_network, evaluate, take_step
from problems import PROBLEMS, Data
from rivals import picks_of_rivals
from unstall import InMemoryDataset, find_learning_rate, quiet

TRUTH, PICKS = RESULTS / "lr_find_truth.csv", RESULTS / "lr_find_picks.csv"
LOOKS = 5
BATCH_SIZES = (128, 1024, 8)
CHOSEN_ON, HELD_OUT = ("relu", "tanh"), ("sigmoid", "batchnorm", "cnn")
MNIST = ("mnist", "mnist standardised")
OTHERS = tuple(name for name in PROBLEMS if name not in MNIST)
FIRST_GUESS = {"sgd": 0, "momentum": -1, "rmsprop-keras": -3, "rmsprop": -3, "adam": -3, "adamw": -3, "adagrad": -2}
"""log10 of the rate with which the truth starts; it goes on to both sides until accuracy has clearly fallen."""
MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    **{name.lower(): maker for name, maker in OPTIMIZERS.items()},
    "rmsprop-keras": OPTIMIZERS["RMSprop"],
    "rmsprop": torch.optim.RMSprop,
}
FALLEN, COLLAPSED = 0.05, 0.15
"""Two neighbouring rates that far below the best, or one that far, end the search on their side: accuracy rises and
falls once."""


@dataclass(frozen=True)
class Cell:
    """One problem of the grid."""

    optimizer: str
    batch_size: int
    architecture: str
    data: str
    seed: int

    @property
    def name(self) -> str:
        """As it stands in the file of picks."""
        return "/".join(map(str, vars(self).values()))


def train_fully(cell: Cell, learning_rate: float, data: Data) -> tuple[float, float]:
    """Validation accuracy at a constant rate: at the end, and over the last tenth of the steps."""
    inputs, targets, held_out, held_out_targets = data
    torch.manual_seed(cell.seed)
    network = build_network(cell.architecture, data)
    optimizer = MAKERS[cell.optimizer](network.parameters(), lr=learning_rate)
    batches: list[Tensor] = []
    for _ in range(PROBLEMS[cell.data].epochs):
        batches += torch.split(torch.randperm(len(inputs)), cell.batch_size)
    looks = {len(batches) - round(i * len(batches) / 40) for i in range(LOOKS)}
    accuracies, losses = [], []
    for step, indices in enumerate(batches, start=1):
        losses.append(take_step(network, optimizer, inputs[indices], targets[indices]).item())
        hopeless = step == len(batches) // 8 and not fmean(losses[-20:]) < losses[0]
        if step in looks or hopeless:
            accuracies.append(evaluate(network, held_out, held_out_targets)[1])
        if hopeless:  # after a quarter of an epoch still above the loss of the start: never the best, nor near it
            break
    return accuracies[-1], fmean(accuracies)


def draw_cells(rounds: int) -> Iterator[Cell]:
    """Each round visits every optimizer at every batch size on MNIST, and takes turns over architectures."""
    draw = random.Random(0)
    for round_ in range(rounds):
        architectures = CHOSEN_ON if round_ % 2 == 0 else HELD_OUT
        for i, batch_size in enumerate(BATCH_SIZES):
            for j, optimizer in enumerate(FIRST_GUESS):
                architecture = architectures[(i + j + round_ // 2) % len(architectures)]
                data = draw.choice(MNIST)
                if batch_size > 8 or (j + round_) % 3 == 0:  # 12,000 steps a rate: a third of these must do
                    yield Cell(optimizer, batch_size, architecture, data, seed=round_ // 2)


def draw_other_cells(rounds: int) -> Iterator[Cell]:
    """Each round visits every optimizer on every other data set, and takes turns over architectures and batch sizes."""
    every = itertools.product(range(rounds), enumerate(OTHERS), enumerate(FIRST_GUESS))
    for round_, (i, data), (j, optimizer) in every:
        architectures = PROBLEMS[data].architectures
        architecture = architectures[(j + round_) % len(architectures)]
        yield Cell(optimizer, (128, 32, 1024)[(i + j // 3 + j + round_) % 3], architecture, data, seed=round_)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows on disk."""
    if not file.exists():
        return []
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def append_rows(file: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Add rows to those on disk."""
    new_file = not file.exists()
    with file.open("a", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows([header, *rows] if new_file else rows)


def read_truth() -> dict[Cell, dict[float, float]]:
    """`{cell: {learning rate: validation accuracy}}`."""
    truth: dict[Cell, dict[float, float]] = {}
    for row in read_rows(TRUTH):
        cell = Cell(row["optimizer"], int(row["batch_size"]), row["architecture"], row["data"], int(row["seed"]))
        truth.setdefault(cell, {})[float(row["learning_rate"])] = float(row["accuracy"])
    return truth


def search_rates(first_guess: int, train: Callable[[float], tuple[float, ...]]) -> dict[float, tuple[float, ...]]:
    """Train at half-decade rates around `10 ** first_guess` until what comes last, an accuracy, has clearly fallen."""
    measured: dict[int, tuple[float, ...]] = {}
    for direction in (1, -1):
        position, fallen = 2 * first_guess, 0
        while fallen < 2 and -12 <= position <= 4:
            if position not in measured:
                measured[position] = train(10 ** (position / 2))
            loss = max(values[-1] for values in measured.values()) - measured[position][-1]
            fallen = 2 if loss > COLLAPSED else fallen + 1 if loss > FALLEN else 0
            position += direction
    return {10 ** (position / 2): values for position, values in measured.items()}


def make_truth(data_dir: str, rounds: int, batch_sizes: list[int], data_sets: list[str]) -> None:
    """Train the cells that the file lacks, and append each as it is finished."""
    done = read_truth()
    load = functools.cache(lambda name: PROBLEMS[name].load(data_dir))
    for cell in [*draw_cells(rounds), *draw_other_cells(rounds)]:
        if cell in done or cell.batch_size not in batch_sizes or cell.data not in data_sets:
            continue
        train = functools.partial(train_fully, cell, data=load(cell.data))
        measured = search_rates(FIRST_GUESS[cell.optimizer], train)
        rows = [
            [*vars(cell).values(), f"{rate:.3g}", f"{last:.4f}", f"{value:.4f}"]
            for rate, (last, value) in sorted(measured.items())
        ]
        append_rows(TRUTH, [*Cell.__annotations__, "learning_rate", "last", "accuracy"], rows)
        print(cell, flush=True)


def compare_cell(cell: Cell, data: Data, seed: int, rivals: bool) -> dict[str, tuple[float, int]]:
    """The rate and the number of steps of our rule, and of every other if asked for."""

    def build(rate: float = 1e-3) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        network = build_network(cell.architecture, data)
        return network, MAKERS[cell.optimizer](network.parameters(), lr=rate)

    def build_module() -> pl.LightningModule:
        lit = Lit if data[1].is_floating_point() else LitClassifier
        with quiet():
            return lit(build()[0], functools.partial(MAKERS[cell.optimizer], lr=1e-3))

    training = loader(data[0], data[1], cell.batch_size, shuffle=True)
    validation = loader(data[2], data[3], cell.batch_size, shuffle=False)
    with quiet():
        epochs = PROBLEMS[cell.data].epochs
        trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False)
    search = find_learning_rate(build_module(), (training, validation), trainer, seed=seed)
    steps = len(search.range_test.losses) + sum(len(rate.losses) for rate in search.race)
    picks = {"ours": (search.learning_rate, steps)}
    if rivals:
        torch.manual_seed(seed)
        picks |= picks_of_rivals(build_module, build, training, steps, random.Random(f"{cell} {seed}"))
    return picks


def loader(inputs: Tensor, targets: Tensor, batch_size: int, shuffle: bool) -> DataLoader[tuple[Tensor, Tensor]]:
    """Batches from memory in torch's own order: another for every seed of the finder, and in every epoch."""
    return DataLoader(InMemoryDataset(inputs, targets), batch_size, shuffle=shuffle, collate_fn=lambda batch: batch)


def compare(data_dir: str, seeds: int, data_sets: list[str]) -> None:
    """Ask every rule about every cell of the truth, ours with several seeds, and append what it picks."""
    done = {(row["cell"], row["seed"]) for row in read_rows(PICKS)}
    load = functools.cache(lambda name: PROBLEMS[name].load(data_dir))
    for seed, cell in itertools.product(range(10, 10 + seeds), read_truth()):
        if (cell.name, str(seed)) in done or cell.data not in data_sets:
            continue
        start = time.process_time()
        picks = compare_cell(cell, load(cell.data), seed, rivals=seed == 10)
        rows = [[cell.name, seed, rule, f"{rate:.4g}", steps] for rule, (rate, steps) in picks.items()]
        append_rows(PICKS, ["cell", "seed", "rule", "learning_rate", "steps"], rows)
        print(cell.name, seed, f"{picks['ours'][0]:.2g} {time.process_time() - start:.1f} s", flush=True)


def seconds(data_dir: str, searches: int = 3) -> None:
    """Print how long a search takes with the base configuration's network, optimizer and data."""
    for seed in range(searches):
        torch.manual_seed(seed)
        module = LitClassifier(MLP([784, 512, 10]), functools.partial(KerasRMSprop, lr=1.0))
        start = time.perf_counter()
        search = find_learning_rate(module, MNISTDataModule(data_dir=data_dir), seed=seed)
        print(f"picked {search.learning_rate:.2g} in {time.perf_counter() - start:.1f} s", flush=True)


def accuracy_at(rate: float, accuracies: dict[float, float]) -> float:
    """Linear in the logarithm of the rate between measured ones, which is below the truth near a peak; beyond the
    last ones, where accuracy was still falling, what they reached: both sides are kind to whoever picks badly."""
    rates = sorted(accuracies)
    if rate <= rates[0] or rate >= rates[-1]:
        return accuracies[rates[0] if rate <= rates[0] else rates[-1]]
    above = next(i for i, other in enumerate(rates) if other >= rate)
    low, high = rates[above - 1], rates[above]
    share = math.log(rate / low) / math.log(high / low)
    return (1 - share) * accuracies[low] + share * accuracies[high]


def report() -> None:
    """Print the tables of docs/lr_find.md."""
    picks = read_rows(PICKS)
    truth = {cell.name: (cell, rates) for cell, rates in read_truth().items()}
    losses: dict[tuple[str, str], list[tuple[float, str, float, int]]] = {}
    for row in picks:
        cell, accuracies = truth[row["cell"]]
        rate = float(row["learning_rate"])
        loss = 100 * (max(accuracies.values()) - accuracy_at(rate, accuracies))
        draw = "blind" if cell.seed else "first draw"
        group = "MNIST" if cell.data in MNIST else f"other data, {draw}"
        for part in ("all", group, cell.data, f"batch {cell.batch_size}"):
            losses.setdefault((part, row["rule"]), []).append((loss, row["cell"], rate, int(row["steps"])))
    for part in dict.fromkeys(part for part, _ in losses):
        rows = []
        for (other, rule), found in losses.items():
            if other == part:
                values = [loss for loss, *_ in found]
                within = sum(loss <= 1 for loss in values) / len(values)
                steps = sorted(steps for *_, steps in found)[len(found) // 2]
                rows.append([rule, f"{within:.0%}", f"{fmean(values):.1f}", f"{max(values):.1f}", steps, len(values)])
        header = f"| {part} | within a point | mean loss | worst loss | median steps | searches |"
        print("", *table(header, rows), sep="\n")
    print("\nOur misses:")
    for loss, name, rate, _ in sorted(losses["all", "ours"], reverse=True):
        if loss > 1:
            best = max(truth[name][1], key=lambda other: truth[name][1][other])
            print(f"- {name}: picked {rate:.2g}, best {best:.2g}, loss {loss:.1f}")
    ours: dict[str, list[float]] = {}
    for row in picks:
        if row["rule"] == "ours":
            ours.setdefault(row["cell"], []).append(float(row["learning_rate"]))
    several = [rates for rates in ours.values() if len(rates) > 1]
    if several:
        stable = sum(max(rates) / min(rates) < 4 for rates in several) / len(several)
        print(f"\nWithin one half-decade step over seeds: {stable:.0%} of {len(several)} cells.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["truth", "compare", "report", "seconds"])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--rounds", type=int, default=6, help="of the draw of cells: 16 or 17 cells each")
    sizes = (8, 32, 128, 1024)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=sizes, help="of the truth; 8 takes long")
    parser.add_argument("--data_sets", nargs="+", default=tuple(PROBLEMS), help="of the truth, and to compare on")
    parser.add_argument("--seeds", type=int, default=3, help="of our finder; the others are asked once")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.command == "truth":
        make_truth(arguments.data_dir, arguments.rounds, arguments.batch_sizes, arguments.data_sets)
    elif arguments.command == "compare":
        compare(arguments.data_dir, arguments.seeds, arguments.data_sets)
    elif arguments.command == "seconds":
        seconds(arguments.data_dir)
    else:
        report()


if __name__ == "__main__":
    main()
