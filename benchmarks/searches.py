"""Is a search over rates worth more than one `lr_find`? Ours against the usual searches, in numbers of steps.

On a dozen of the finder's cells (lr_find.py), whose best rate is known, each search may take as many training steps as
one `lr_find` there, or eight times as many; looks at held-out data cost it nothing::

    python benchmarks/searches.py run       # minutes a cell; resumes, keeps benchmarks/data/searches.jsonl
    python benchmarks/searches.py report    # the table of docs/sweep.md, from that file

All draw from 1e-6 to 10, start each trial from the same weights on the same batches, and pick by held-out accuracy. A
trial whose loss is no longer finite ends there, and costs no more.
"""

import argparse
import contextlib
import functools
import itertools
import json
import math
import random
import warnings
from collections.abc import Callable, Iterator
from statistics import fmean, median
from typing import Any

import optuna
import torch
from torch import Tensor

from lr_find import MAKERS, Cell, accuracy_at, compare_cell, read_truth
from measuring import RESULTS, ROOT, replace_tables, table
from networks import build_network, evaluate, take_step
from problems import PROBLEMS, Data

FILE = RESULTS / "searches.jsonl"
CELLS = (
    "adamw/1024/dropout/friedman/0",
    "adam/1024/dropout/friedman/1",
    "rmsprop-keras/1024/dropout/classes/0",
    "momentum/1024/dropout/classes/1",
    "adamw/1024/layernorm/spheres/1",
    "adagrad/128/layernorm/spheres/0",
    "sgd/128/batchnorm/mnist/1",
    "adagrad/128/sigmoid/mnist standardised/0",
    "adagrad/1024/tanh/mnist/0",
    "adagrad/1024/batchnorm/mnist standardised/0",
    "rmsprop-keras/1024/transformer/text/0",
    "adamw/128/transformer/text/0",
)
"""Drawn by chance: two of each data set, one of the second draw where there is one; about the shortest fits first."""
BUDGETS = 1, 8
LOWEST, HIGHEST = 1e-6, 10.0
TRIALS = {1: 12, 8: 24}
"""Of random search and TPE, of equal length; TPE draws a third of them by chance."""
FACTOR, RUNGS = 3, (1, 3, 9, 27)
"""A trial of ASHA and Hyperband may end after 1, 3 or 9 of 27 parts of a third of the budget."""
BEST_OF_AN_EPOCH = 3
"""Trials that one-epoch discarding trains on (Egele et al., 2023, arXiv:2207.14479)."""


class SpentError(Exception):
    """No steps are left."""


class Trial:
    """A fit at one constant rate, which can go on."""

    def __init__(self, search: "Search", rate: float) -> None:
        torch.manual_seed(search.seed)
        self.search, self.rate, self.steps, self.finite = search, rate, 0, True
        self.network = build_network(search.cell.architecture, search.data)
        self.optimizer = MAKERS[search.cell.optimizer](self.network.parameters(), lr=rate)
        self.batches = search.batches()

    def train(self, steps: int) -> float:
        """Train on; return the held-out accuracy, -inf if the loss is no number."""
        for _ in range(steps if self.finite else 0):
            if self.search.left == 0:
                raise SpentError
            self.search.left -= 1
            loss = take_step(self.network, self.optimizer, *next(self.batches))
            self.finite = math.isfinite(loss.item())
            if not self.finite:
                break
        self.steps += steps
        self.score = evaluate(self.network, *self.search.data[2:])[1] if self.finite else -math.inf
        return self.score


class Search:
    """One search of a cell, with so many steps to take."""

    def __init__(self, cell: Cell, data: Data, seed: int, budget: int, trials: int) -> None:
        self.cell, self.data, self.seed, self.budget, self.left = cell, data, seed, budget, budget
        self.epoch = len(data[0]) // cell.batch_size
        self.whole = self.epoch * PROBLEMS[cell.data].epochs
        self.draw = random.Random(f"{cell.name} {seed} {trials}")
        self.trials, self.made = trials, list[Trial]()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Every trial's batches: epoch after epoch, the same for all."""
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = torch.randperm(len(self.data[0]), generator=generator)
            for chosen in torch.split(order, self.cell.batch_size):
                yield self.data[0][chosen], self.data[1][chosen]

    def begin(self, rate: float) -> Trial:
        """Begin a trial."""
        self.made.append(Trial(self, rate))
        return self.made[-1]

    def pick(self) -> float:
        """The rate of the best trial among those that went farthest."""
        judged = [trial for trial in self.made if trial.steps]
        farthest = max(trial.steps for trial in judged)
        return max((trial for trial in judged if trial.steps == farthest), key=lambda trial: trial.score).rate

    def random_rate(self) -> float:
        """A rate by chance."""
        return math.exp(self.draw.uniform(math.log(LOWEST), math.log(HIGHEST)))


def random_search(search: Search) -> None:
    """Trials of equal length."""
    for _ in range(search.trials):
        search.begin(search.random_rate()).train(min(search.budget // search.trials, search.whole))


def one_epoch(search: Search) -> None:
    """Trials of one epoch for half of the steps, for all where the rest could finish none; then the best go on."""
    rest = search.budget // 2 if search.budget // 2 > search.whole else 0
    while search.left > rest:
        search.begin(search.random_rate()).train(search.epoch)
    for trial in sorted(search.made, key=lambda trial: -trial.score)[:BEST_OF_AN_EPOCH] if rest else ():
        trial.train(search.whole - search.epoch)


def with_optuna(search: Search, sampler: str, pruner: optuna.pruners.BasePruner | None) -> None:
    """Trials that Optuna draws, and ends."""
    seed = search.draw.randrange(2**31)
    chosen: optuna.samplers.BaseSampler = optuna.samplers.RandomSampler(seed=seed)
    if sampler == "tpe":
        chosen = optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.trials // 3)
    study = optuna.create_study(direction="maximize", sampler=chosen, pruner=pruner or optuna.pruners.NopPruner())
    rungs = RUNGS if pruner else (1,)
    part = min(search.budget // (3 if pruner else search.trials), search.whole) // rungs[-1]
    while search.left > 0 and (pruner is not None or len(search.made) < search.trials):
        asked = study.ask()
        trial, ended = search.begin(asked.suggest_float("rate", LOWEST, HIGHEST, log=True)), False
        for done, rung in itertools.pairwise((0, *rungs)):
            score = max(trial.train((rung - done) * part), -1.0)  # Optuna has no infinities
            asked.report(score, rung)
            ended = rung < rungs[-1] and (asked.should_prune() or not trial.finite)
            if ended:
                break
        study.tell(asked, None if ended else score, optuna.trial.TrialState.PRUNED if ended else None)


def searches() -> dict[str, Callable[[Search], None]]:
    """The rivals by name."""
    asha = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR)
    hyperband = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=RUNGS[-1], reduction_factor=FACTOR)
    return {
        "Optuna's TPE": functools.partial(with_optuna, sampler="tpe", pruner=None),
        "ASHA": functools.partial(with_optuna, sampler="random", pruner=asha),
        "Hyperband, TPE": functools.partial(with_optuna, sampler="tpe", pruner=hyperband),
        "one-epoch discarding": one_epoch,
        "random search": random_search,
    }


def rows() -> list[dict[str, Any]]:
    """The rows on disk."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def append(cell: Cell, seed: int, budget: int, search: str, steps: int, trials: int, rate: float) -> None:
    """Add a row to those on disk."""
    row = {"cell": cell.name, "seed": seed, "budget": budget, "search": search}
    row |= {"steps": steps, "trials": trials, "rate": float(f"{rate:.4g}")}
    with FILE.open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(row, flush=True)


def run(data_dir: str, seeds: int, budgets: list[int]) -> None:
    """Make the searches that the file lacks, the small budget of every cell first."""
    known = {cell.name: cell for cell in read_truth()}
    load = functools.cache(lambda name: PROBLEMS[name].load(data_dir))
    for seed, budget, name in itertools.product(range(10, 10 + seeds), budgets, CELLS):
        cell, own = known[name], [row for row in rows() if (row["cell"], row["seed"]) == (name, seed)]
        steps = next((row["steps"] for row in own if row["search"] == "lr_find"), None)
        if steps is None:
            rate, steps = compare_cell(cell, load(cell.data), seed, rivals=False)["ours"]
            append(cell, seed, 1, "lr_find", steps, 1, rate)
        for rival, make in searches().items():
            if not any((row["search"], row["budget"]) == (rival, budget) for row in own):
                search = Search(cell, load(cell.data), seed, budget * steps, TRIALS[budget])
                with contextlib.suppress(SpentError):
                    make(search)
                append(cell, seed, budget, rival, search.budget - search.left, len(search.made), search.pick())


def report() -> None:
    """Write the table of docs/sweep.md."""
    truth = {cell.name: rates for cell, rates in read_truth().items()}
    found: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for row in rows():
        accuracies = truth[row["cell"]]
        loss = 100 * (max(accuracies.values()) - accuracy_at(row["rate"], accuracies))
        found.setdefault((row["search"], row["budget"]), []).append((loss, row["steps"]))
    lines = []
    for (name, budget), values in sorted(found.items(), key=lambda item: (item[0][1], item[0][0] != "lr_find")):
        losses = [loss for loss, _ in values]
        within = sum(loss <= 1 for loss in losses)
        spread = f"{fmean(losses):.1f}", f"{max(losses):.1f}"
        lines.append([f"`{name}`" if name == "lr_find" else name, f"{budget}x", f"{within} of {len(losses)}", *spread])
        lines[-1].append(f"{median(steps for _, steps in values):.0f}")
    header = "| search | budget | within a point | mean loss | worst loss | median steps |"
    replace_tables(ROOT / "docs/sweep.md", "searches.py report", "searches", table(header, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--data_dir", default="data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", choices=BUDGETS, default=BUDGETS)
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    run(arguments.data_dir, arguments.seeds, arguments.budgets) if arguments.command == "run" else report()


if __name__ == "__main__":
    main()
