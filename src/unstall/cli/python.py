"""What the commands do, from Python."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl

from unstall.cli.commands import CLI
from unstall.cli.entry import prepare
from unstall.cli.trainer import Trainer

if TYPE_CHECKING:
    from unstall.forks import Report
    from unstall.trials import Data


def run(args: list[str]) -> Path:
    """Run one command of the command line.

    Args:
        args: Its words, such as `["fit", "-c", "mine.yaml"]`.

    Returns:
        The folder of its run.

    Raises:
        UsageError: for whatever the command line would end with.
    """
    prepare()
    return CLI(args).folder


def diagnose(
    subject: pl.LightningModule | str | Path, data: "Data | None" = None, trainer: pl.Trainer | None = None
) -> "Report":
    """Say what holds training back, with evidence, and which change was seen to help.

    Args:
        subject: A module at its initial weights, which is not changed; or the folder of a run, to which
            `diagnosis.json`, `fix.yaml` and a picture are added.
        data: Of a module, what `Trainer.fit` takes: a data module; a training loader, or it and a validation loader,
            each of them one, or a list or dictionary of several; None for a module with loaders of its own.
        trainer: Of a module, the one that would fit it; None: Lightning's defaults, on the module's device.

    Returns:
        The `verdict` with its cause and evidence, the `forks` that were tried, and the `fix`: the smallest change that
        helped, or None.

    Raises:
        UsageError: for manual optimization, several optimizers, too little data, or a folder that holds no run.
    """
    if not isinstance(subject, str | Path):
        from unstall.forks import diagnose_module

        return diagnose_module(subject, data, trainer)
    prepare()
    command = CLI(["diagnose", str(subject)])
    assert isinstance(command.trainer, Trainer)
    return command.trainer.report
