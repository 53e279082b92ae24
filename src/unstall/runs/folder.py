"""A run's folder: its name, where it lies, and what is where in it."""

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import TensorBoardLogger

from unstall.errors import UsageError

CONFIG = "config.yaml"


BEST = Path("checkpoints/best.ckpt")


LAST = Path("checkpoints/last.ckpt")


@dataclass(frozen=True)
class Run:
    """The folder ``logs/<experiment>/<run>`` that holds one training run and everything learned about it."""

    folder: Path

    @property
    def best(self) -> Path:
        """The checkpoint with the lowest validation loss."""
        return self.folder / BEST

    @property
    def last(self) -> Path:
        """The checkpoint of the last finished epoch."""
        return self.folder / LAST


class RunLogger(TensorBoardLogger):
    """A TensorBoard logger whose version is a run name: sorted by time, never used twice.

    Args:
        save_dir: The folder of all experiments, ``logs``.
        name: The experiment.
        version: The name of an existing run to go on with; none makes a new one when it is first needed.
        purge_step: Going on with a run: TensorBoard forgets what was logged from this optimizer step on, because
            it is about to be logged again.
    """

    def __init__(
        self, save_dir: str | Path, name: str, version: str | None = None, purge_step: int | None = None
    ) -> None:
        purge: dict[str, Any] = {} if purge_step is None else {"purge_step": purge_step}
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False, **purge)

    @property
    def version(self) -> str:
        """The run's name; the first call makes its folder."""
        if self._version is None:
            self._version = reserve(Path(self.root_dir))
        return str(self._version)


def rank() -> int:
    """This process's number among all that train together, also before they have met."""
    return int(getattr(rank_zero_only, "rank", None) or 0)


def reserve(experiment: Path) -> str:
    """Make a new run folder in ``experiment`` and return its name, the local time to the second.

    Making a folder succeeds for one process only: a run started in the same second gets the next free suffix. Only
    rank zero makes folders; Lightning hands its choice to the other ranks.
    """
    moment = time.strftime("%Y%m%d-%H%M%S")
    if rank():
        return moment
    experiment.mkdir(parents=True, exist_ok=True)
    for attempt in range(1, 1000):
        name = moment if attempt == 1 else f"{moment}-{attempt:03d}"
        try:
            (experiment / name).mkdir()
        except FileExistsError:
            continue
        return name
    raise AssertionError(f"a thousand runs in one second in {experiment}")


def check_writable(logs: Path, needed: int) -> None:
    """Refuse a folder of logs in which a run of ``needed`` bytes cannot be kept.

    Raises:
        UsageError: if ``logs`` cannot be made or written to, or if its disk is full.
    """
    remedy = "give another folder with --logs_dir"
    existing = logs
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        raise UsageError(f"logs_dir={logs}: {existing} is not a folder; {remedy}")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UsageError(f"logs_dir={logs}: cannot write in {existing} ({error.strerror}); {remedy}") from None
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UsageError(
            f"logs_dir={logs}: its disk has {free / 1e6:.1f} MB left and a run needs {needed / 1e6:.1f} MB; "
            f"make room, or {remedy}"
        )


def run_of(checkpoint: Path) -> Run | None:
    """The run that a checkpoint lies in, or ``None`` if it was moved out of its run."""
    folder = checkpoint.parent.parent
    return Run(folder) if (folder / CONFIG).is_file() else None


def newest_checkpoint(logs: Path = Path("logs")) -> Path:
    """The best checkpoint of the run that was trained last, to name in a remedy; a pattern if there is none."""
    runs = sorted(logs.glob(f"*/*/{BEST}"), key=lambda file: file.stat().st_mtime)
    return runs[-1] if runs else logs / "<experiment>/<run>" / BEST


def log_dir(trainer: pl.Trainer) -> Path:
    """The folder of a trainer's run. A broadcast from rank zero: to be called on every rank."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def tensorboard_of(trainer: pl.Trainer) -> TensorBoardLogger | None:
    """The trainer's TensorBoard logger, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def datamodule_of(trainer: pl.Trainer) -> Any:
    """The trainer's data module; None if it was given loaders."""
    return getattr(trainer, "datamodule", None)
