"""Loggers of other makers: where do they write?

The run's folder is the program's, whichever loggers there are: checkpoints, tables and the diagnosis lie in it, and
what a logger keeps lies in it too, unless its config says where.
"""

import inspect
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning.loggers import Logger

from unstall.cli.classes import loaded
from unstall.errors import UsageError
from unstall.runs import RunLogger

DATABASE, ARTIFACTS = "mlflow.db", "mlruns"
"""What MLflow keeps a run in, and the files beside it, where its config names no store."""
HERE = "."
"""Where a logger writes whose class leaves that to be said: in its run's folder itself."""


def build_loggers(setting: Any, run: RunLogger) -> list[Logger]:
    """Build the loggers of a config.

    Args:
        setting: What `trainer.logger` is in a parsed config: a logger, a list of them, or whether there is any.
        run: The program's own, for TensorBoard: what a config without a logger means, and `unstall.RunLogger` in a
            list of them. The others get its folder, which is made for the first that needs one.

    Returns:
        The loggers in the config's order; none for `false`.

    Raises:
        UsageError: for one that cannot be built, such as one whose package is not installed.
    """
    if setting in (None, True):
        return [run]
    if setting is False:
        return []
    loggers = [_built(each, run) for each in (setting if isinstance(setting, list) else [setting])]
    return [run if isinstance(logger, RunLogger) else logger for logger in loggers]


def _built(setting: Namespace, run: RunLogger) -> Logger:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--logger", type=Logger, required=True)
    try:
        chosen = _placed(setting, run)
        logger: Logger = parser.instantiate(Namespace(logger=chosen)).logger  # type: ignore[no-untyped-call]
    except Exception as raised:  # whatever theirs raises: a package that is missing, a server that does not answer
        error = _first(raised)  # within jsonargparse's account of it
        remedy = "; or leave the logger out: --trainer.logger=true is TensorBoard"
        if isinstance(error, ImportError) and error.name is not None:
            remedy = f"; install it (pip install {error.name.partition('.')[0]}){remedy[1:]}"
        raise UsageError(f"trainer.logger={setting.class_path}: {str(error).rstrip('.')}{remedy}") from raised
    return logger


def _first(error: BaseException) -> BaseException:
    return error if error.__cause__ is None else _first(error.__cause__)


def _placed(setting: Namespace, run: RunLogger) -> Namespace:
    """A logger's setting with its own default places taken from the run's folder instead of the working folder."""
    given = setting.get("init_args", {})
    folder = given.get("save_dir")
    if folder is None:
        return setting
    placed, own = setting.clone(), Path(folder) == Path(_default_folder(loaded(setting.class_path)))
    if own:
        placed.init_args.save_dir = str(Path(run.log_dir, folder))
    if "tracking_uri" in given and given.tracking_uri is None:  # Lightning would name a folder, which MLflow refuses
        place = Path(run.log_dir if own else folder).absolute()
        placed.init_args.tracking_uri = f"sqlite:///{place / DATABASE}"
        if given.get("artifact_location") is None:
            placed.init_args.artifact_location = (place / ARTIFACTS).as_uri()
    return placed


def _default_folder(kind: Any) -> str:
    default = inspect.signature(kind).parameters["save_dir"].default
    return HERE if default in (None, inspect.Parameter.empty) else str(default)
