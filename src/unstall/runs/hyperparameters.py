"""The flat table by which TensorBoard compares runs."""

import inspect
import os
from typing import Any

import pytorch_lightning as pl

from unstall.runs.folder import HPARAMS as HPARAMS
from unstall.runs.folder import datamodule_of

PLACES = ("data_dir", "predict_dir", "num_workers")
"""Where things lie, not what is learned from them: no hyper-parameters, and free to differ in a resumed run."""


def hyperparameters_of(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    """The flat table for TensorBoard's HParams tab: plain scalars and strings, the same names for every model.

    ``learning_rate`` is the rate the run starts with, also under a schedule, or the peak of one that has a peak;
    ``batch_size`` is per process; ``network`` says what its arguments change of the class's own. The tab shows the
    first five names in alphabetical order: all others follow under ``setting/``.
    """
    table: dict[str, Any] = {}
    if trainer.optimizers:
        group = trainer.optimizers[0].param_groups[0]
        table["learning_rate"] = float(group.get("max_lr", group.get("initial_lr", group["lr"])))
        table["optimizer"] = type(trainer.optimizers[0]).__name__
    of_data = getattr(datamodule_of(trainer), "hparams", {})
    table["batch_size"] = of_data.get("batch_size") or getattr(trainer.train_dataloader, "batch_size", None)
    table["seed"] = int(os.environ.get("PL_GLOBAL_SEED", 0))
    settings: dict[str, Any] = {}
    for name, value in {**of_data, **module.hparams}.items():
        if not name.startswith("_") and name not in ("optimizer", "batch_size", *PLACES):
            settings |= _flatten(name, value)
    settings.pop("network", None)
    table["network"] = network_of(module)
    table |= {f"setting/{name}": value for name, value in settings.items()}
    return {name: value for name, value in table.items() if value is not None}


def network_of(module: pl.LightningModule) -> str:
    """Return the class of a module's network and the arguments that are not its defaults, such as `Net(5, bias=False)`.

    A module that is given none is one itself. Those without a default have no name, as columns are narrow.
    """
    given = module.hparams.get("network")
    if not isinstance(given, dict) or "class_path" not in given:
        return type(getattr(module, "network", module)).__name__
    kind = type(getattr(module, "network", None))
    required, other = [], []
    for name, value in (given.get("init_args") or {}).items():
        parameter = inspect.signature(kind).parameters.get(name)
        if parameter is not None and parameter.default is parameter.empty:
            required.append(_shown(value))
        elif parameter is None or value != parameter.default:
            other.append(f"{name}={_shown(value)}")
    arguments = ", ".join([*required, *other])
    name = str(given["class_path"]).rpartition(".")[2]
    return f"{name}({arguments})" if arguments else name


def _shown(value: Any) -> str:
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return "-".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _flatten(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "class_path" in value:
        flat = {name: str(value["class_path"]).rpartition(".")[2]}
        for key, inner in (value.get("init_args") or {}).items():
            flat |= _flatten(key, inner)
        return flat
    if isinstance(value, (list, tuple)):
        return {name: _shown(value)}
    return {name: value if isinstance(value, (bool, int, float, str, type(None))) else str(value)}
