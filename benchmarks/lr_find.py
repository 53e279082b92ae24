"""Does the found learning rate train? Ours against other finders, on a grid of cells with a known answer.

A cell is an optimizer, a batch size, an architecture, a data set (problems.py), and a seed. Its truth is the validation
accuracy of half-decade constant rates after a whole fit by a plain PyTorch loop (two epochs of MNIST, about 2,000 steps
elsewhere), as the mean of five looks at the last tenth of the steps: one look alone wavers by several points at rates
that are too high::

    python benchmarks/lr_find.py truth      # hours on one core; resumes, keeps benchmarks/lr_find_truth.csv
    python benchmarks/lr_find.py compare    # every finder on those cells; resumes, keeps benchmarks/lr_find_picks.csv
    python benchmarks/lr_find.py report     # the table, from the two files
    python benchmarks/lr_find.py seconds    # how long a search takes; alone on the machine

The finder's constants were chosen on MNIST and on the first draw of the other data; the second draw came later.
Rivals: Lightning's and torch-lr-finder's code as installed; fastai's `valley`, `steep` and `minimum` as its
documentation states them, on a range test with fastai's constants.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import importlib
import importlib.util
import io
import itertools
import math
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from problems import PROBLEMS, Data, accuracy_of, build_network, loss_of
from unstall.classifier import LitClassifier
from unstall.data import MNISTDataModule
from unstall.lr_find import find_learning_rate
from unstall.network import MLP
from unstall.optimizer import KerasRMSprop
from unstall.range_test import InMemoryCheckpoint
from unstall.rehearsal import quiet

TRUTH = Path(__file__).with_name("lr_find_truth.csv")
LOOKS = 5

PICKS = Path(__file__).with_name("lr_find_picks.csv")
BATCH_SIZES = (128, 1024, 8)
CHOSEN_ON, HELD_OUT = ("relu", "tanh"), ("sigmoid", "batchnorm", "cnn")
MNIST = ("mnist", "mnist standardised")
OTHERS = tuple(name for name in PROBLEMS if name not in MNIST)

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
    data: str
    seed: int


def take_step(network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Train on one batch; returns the loss before the step."""
    loss = loss_of(network(inputs), targets)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.detach()


def train_fully(cell: Cell, learning_rate: float, data: Data) -> tuple[float, float]:
    """Validation accuracy at a constant rate: at the end, and over the last tenth of the steps."""
    inputs, targets, held_out, held_out_targets = data
    torch.manual_seed(cell.seed)
    network = build_network(cell.architecture, data)
    optimizer = OPTIMIZERS[cell.optimizer](network.parameters(), lr=learning_rate)
    batches: list[Tensor] = []
    for _ in range(PROBLEMS[cell.data].epochs):
        batches += torch.split(torch.randperm(len(inputs)), cell.batch_size)
    looks = {len(batches) - round(i * len(batches) / 40) for i in range(LOOKS)}
    accuracies, losses = [], []
    for step, indices in enumerate(batches, start=1):
        losses.append(take_step(network, optimizer, inputs[indices], targets[indices]).item())
        hopeless = step == len(batches) // 8 and not fmean(losses[-20:]) < losses[0]
        if step in looks or hopeless:
            accuracies.append(accuracy_of(network, held_out, held_out_targets))
        if hopeless:  # after a quarter of an epoch still above the loss of the start: never the best, nor near it
            break
    return accuracies[-1], fmean(accuracies)


def draw_cells(rounds: int) -> Iterator[Cell]:
    """Each round visits every optimizer at every batch size on MNIST, and takes turns over architectures."""
    draw = random.Random(0)
    for round_ in range(rounds):
        architectures = CHOSEN_ON if round_ % 2 == 0 else HELD_OUT
        for i, batch_size in enumerate(BATCH_SIZES):
            for j, optimizer in enumerate(OPTIMIZERS):
                architecture = architectures[(i + j + round_ // 2) % len(architectures)]
                data = draw.choice(MNIST)
                if batch_size > 8 or (j + round_) % 3 == 0:  # 12,000 steps a rate: a third of these must do
                    yield Cell(optimizer, batch_size, architecture, data, seed=round_ // 2)


def draw_other_cells(rounds: int) -> Iterator[Cell]:
    """Each round visits every optimizer on every other data set, and takes turns over architectures and batch sizes."""
    for round_, (i, data), (j, optimizer) in itertools.product(range(rounds), enumerate(OTHERS), enumerate(OPTIMIZERS)):
        architectures = PROBLEMS[data].architectures
        architecture = architectures[(j + round_) % len(architectures)]
        yield Cell(optimizer, (128, 32, 1024)[(i + j // 3 + j + round_) % 3], architecture, data, seed=round_)


def read_truth(path: Path = TRUTH) -> dict[Cell, dict[float, float]]:
    """`{cell: {learning rate: validation accuracy}}`."""
    truth: dict[Cell, dict[float, float]] = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                cell = Cell(
                    row["optimizer"], int(row["batch_size"]), row["architecture"], row["data"], int(row["seed"])
                )
                truth.setdefault(cell, {})[float(row["learning_rate"])] = float(row["accuracy"])
    return truth


def make_truth(data_dir: str, rounds: int, batch_sizes: list[int], data_sets: list[str]) -> None:
    """Train the cells that the file lacks, and append each as it is finished."""
    done = read_truth()
    load = functools.cache(lambda name: PROBLEMS[name].load(data_dir))
    for cell in [*draw_cells(rounds), *draw_other_cells(rounds)]:
        if cell in done or cell.batch_size not in batch_sizes or cell.data not in data_sets:
            continue
        last: dict[int, float] = {}
        accuracy: dict[int, float] = {}
        start = 2 * FIRST_GUESS[cell.optimizer]
        for direction in (1, -1):
            position, fallen = start, 0
            while fallen < 2 and -12 <= position <= 4:
                if position not in accuracy:
                    rate = 10 ** (position / 2)
                    last[position], accuracy[position] = train_fully(cell, rate, load(cell.data))
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


class InMemory(Dataset[tuple[Tensor, Tensor]]):
    """A batch is one indexing operation: `DataLoader` calls `__getitems__` where there is one."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        return self.inputs[indices], self.targets[indices]

    def loader(self, batch_size: int, shuffle: bool = True) -> DataLoader[tuple[Tensor, Tensor]]:
        return DataLoader(self, batch_size, shuffle=shuffle, collate_fn=lambda batch: batch)


def exponential_test(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses of fastai's range test: 1e-7 to 10 in 100 steps, beta 0.98, stops at 4x the least.

    Its first tenth and last five points are left out, as fastai leaves them out before it applies a rule.
    """
    rates, losses, average, batches = [], [], 0.0, iter(loader)
    for step in range(100):
        rate = 1e-7 * (10 / 1e-7) ** (step / 99)
        optimizer.param_groups[0]["lr"] = rate
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        loss = take_step(network, optimizer, *batch)
        average = 0.98 * average + 0.02 * loss.item()
        smoothed = average / (1 - 0.98 ** (step + 1))
        if not math.isfinite(smoothed):
            break
        rates.append(rate)
        losses.append(smoothed)
        if smoothed > 4 * min(losses):
            break
    return rates[10:-5], losses[10:-5]


def valley(rates: list[float], losses: list[float]) -> float:
    """Half-way down the longest decreasing subsequence: fastai's default rule."""
    longest = [1] * len(losses)
    for i, loss in enumerate(losses):
        longest[i] = 1 + max((longest[j] for j in range(i) if losses[j] > loss), default=0)
    end = longest.index(max(longest))
    return rates[max(0, end - longest[end] // 2)]


def steepest(rates: list[float], losses: list[float]) -> float:
    """Where the loss falls fastest against the logarithm of the rate: fastai's `steep`."""
    slopes = [b - a for a, b in itertools.pairwise(losses)]  # the rates are evenly spaced
    return rates[slopes.index(min(slopes))]


def lightning_suggestion(module: pl.LightningModule, loader: DataLoader[tuple[Tensor, Tensor]]) -> tuple[float, int]:
    """What a user of `Tuner.lr_find` with its defaults gets, and the steps that it took."""
    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=100,
            default_root_dir=scratch,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            plugins=InMemoryCheckpoint(),
        )
        finder = Tuner(trainer).lr_find(module, loader, update_attr=False)
        assert finder is not None
        return finder.suggestion() or 1e-8, len(finder.results["lr"])


def torch_lr_finder(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[tuple[Tensor, Tensor]]
) -> float:
    """The suggestion of the package of that name, as its documentation calls it."""
    from matplotlib.figure import Figure

    with contextlib.redirect_stdout(io.StringIO()), quiet():
        finder = importlib.import_module("torch_lr_finder").LRFinder(network, optimizer, loss_of, device="cpu")
        finder.range_test(loader, start_lr=1e-7, end_lr=10, num_iter=100)
        _, rate = finder.plot(ax=Figure().subplots())
    return float(rate)


def random_search(
    build: Callable[[float], tuple[nn.Module, torch.optim.Optimizer]],
    loader: DataLoader[tuple[Tensor, Tensor]],
    steps: int,
    draw: random.Random,
) -> float:
    """Of three rates drawn from 1e-6 to 10, the one whose training loss ends lowest, in our number of steps."""
    ends = {}
    for _ in range(3):
        rate = 10 ** draw.uniform(-6, 1)
        network, optimizer = build(rate)
        losses: list[float] = []
        while len(losses) < steps // 3:
            for inputs, targets in itertools.islice(loader, steps // 3 - len(losses)):
                losses.append(take_step(network, optimizer, inputs, targets).item())
        end = fmean(losses[len(losses) // 2 :])
        ends[rate] = end if math.isfinite(end) else math.inf
    return min(ends, key=lambda rate: ends[rate])


class LitRegression(pl.LightningModule):
    """What `LitClassifier` is to classes, as a stranger would write it."""

    def __init__(self, network: nn.Module, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network, self.optimizer = network, optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean squared error."""
        return loss_of(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the cell's optimizer."""
        return self.optimizer(self.parameters())


def compare_cell(cell: Cell, data: Data, seed: int, rivals: bool) -> dict[str, tuple[float, int]]:
    """The rate and the number of steps of our rule, and of every other if asked for."""

    def build(rate: float = 1e-3) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        network = build_network(cell.architecture, data)
        return network, OPTIMIZERS[cell.optimizer](network.parameters(), lr=rate)

    def build_module() -> pl.LightningModule:
        lit = LitRegression if data[1].is_floating_point() else LitClassifier
        with quiet():
            return lit(build()[0], functools.partial(OPTIMIZERS[cell.optimizer], lr=1e-3))

    training = InMemory(data[0], data[1]).loader(cell.batch_size)
    validation = InMemory(data[2], data[3]).loader(cell.batch_size, shuffle=False)
    with quiet():
        epochs = PROBLEMS[cell.data].epochs
        trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs, logger=False, enable_checkpointing=False)
    search = find_learning_rate(build_module(), (training, validation), trainer, seed=seed)
    steps = len(search.range_test.losses) + sum(len(rate.losses) for rate in search.race)
    picks = {"ours": (search.learning_rate, steps)}
    if not rivals:
        return picks
    torch.manual_seed(seed)
    picks["lightning"] = lightning_suggestion(build_module(), training)
    curve = exponential_test(*build(), training)
    picks["fastai valley"] = valley(*curve), 100
    picks["fastai steep"] = steepest(*curve), 100
    picks["fastai minimum / 10"] = curve[0][curve[1].index(min(curve[1]))] / 10, 100
    if importlib.util.find_spec("torch_lr_finder") is not None:
        picks["torch-lr-finder"] = torch_lr_finder(*build(), training), 100
    picks["random search"] = random_search(build, training, steps, random.Random(f"{cell} {seed}")), steps
    return picks


def compare(data_dir: str, seeds: int, data_sets: list[str]) -> None:
    """Ask every rule about every cell of the truth, ours with several seeds, and append what it picks."""
    done = {(row["cell"], row["seed"]) for row in read_picks()}
    load = functools.cache(lambda name: PROBLEMS[name].load(data_dir))
    for seed, cell in itertools.product(range(10, 10 + seeds), read_truth()):
        name = "/".join(map(str, vars(cell).values()))
        if (name, str(seed)) in done or cell.data not in data_sets:
            continue
        start = time.process_time()
        picks = compare_cell(cell, load(cell.data), seed, rivals=seed == 10)
        new_file = not PICKS.exists()
        with PICKS.open("a", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            if new_file:
                rows.writerow(["cell", "seed", "rule", "learning_rate", "steps"])
            rows.writerows([name, seed, rule, f"{rate:.4g}", steps] for rule, (rate, steps) in picks.items())
        print(name, seed, f"{picks['ours'][0]:.2g} {time.process_time() - start:.1f} s", flush=True)


def seconds(data_dir: str, searches: int = 3) -> None:
    """Print how long a search takes with the base configuration's network, optimizer and data."""
    for seed in range(searches):
        torch.manual_seed(seed)
        module = LitClassifier(MLP([784, 512, 10]), functools.partial(KerasRMSprop, lr=1.0))
        start = time.perf_counter()
        search = find_learning_rate(module, MNISTDataModule(data_dir=data_dir), seed=seed)
        print(f"picked {search.learning_rate:.2g} in {time.perf_counter() - start:.1f} s", flush=True)


def read_picks() -> list[dict[str, str]]:
    if not PICKS.exists():
        return []
    with PICKS.open(newline="") as file:
        return list(csv.DictReader(file))


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
    truth = {"/".join(map(str, vars(cell).values())): (cell, rates) for cell, rates in read_truth().items()}
    losses: dict[tuple[str, str], list[tuple[float, str, float, int]]] = {}
    for row in read_picks():
        cell, accuracies = truth[row["cell"]]
        rate = float(row["learning_rate"])
        loss = 100 * (max(accuracies.values()) - accuracy_at(rate, accuracies))
        draw = "blind" if cell.seed else "first draw"
        group = "MNIST" if cell.data in MNIST else f"other data, {draw}"
        for part in ("all", group, cell.data, f"batch {cell.batch_size}"):
            losses.setdefault((part, row["rule"]), []).append((loss, row["cell"], rate, int(row["steps"])))
    for part in dict.fromkeys(part for part, _ in losses):
        print(f"\n| {part} | within a point | mean loss | worst loss | median steps | searches |")
        print("|---|---|---|---|---|---|")
        for (other, rule), found in losses.items():
            if other == part:
                values = [loss for loss, *_ in found]
                within = sum(loss <= 1 for loss in values) / len(values)
                steps = sorted(steps for *_, steps in found)[len(found) // 2]
                print(f"| {rule} | {within:.0%} | {fmean(values):.1f} | {max(values):.1f} | {steps} | {len(values)} |")
    print("\nOur misses:")
    for loss, name, rate, _ in sorted(losses["all", "ours"], reverse=True):
        if loss > 1:
            best = max(truth[name][1], key=lambda other: truth[name][1][other])
            print(f"- {name}: picked {rate:.2g}, best {best:.2g}, loss {loss:.1f}")
    picks: dict[str, list[float]] = {}
    for row in read_picks():
        if row["rule"] == "ours":
            picks.setdefault(row["cell"], []).append(float(row["learning_rate"]))
    several = [rates for rates in picks.values() if len(rates) > 1]
    if several:
        stable = sum(max(rates) / min(rates) < 4 for rates in several) / len(several)
        print(f"\nWithin one half-decade step over seeds: {stable:.0%} of {len(several)} cells.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["truth", "compare", "report", "seconds"])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--rounds", type=int, default=6, help="of the draw of cells: 16 or 17 cells each")
    parser.add_argument(
        "--batch_sizes", type=int, nargs="+", default=(8, 32, 128, 1024), help="of the truth; 8 takes long"
    )
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
