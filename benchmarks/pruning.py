"""Which trials end early, how many steps that saves, and whether the best one is ever lost.

The same two dozen settings are swept with each pruner by `unstall sweep`, in a random order for each seed: a pruner
that compares trials with one another depends on it::

    python benchmarks/pruning.py run       # minutes a sweep; resumes, keeps benchmarks/data/pruning.jsonl
    python benchmarks/pruning.py report    # the table of docs/sweep.md, from that file

The data are 4,000 images of MNIST. The seed is that of the weights and of the order of the batches, too.
"""

import argparse
import itertools
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import optuna
import yaml

from measuring import MNIST_FOLDER, RESULTS, ROOT, replace_tables, table
from unstall import run as unstall

FILE = RESULTS / "pruning.jsonl"
PRUNERS = ("none", "diagnosis", "median", "hyperband")
RATES = [10.0**exponent for exponent in range(-6, 2)]
OPTIMIZERS = ["lesson.optimizer.KerasRMSprop", "torch.optim.Adam", "torch.optim.SGD"]
COMMON = {
    "experiment": "pruning",
    "method": "grid",
    "metric": "val/accuracy",
    "data": {"init_args": {"train_samples": 4000, "batch_size": 64, "data_dir": str(MNIST_FOLDER)}},
    "model": {"init_args": {"network": {"init_args": {"widths": [784, 128, 10]}}}},
    "trainer": {"max_epochs": 6, "accelerator": "cpu", "enable_progress_bar": False},
}


def rows() -> list[dict[str, Any]]:
    """The sweeps on disk."""
    return [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []


def sweep(pruner: str, seed: int) -> list[dict[str, Any]]:
    """Make one sweep; return its trials."""
    points = list(itertools.product(RATES, OPTIMIZERS))
    random.Random(seed).shuffle(points)
    space = [{"model.optimizer": [optimizer], "model.optimizer.lr": [rate]} for rate, optimizer in points]
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "space.yaml")
        file.write_text(yaml.safe_dump(COMMON | {"space": space, "prune": pruner, "seed_everything": seed}))
        folder = unstall(["sweep", f"--config={file}", f"--logs_dir={scratch}", "--workers=1"])
        study = optuna.load_study(study_name="pruning", storage=f"sqlite:///{folder / 'study.db'}")
        return [
            {"optimizer": trial.params["model.optimizer"], "rate": trial.params["model.optimizer.lr"]}
            | {name: trial.user_attrs.get(name) for name in ("steps", "best", "given_up", "cause")}
            for trial in study.get_trials()
        ]


def run(seeds: int) -> None:
    """Make the sweeps that the file lacks."""
    for seed, pruner in itertools.product(range(seeds), PRUNERS):
        if any((row["seed"], row["prune"]) == (seed, pruner) for row in rows()):
            continue
        row = {"seed": seed, "prune": pruner, "trials": sweep(pruner, seed)}
        with FILE.open("a") as lines:
            lines.write(json.dumps(row) + "\n")


def report() -> None:
    """Write the table of docs/sweep.md."""
    sweeps = {(row["seed"], row["prune"]): row["trials"] for row in rows()}
    seeds = sorted({seed for seed, _ in sweeps if all((seed, pruner) in sweeps for pruner in PRUNERS)})
    if not seeds:
        raise SystemExit(f"{FILE.name}: no seed has been swept with every pruner yet")
    lines = []
    for pruner in PRUNERS:
        ended, kept, lost, near, steps, all_steps = 0, 0, [], 0, 0, 0
        for seed in seeds:
            whole, trials = sweeps[seed, "none"], sweeps[seed, pruner]
            truth = {(trial["optimizer"], trial["rate"]): trial["best"] for trial in whole if trial["best"] is not None}
            best = max(truth.values())
            made = [trial for trial in trials if trial["given_up"] is None]
            early = [trial for trial in trials if trial["given_up"] in ("diagnosis", "pruner")]
            ended += len(early)
            near += sum(truth.get((trial["optimizer"], trial["rate"]), 0) > best - 0.01 for trial in early)
            kept += any(truth[trial["optimizer"], trial["rate"]] == best for trial in made)
            lost.append(100 * (best - max(trial["best"] for trial in made)))
            steps += sum(trial["steps"] for trial in trials)
            all_steps += sum(trial["steps"] for trial in whole)
        saved = f"{1 - steps / all_steps:.0%}"
        cells = [f"{ended} of {len(seeds) * len(RATES) * len(OPTIMIZERS)}", saved, f"{kept} of {len(seeds)}"]
        lines.append([f"`{pruner}`", *cells, f"{max(lost):.1f}", near])
    header = (
        "| `prune` | ended early | steps saved | best trial kept | points lost at most | ended within a point of it |"
    )
    replace_tables(ROOT / "docs/sweep.md", "pruning.py report", "pruning", table(header, lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report"])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    run(arguments.seeds) if arguments.command == "run" else report()


if __name__ == "__main__":
    main()
