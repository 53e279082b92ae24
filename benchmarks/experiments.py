"""The lesson's table: each experiment over several seeds, mean and spread. Writes ``docs/lesson.md`` and its picture.

python benchmarks/experiments.py --seeds 5
"""

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lesson.demo import curves
from measuring import mean_and_deviation, table
from unstall import png, read_metrics, write

EXPERIMENTS = (
    "lr_too_high",
    "lr_too_low",
    "mnist",
    "sgd_rate_one",
    "linear_baseline",
    "bad_init",
    "batch_too_small",
    "batch_larger",
    "overfit",
)
PICTURED = ("lr_too_high", "lr_too_low", "mnist")


def train(experiment: str, seed: int, logs: Path) -> Path:
    """Run one experiment as a user would, in a process of one thread; return its run folder."""
    command = [sys.executable, "-m", "unstall", "fit", "-c", f"configs/{experiment}.yaml"]
    command += [f"--seed_everything={seed}", f"--logs_dir={logs}", "--trainer.enable_progress_bar=false"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    folder = Path(done.stdout.splitlines()[-1])
    print(f"{experiment:16} seed {seed}: val/accuracy {last_row(folder)['val/accuracy']:.4f}", flush=True)
    return folder


def last_row(folder: Path) -> dict[str, float]:
    """A run's metrics after its last epoch."""
    return read_metrics(folder / "metrics.csv")[-1]


def main() -> None:
    """Train everything, two at a time, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--logs", type=Path, default=Path("logs/lesson"))
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time, one thread each")
    options = parser.parse_args()
    cases = [(experiment, seed, options.logs) for experiment in EXPERIMENTS for seed in range(options.seeds)]
    with ThreadPoolExecutor(options.jobs) as pool:
        folders = dict(zip(cases, pool.map(lambda case: train(*case), cases), strict=True))
    rows = []
    for experiment in EXPERIMENTS:
        runs = [folders[experiment, seed, options.logs] for seed in range(options.seeds)]
        last = [last_row(folder) for folder in runs]
        hyperparameters = dict(line.split(": ", 1) for line in (runs[0] / "hparams.yaml").read_text().splitlines())
        settings = ", ".join(hyperparameters[name] for name in ("optimizer", "learning_rate", "batch_size"))
        names = "train/loss", "train/accuracy", "val/accuracy"
        rows.append([f"`{experiment}`", settings, *(mean_and_deviation([row[name] for row in last]) for name in names)])
    lines = [
        f"Mean ± standard deviation over {options.seeds} seeds, one thread per training; "
        "made by `python benchmarks/experiments.py`.",
        "",
        *table("| config | optimizer, rate, batch | train/loss | train/accuracy | val/accuracy, last epoch |", rows),
    ]
    write(Path("docs/lesson.md"), "\n".join(lines) + "\n")
    write(Path("docs/lesson.png"), png(curves([folders[name, 0, options.logs] for name in PICTURED])))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
