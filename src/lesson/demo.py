"""The lesson in one command: the same network, stalled twice, then trained; and a table of what happened."""

import json
from collections.abc import Callable
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
        verdict: What the diagnosis said of it, in one sentence.
        remedy: The change that helped when it was tried, and its effect; empty if none was needed.
    """

    experiment: str
    optimizer: str
    learning_rate: float
    batch_size: int
    best_accuracy: float
    last_loss: float
    prior_loss: float
    verdict: str
    remedy: str


def main(options: list[str]) -> None:
    """The command `unstall demo`.

    Args:
        options: Settings for every run, such as `--data.data_dir=...` or `--trainer.max_epochs=2`.
    """
    demo(run, options, program())


def demo(run: Callable[[list[str]], Path], options: list[str], program: str) -> None:
    """Run the lesson and print its table.

    Args:
        run: Executes one command line and returns the folder of its run.
        options: Settings for every run, such as ``--data.data_dir=...`` or ``--trainer.max_epochs=2``.
        program: What to type to run this program.

    Raises:
        UsageError: if the configs are not there.
    """
    if not CONFIGS.is_dir():
        raise UsageError(f"configs: no such folder in {Path.cwd()}; run the demo from the folder of the project")
    console = Console()
    options = [SHORT, *options]
    folders = []
    for number, (title, (command, flag, config, *rest)) in enumerate(STEPS, start=1):
        arguments = [command, flag, str(CONFIGS / f"{config}.yaml"), *rest, *options]
        console.print(
            f"\n[bold]{number}. {title}[/bold]\n[dim]$ {program} {' '.join(arguments)}[/dim]", highlight=False
        )
        folders.append(run(arguments))
    console.print(f"\n[bold]{len(STEPS) + 1}. Why the first two stalled, and what helps: remedies tried[/bold]")
    for folder in folders[:2]:
        console.print(f"[dim]$ {program} diagnose {folder}[/dim]", highlight=False, soft_wrap=True)
        run(["diagnose", str(folder), *options])
    rows = [read_row(folder) for folder in folders]
    console.print()
    console.print(table(rows))
    for row in rows:
        console.print(f"[bold]{row.experiment}[/bold]: {row.verdict}.{row.remedy}", highlight=False)
    logs = folders[0].parent.parent
    write(logs / PICTURE, png(curves(folders)))
    before, _, _ = program.rpartition("unstall")
    tensorboard = f"{before}tensorboard{'.main' if before.endswith('-m ') else ''}"
    console.print(f"\nthe picture:    {logs / PICTURE}", highlight=False)
    console.print(f"all the curves: {tensorboard} --logdir={logs}", highlight=False, soft_wrap=True)
    console.print(f"test the best:  {program} test --ckpt_path={Run(folders[2]).best}", highlight=False, soft_wrap=True)
    console.print(f"try a rate:     {program} fit --model.optimizer.lr=0.1", highlight=False, soft_wrap=True)


def read_row(folder: Path) -> Row:
    """Read a run's folder."""
    metrics = read_metrics(folder / "metrics.csv")
    hyperparameters = yaml.safe_load((folder / "hparams.yaml").read_text())
    file = folder / "diagnosis.json"
    diagnosis = json.loads(file.read_text()) if file.is_file() else {}
    tried = [fork for fork in diagnosis.get("forks", []) if diagnosis["fix"] and fork["change"] == diagnosis["remedy"]]
    return Row(
        experiment=folder.parent.name,
        optimizer=hyperparameters["optimizer"],
        learning_rate=hyperparameters["learning_rate"],
        batch_size=hyperparameters["batch_size"],
        best_accuracy=max(row["val/accuracy"] for row in metrics),
        last_loss=metrics[-1]["train/loss"],
        prior_loss=metrics[-1]["prior_loss"],
        verdict=diagnosis.get("sentence", ""),
        remedy="".join(
            f" Remedy, tried: {fork['change']}, held-out loss {fork['loss_before']:.3g} -> {fork['loss_after']:.3g}."
            for fork in tried
        ),
    )


def table(rows: list[Row]) -> Table:
    """The lesson's table, for the terminal."""
    result = Table(
        title=f"Always guessing the class prior would cost {rows[0].prior_loss:.3f} nats (H0)",
        caption=f"a linear model reaches {rows[-1].best_accuracy:.4f}",
        title_style="",
    )
    for name in ("experiment", "optimizer", "rate", "batch", "best val accuracy", "last train loss"):
        words = name in ("experiment", "optimizer")
        result.add_column(name, justify="left" if words else "right", no_wrap=words)
    for row in rows:
        result.add_row(
            row.experiment,
            row.optimizer,
            f"{row.learning_rate:.1e}",
            str(row.batch_size),
            f"{row.best_accuracy:.4f}",
            f"{row.last_loss:.4g}",
        )
    return result


def curves(folders: list[Path]) -> Any:
    """Draw the runs side by side."""
    rows = [read_row(folder) for folder in folders]
    metrics = [read_metrics(folder / "metrics.csv") for folder in folders]
    names = ("epoch", "train/loss", "val/accuracy")
    columns = {
        f"{row.experiment} ({row.learning_rate:.0e})": {name: [epoch[name] for epoch in history] for name in names}
        for row, history in zip(rows, metrics, strict=True)
    }
    return training_curves(columns, rows[0].prior_loss)
