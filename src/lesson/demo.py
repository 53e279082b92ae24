"""The lesson in one command: the same network, stalled twice, then trained; and a table of what happened."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from unstall import Run, UsageError, png, program, read_metrics, run, training_curves, write

CONFIGS = Path("configs")
PICTURE = "lesson.png"
SHORT = "--trainer.max_epochs=5"
"""Half of the configs' epochs show all there is to see: the whole demo takes two minutes on two cores."""

HELP = """usage: unstall demo [--SETTING=VALUE ...]

Trains the lesson's runs, diagnoses the two that stall, and prints what happened. It takes two minutes.
Settings hold for every run: --trainer.max_epochs=2, --data.data_dir=/mnt/data, --logs_dir=/tmp/logs"""

STEPS = (
    ("One rate is far too high", ["fit", "-c", "lr_too_high"]),
    ("One is far too low", ["fit", "-c", "lr_too_low"]),
    ("One is found by a race of rates, and trained", ["lr_find", "-c", "mnist", "--fit=true"]),
    ("What a linear model reaches, the simple method to beat", ["fit", "-c", "linear_baseline"]),
)


@dataclass(frozen=True)
class Row:
    """One run as the table shows it.

    Args:
        experiment: The folder of the run's experiment.
        optimizer: Its class.
        learning_rate: The rate it began with.
        batch_size: Samples per step.
        best_accuracy: Highest validation accuracy of any epoch.
        last_loss: Mean training loss of the last epoch, nats.
        prior_loss: The loss of always guessing the class prior (H0), nats.
        verdict: What the diagnosis said of it, and the change that helped when it was tried, with its effect.
    """

    experiment: str
    optimizer: str
    learning_rate: float
    batch_size: int
    best_accuracy: float
    last_loss: float
    prior_loss: float
    verdict: str


def main(options: list[str]) -> None:
    """Train the lesson's runs, diagnose the stalled ones, and print what happened (two minutes).

    Args:
        options: Settings for every run, such as `--data.data_dir=...` or `--trainer.max_epochs=2`.

    Raises:
        UsageError: The configs are not there, or several processes are asked for.
    """
    if {"-h", "--help"} & set(options):
        print(HELP)
        return
    if not CONFIGS.is_dir():
        raise UsageError(
            f"{CONFIGS}: no such folder in {Path.cwd()}; clone the project, if you have not yet, and go to its folder"
        )
    processes = ("--trainer.devices", "--trainer.num_nodes")
    if several := [option for option in options if option.startswith(processes) and not option.endswith("=1")]:
        raise UsageError(f"{several[0]}: its lr_find and diagnose train in one process; leave it out for the demo")
    console = Console(highlight=False)
    command = program()
    options = [SHORT, *options]
    folders = []
    for number, (title, (stage, flag, config, *rest)) in enumerate(STEPS, start=1):
        arguments = [stage, flag, str(CONFIGS / f"{config}.yaml"), *rest, *options]
        console.print(f"\n[bold]{number}. {title}[/bold]\n[dim]$ {command} {shlex.join(arguments)}[/dim]")
        folders.append(run(arguments))
    console.print(f"\n[bold]{len(STEPS) + 1}. Why the first two stalled, and what helps: remedies tried[/bold]")
    for folder in folders[:2]:
        console.print(f"[dim]$ {command} {shlex.join(['diagnose', str(folder)])}[/dim]", soft_wrap=True)
        run(["diagnose", str(folder), *options])
    rows = [read_row(folder) for folder in folders]
    console.print()
    console.print(table(rows))
    for row in rows:
        console.print(f"[bold]{row.experiment}[/bold]: {row.verdict}")
    logs = folders[0].parent.parent
    write(logs / PICTURE, png(curves(folders)))
    tensorboard = program("tensorboard", "tensorboard.main")
    best = f"--ckpt_path={Run(folders[2]).best}"
    console.print(f"\nthe picture:    {logs / PICTURE}", soft_wrap=True)
    console.print(f"all the curves: {tensorboard} {shlex.join([f'--logdir={logs}'])}", soft_wrap=True)
    console.print(f"test the best:  {command} {shlex.join(['test', best])}", soft_wrap=True)
    console.print(f"try a rate:     {command} fit --model.optimizer.lr=0.1", soft_wrap=True)


def read_row(folder: Path) -> Row:
    """Read a run's folder."""
    metrics = read_metrics(folder / "metrics.csv")
    hyperparameters = yaml.safe_load((folder / "hparams.yaml").read_text())
    file = folder / "diagnosis.json"
    diagnosis = json.loads(file.read_text()) if file.is_file() else {}
    verdict = f"{diagnosis.get('sentence', '')}."
    for fork in diagnosis.get("forks", []):
        if diagnosis["fix"] and fork["change"] == diagnosis["remedy"]:
            effect = f"held-out loss {fork['loss_before']:.3g} -> {fork['loss_after']:.3g}"
            verdict += f" Remedy, tried: {fork['change']}, {effect}."
    return Row(
        experiment=folder.parent.name,
        optimizer=hyperparameters["optimizer"],
        learning_rate=hyperparameters["learning_rate"],
        batch_size=hyperparameters["batch_size"],
        best_accuracy=max(row["val/accuracy"] for row in metrics),
        last_loss=metrics[-1]["train/loss"],
        prior_loss=metrics[-1]["prior_loss"],
        verdict=verdict,
    )


def table(rows: list[Row]) -> Table:
    """The lesson's table, for the terminal."""
    result = Table(
        title=f"Always guessing the class prior would cost {rows[0].prior_loss:.3f} nats (H0)",
        caption=f"a linear model reaches {rows[-1].best_accuracy:.4f}",
        title_style="",
    )
    for name in ("experiment", "optimizer"):
        result.add_column(name, no_wrap=True)
    for name in ("rate", "batch", "best val accuracy", "last train loss"):
        result.add_column(name, justify="right")
    for row in rows:
        rate, accuracy, loss = f"{row.learning_rate:.1e}", f"{row.best_accuracy:.4f}", f"{row.last_loss:.4g}"
        result.add_row(row.experiment, row.optimizer, rate, str(row.batch_size), accuracy, loss)
    return result


def curves(folders: list[Path]) -> Any:
    """Draw the runs side by side."""
    rows = [read_row(folder) for folder in folders]
    names = ("epoch", "train/loss", "val/accuracy")
    columns = {}
    for row, folder in zip(rows, folders, strict=True):
        epochs = read_metrics(folder / "metrics.csv")
        label = f"{row.experiment} ({row.learning_rate:.0e})"
        columns[label] = {name: [epoch[name] for epoch in epochs] for name in names}
    return training_curves(columns, rows[0].prior_loss)
