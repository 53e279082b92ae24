"""A run's folder: its name, where it lies, and what is where in it."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from lightning_fabric.loggers.logger import rank_zero_experiment
from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.loggers.logger import DummyLogger

from unstall.errors import UsageError

CONFIG = "config.yaml"


HPARAMS = "hparams.yaml"
"""Written when training starts."""


BEST = Path("checkpoints/best.ckpt")


LAST = Path("checkpoints/last.ckpt")


OWN_FOLDER = (TensorBoardLogger, CSVLogger)
"""The loggers that have a folder for each run, as Lightning knows them."""


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


@dataclass(frozen=True)
class Place:
    """What a path means, whichever way it was written: a run, a checkpoint in one, or one outside of any.

    Args:
        run: The run; None for a checkpoint that was taken out of one.
        checkpoint: The checkpoint that was named; None if it was the run.
    """

    run: Run | None
    checkpoint: Path | None = None


def locate(path: str | Path, argument: str = "ckpt_path") -> Place:
    """Find the run or checkpoint that a path means: also `.`, `~/...`, `$HOME/...`, a link, or from a folder within.

    Args:
        path: As it was typed.
        argument: What it was given for, for the message.

    Raises:
        UsageError: if there is nothing, or if the folder is not a run.
    """
    place = expanded(path).resolve()
    if place.is_file():
        folder = place.parent.parent
        within = place.parent.name == LAST.parent.name and (folder / CONFIG).is_file()
        run = Run(_shown(folder)) if within else None
        here = Path.cwd()
        alone = place.relative_to(here) if place.is_relative_to(here) else place
        return Place(run, run.folder / place.relative_to(folder) if run else alone)
    if not place.is_dir():
        raise UsageError(f"{argument}={path}: no such file, run or experiment; give one{such_as(newest_checkpoint())}")
    if not (place / CONFIG).is_file() and not (place / LAST).is_file():
        raise UsageError(
            f"{argument}={path}: not a run folder, it holds neither {CONFIG} nor {LAST}; "
            f"give one{such_as(newest_run())}"
        )
    return Place(Run(_shown(place)))


def expanded(path: str | Path) -> Path:
    """A path with its `~` and its `$NAME` replaced, as a shell does where it sees them."""
    return Path(os.path.expandvars(path)).expanduser()


def _shown(folder: Path) -> Path:
    """A run's folder as short as it can be typed here, and with its experiment and its logs folder still in it."""
    logs, here = folder.parent.parent, Path.cwd()
    return folder.relative_to(here) if logs.is_relative_to(here) else folder


class RunLogger(TensorBoardLogger):
    """A TensorBoard logger whose version is a run name: sorted by time, never used twice.

    It draws no point twice: what is logged again at the same step is left out. So is the number of the epoch, which
    Lightning adds to whatever it logs, of a test too: the curves `at_a_glance/` are over epochs.

    Args:
        save_dir: The folder of all experiments, ``logs``.
        name: The experiment.
        version: The name of an existing run to go on with; none makes a new one when it is first needed.
        purge_step: Going on with a run: TensorBoard forgets what was logged from this optimizer step on, because
            it is about to be logged again.
        prefix: What the names of all metrics begin with, and a `-`.
    """

    def __init__(
        self,
        save_dir: str | Path,
        name: str = "run",
        version: str | None = None,
        purge_step: int | None = None,
        prefix: str = "",
    ) -> None:
        more: dict[str, Any] = (
            {"prefix": prefix} if purge_step is None else {"prefix": prefix, "purge_step": purge_step}
        )
        super().__init__(expanded(save_dir), name=name, version=version, default_hp_metric=False, **more)
        self._drawn: dict[str, int] = {}
        self._made: Path | None = None

    @property
    def drawn(self) -> Collection[str]:
        """The names of all that was logged with its step."""
        return self._drawn.keys()

    @property
    def version(self) -> str:
        """The run's name; the first call makes its folder."""
        if self._version is None:
            self._version = reserve(Path(self.root_dir))
            self._made = None if rank() else Path(self.root_dir, self._version)
        return str(self._version)

    def discard(self, *, begun: bool = True) -> None:
        """Remove the folder that this object has made, unless a training was begun in it: it holds a config then."""
        if self._made is not None and not (begun and (self._made / CONFIG).exists()):
            shutil.rmtree(self._made, ignore_errors=True)
            with contextlib.suppress(OSError):  # there are other runs of this experiment
                self._made.parent.rmdir()

    @property
    def log_dir(self) -> str:
        """The run's folder, as it is: Lightning would replace a `$NAME` within, which is part of a folder's name."""
        return str(Path(self.root_dir, self.version))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """TensorBoard's writer; the first call makes its file."""
        if self._experiment is None:
            put_before_now(Path(self.log_dir))
        return super().experiment

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Draw points, but for those that were drawn last at the same step."""
        new = {name: value for name, value in metrics.items() if step is None or self._drawn.get(name) != step}
        new.pop("epoch", None)
        if step is not None:
            self._drawn |= dict.fromkeys(new, step)
        super().log_metrics(new, step)


def put_before_now(folder: Path) -> None:
    """Rename a run's event files so that they sort before one that is made now, also where the clock was set back.

    TensorBoard reads the files of a run by name, which begins with the time, and takes what comes later for newer.
    """
    times = {}
    for file in folder.glob("events.out.tfevents.*.*"):
        moment = file.name.split(".")[3]
        if len(moment) == 10 and moment.isdecimal() and file.is_file():  # as every writer has it until the year 2286
            times[file] = int(moment)
    late = max(times.values(), default=0) - int(time.time()) + 1
    if late > 0:
        for file in sorted(times, key=lambda file: file.name):
            _, _, _, _, rest = file.name.split(".", 4)
            with contextlib.suppress(OSError):  # Windows, while somebody reads it
                file.rename(file.with_name(f"events.out.tfevents.{times[file] - late:010d}.{rest}"))


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


def newest_checkpoint(logs: Path = Path("logs")) -> Path | None:
    """The best checkpoint of the run that was trained last, to name in a remedy; None if there is none."""
    return max(logs.glob(f"*/*/{BEST}"), key=lambda file: file.stat().st_mtime, default=None)


def newest_run(logs: Path = Path("logs"), experiment: str = "*", *, trained: bool = False) -> Path | None:
    """The folder of the run that began last, by its name, which is a time; None if there is none.

    Args:
        logs: The folder of all experiments.
        experiment: The name of one; all of them if left out.
        trained: Whether it must have a checkpoint. If not, one that has trained comes before a mere search of a rate.
    """
    folders = [file.parent for file in logs.glob(f"{experiment}/*/{CONFIG}")]
    with_checkpoint = [folder for folder in folders if (folder / LAST).is_file() or (folder / BEST).is_file()]
    begun = [folder for folder in folders if folder in with_checkpoint or (folder / HPARAMS).is_file()]
    return max(with_checkpoint if trained else begun or folders, key=lambda folder: folder.name, default=None)


def such_as(example: Path | None) -> str:
    """An example for the end of a remedy: something that is there, or how to come by it."""
    return "; there is none yet: unstall fit makes one" if example is None else f", such as {example}"


def log_dir(trainer: pl.Trainer) -> Path | None:
    """The folder of a trainer's run; None where it keeps none. A broadcast from rank zero: to be called on every rank.

    It is where the loggers write, or rather the first of them: of one that shares its folder among runs, the part in
    which Lightning puts the run's checkpoints. The command line's trainer has a run of its own, with any loggers or
    without. A rehearsal (`fast_dev_run`, a search) keeps nothing.
    """
    loggers = trainer.loggers
    if any(isinstance(logger, DummyLogger) for logger in loggers):
        return None
    if getattr(trainer, "run", None) is not None or isinstance(next(iter(loggers), None), OWN_FOLDER):
        return Path(str(trainer.log_dir))
    if not loggers:
        return None
    place = Path(loggers[0].save_dir or trainer.default_root_dir, str(loggers[0].name), str(loggers[0].version))
    return Path(trainer.strategy.broadcast(place))


def tensorboard_of(trainer: pl.Trainer) -> TensorBoardLogger | None:
    """The trainer's TensorBoard logger, if it has one."""
    return next((logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)


def datamodule_of(trainer: pl.Trainer) -> Any:
    """The trainer's data module; None if it was given loaders."""
    return getattr(trainer, "datamodule", None)
