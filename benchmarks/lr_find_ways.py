"""Does the found learning rate train under a schedule, and when weights are tuned that were trained before?

As lr_find.py, whose cells are trained from scratch at constant rates; here a cell has a way besides (ways.py)::

    python benchmarks/lr_find_ways.py truth --group "first draw"    # keeps benchmarks/data/lr_find_ways_truth.csv
    python benchmarks/lr_find_ways.py compare --group "first draw"  # what our finder picks there
    python benchmarks/lr_find_ways.py report                        # the tables of docs/lr_find.md

The finder was mended on the first draw, and then on what the *blind* group (unseen.py) had shown; *blind again* was
drawn meanwhile. The rule *both losses* is the finder before the fastest rate went on.
"""

import argparse
import functools
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lr_find import FIRST_GUESS, LOOKS, MAKERS, accuracy_at, append_rows, loader, read_rows, search_rates
from measuring import RESULTS, table
from networks import build_network, evaluate, take_step
from problems import PROBLEMS, Data
from unseen import LATER, UNSEEN, build_unseen
from unstall import find_learning_rate, quiet
from ways import (
    BACKBONE_RATIO,
    FINE_TUNING,
    FINE_TUNING_EPOCHS,
    SCHEDULES,
    Lit,
    Pretraining,
    data_to_tune_on,
    optimizer_of,
    schedule_of,
)

TRUTH, PICKS = RESULTS / "lr_find_ways_truth.csv", RESULTS / "lr_find_ways_picks.csv"
EVERY = PROBLEMS | UNSEEN | LATER
BLIND = {
    "blind": [*itertools.product(UNSEEN, (False, True))],
    "blind again": [*itertools.product(LATER, (False, True)), *zip(UNSEEN, (False, True) * 2, strict=True)],
}
"""Which data sets, and whether with a schedule."""
PRETRAINING = Pretraining()
FROM_SCRATCH, TO_TUNE = ("classes", "spheres", "friedman", "text"), ("mnist", "classes")


@dataclass(frozen=True)
class Cell:
    """One problem: what is trained on what, how, and with how many seeds its truth is measured."""

    group: str
    way: str
    optimizer: str
    batch_size: int
    architecture: str
    data: str
    seed: int
    seeds: int = 1

    @property
    def name(self) -> str:
        """As it stands in the file of picks."""
        return "/".join(map(str, vars(self).values()))


def draw_cells(group: str) -> Iterator[Cell]:
    """A seeded draw: every way by turns over optimizers, data, architectures and batch sizes.

    The blind groups: two cells of each new data set, of which one has a schedule.
    """
    draw = random.Random(group)
    optimizers = list(FIRST_GUESS)
    draw.shuffle(optimizers)
    turns = itertools.count(draw.randrange(7))
    if group in BLIND:
        for data, scheduled in BLIND[group]:
            way = draw.choice([way for way in SCHEDULES if way != "constant"]) if scheduled else "constant"
            architecture, batch_size = draw.choice(EVERY[data].architectures), draw.choice((64, 128, 256))
            yield Cell(group, way, optimizers[next(turns) % 7], batch_size, architecture, data, seed=0, seeds=2)
        return
    for way in (*[way for way in SCHEDULES if way != "constant"], *FINE_TUNING):
        data_sets = list(TO_TUNE if way in FINE_TUNING else FROM_SCRATCH)
        draw.shuffle(data_sets)
        for i in range(2):
            turn, data = next(turns), data_sets[i]
            architecture = draw.choice(PROBLEMS[data].architectures)
            yield Cell(group, way, optimizers[turn % 7], (128, 1024)[turn // 2 % 2], architecture, data, seed=0)


@functools.cache
def load(name: str, data_dir: str, tuned: bool) -> Data:
    """The data of a cell."""
    data = EVERY[name].load(data_dir)
    return data_to_tune_on(data) if tuned else data


def data_of(cell: Cell, data_dir: str) -> Data:
    """What it trains on, and what is held out."""
    return load(cell.data, data_dir, cell.way in FINE_TUNING)


def epochs_of(cell: Cell) -> int:
    """Of its fit."""
    return FINE_TUNING_EPOCHS if cell.way in FINE_TUNING else EVERY[cell.data].epochs


def network_of(cell: Cell, data_dir: str, seed: int) -> nn.Module:
    """From the seed, or from the weights that it tunes."""
    if cell.way in FINE_TUNING:
        return PRETRAINING.network(cell.architecture, cell.data, load(cell.data, data_dir, False), seed)
    torch.manual_seed(seed)
    build = build_unseen if cell.data in UNSEEN | LATER else build_network
    return build(cell.architecture, data_of(cell, data_dir))


def train(cell: Cell, data_dir: str, rate: float, seed: int) -> tuple[float, float, float]:
    """Validation accuracy after one epoch, at the end, and over the last tenth of the steps."""
    inputs, targets, held_out, held_out_targets = data_of(cell, data_dir)
    epochs = epochs_of(cell)
    network = network_of(cell, data_dir, seed)
    optimizer = optimizer_of(cell.way, network, MAKERS[cell.optimizer], rate)
    torch.manual_seed(seed)
    batches: list[Tensor] = []
    for _ in range(epochs):
        batches += torch.split(torch.randperm(len(inputs)), cell.batch_size)
    steps, per_epoch = len(batches), len(batches) // epochs
    schedule = schedule_of(cell.way, optimizer, steps, epochs)
    looks = {steps - round(i * steps / 40) for i in range(LOOKS)}
    accuracies, losses, early = [], [], 0.0
    for step, indices in enumerate(batches, start=1):
        losses.append(take_step(network, optimizer, inputs[indices], targets[indices]).item())
        if schedule is not None and (schedule[1] == "step" or step % per_epoch == 0):
            schedule[0].step()
        hopeless = step == steps // 8 and not fmean(losses[-20:]) < losses[0] + 1
        if step in looks or hopeless or step == per_epoch:
            accuracy = evaluate(network, held_out, held_out_targets)[1]
            early = accuracy if step == per_epoch else early
            if step in looks or hopeless:
                accuracies.append(accuracy)
        if hopeless:
            break
    return early, accuracies[-1], fmean(accuracies)


def make_truth(data_dir: str, group: str, ways: list[str]) -> None:
    """Train the cells of a group that the file lacks, and append each as it is finished."""
    done = set(read_truth())
    for cell in draw_cells(group):
        if cell in done or cell.way not in ways:
            continue
        began = time.process_time()

        def mean_of_seeds(rate: float, cell: Cell = cell) -> tuple[float, ...]:
            found = [train(cell, data_dir, rate, cell.seed + i) for i in range(cell.seeds)]
            return tuple(map(fmean, zip(*found, strict=True)))

        measured = search_rates(FIRST_GUESS[cell.optimizer], mean_of_seeds)
        rows = [
            [*vars(cell).values(), f"{rate:.3g}", *(f"{value:.4f}" for value in values)]
            for rate, values in sorted(measured.items())
        ]
        header = [*Cell.__annotations__, "learning_rate", "after_one_epoch", "last", "accuracy"]
        append_rows(TRUTH, header, rows)
        best = max(rows, key=lambda row: row[-1])
        print(cell.name, best[-4], best[-1], f"{time.process_time() - began:.0f} s", flush=True)


def read_truth() -> dict[Cell, dict[float, tuple[float, float]]]:
    """`{cell: {learning rate: (accuracy after one epoch, accuracy of the fit)}}`."""
    truth: dict[Cell, dict[float, tuple[float, float]]] = {}
    for row in read_rows(TRUTH):
        texts = [row[name] for name in Cell.__annotations__]
        kinds = Cell.__annotations__.values()
        cell = Cell(*(int(text) if kind is int else text for text, kind in zip(texts, kinds, strict=True)))  # type: ignore[arg-type]
        values = float(row["after_one_epoch"]), float(row["accuracy"])
        truth.setdefault(cell, {})[float(row["learning_rate"])] = values
    return truth


def search_cell(cell: Cell, data_dir: str, seed: int) -> tuple[float, int]:
    """The rate that our finder picks, as the truth counts it, and the number of its steps."""
    data = data_of(cell, data_dir)
    with quiet():
        module = Lit(network_of(cell, data_dir, seed), MAKERS[cell.optimizer], cell.way)
        trainer = pl.Trainer(accelerator="cpu", max_epochs=epochs_of(cell), logger=False, enable_checkpointing=False)
    loaders = loader(*data[:2], cell.batch_size, shuffle=True), loader(*data[2:], cell.batch_size, shuffle=False)
    search = find_learning_rate(module, loaders, trainer, seed=seed)
    steps = len(search.range_test.losses) + sum(len(rate.losses) for rate in search.race)
    unit = BACKBONE_RATIO if cell.way == "two groups" else 1.0  # the finder counts the rate of the first group
    return search.learning_rate / unit, steps


def compare(data_dir: str, group: str, ways: list[str], seeds: int, rule: str) -> None:
    """Ask our finder about every cell of a group, with several seeds, and append what it picks."""
    done = {(row["cell"], row["seed"], row["rule"]) for row in read_rows(PICKS)}
    for seed, (cell, accuracies) in itertools.product(range(10, 10 + seeds), read_truth().items()):
        if cell.group != group or cell.way not in ways or (cell.name, str(seed), rule) in done:
            continue
        rate, steps = search_cell(cell, data_dir, seed)
        row = [cell.name, seed, rule, f"{rate:.4g}", steps]
        append_rows(PICKS, ["cell", "seed", "rule", "learning_rate", "steps"], [row])
        print(f"{cell.name} {seed}: {rate:.2g}, loss {loss_of_pick(rate, accuracies):.1f}", flush=True)


def loss_of_pick(rate: float, accuracies: dict[float, tuple[float, float]]) -> float:
    """In points, below the best rate."""
    fits = {other: fit for other, (_, fit) in accuracies.items()}
    return 100 * (max(fits.values()) - accuracy_at(rate, fits))


def report(rules: list[str]) -> None:
    """Print the tables of docs/lr_find.md."""
    truth = {cell.name: (cell, accuracies) for cell, accuracies in read_truth().items()}
    parts: dict[tuple[str, str, str], list[tuple[float, int]]] = {}
    missed = []
    for row in read_rows(PICKS):
        if row["cell"] not in truth or row["rule"] not in rules:
            continue
        cell, accuracies = truth[row["cell"]]
        rate = float(row["learning_rate"])
        loss = loss_of_pick(rate, accuracies)
        kind = "fine-tuning" if cell.way in FINE_TUNING else "schedules" if cell.way != "constant" else "constant"
        for part in dict.fromkeys(("all", kind, cell.way)):
            parts.setdefault((cell.group, part, row["rule"]), []).append((loss, int(row["steps"])))
        if loss > 1:
            best = max(accuracies, key=lambda other: accuracies[other][1])
            missed.append(f"- {row['rule']}: {cell.name}, seed {row['seed']}: {rate:.2g}, best {best:.2g}, {loss:.1f}")
    rows = []
    for (group, part, rule), found in sorted(parts.items()):
        losses, steps = [loss for loss, _ in found], sorted(steps for _, steps in found)
        within = sum(loss <= 1 for loss in losses) / len(losses)
        figures = f"{within:.0%}", f"{fmean(losses):.1f}", f"{max(losses):.1f}"
        rows.append([group, part, rule, *figures, steps[len(steps) // 2], len(losses)])
    header = "| group | part | rule | within a point | mean loss | worst loss | median steps | searches |"
    print("\n".join(table(header, rows)))
    print("\nMisses:", *sorted(missed), sep="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["draw", "truth", "compare", "report"])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--group", default="first draw")
    parser.add_argument("--ways", nargs="+", default=[*SCHEDULES, *FINE_TUNING])
    parser.add_argument("--rule", nargs="+", default=["ours"], help="the name under which picks are kept")
    parser.add_argument("--seeds", type=int, default=2, help="of our finder")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    if arguments.command == "draw":
        print(*(cell.name for cell in draw_cells(arguments.group)), sep="\n")
    elif arguments.command == "truth":
        make_truth(arguments.data_dir, arguments.group, arguments.ways)
    elif arguments.command == "compare":
        compare(arguments.data_dir, arguments.group, arguments.ways, arguments.seeds, arguments.rule[0])
    else:
        report(arguments.rule)


if __name__ == "__main__":
    main()
