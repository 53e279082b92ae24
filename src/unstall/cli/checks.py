"""Settings that no run could be made of, found before anything is built or written."""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from traceback import extract_tb
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, IterableDataset

from unstall.cli.parser import flat
from unstall.cli.reading import check_plain
from unstall.cli.workers import cores
from unstall.errors import UsageError

LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "max_epochs": -1,
    "max_steps": -1,
    "min_epochs": 0,
    "min_steps": 0,
    "num_sanity_val_steps": -1,
}
"""Of the trainer's settings, those in which Lightning takes a smaller number, and fails or does nothing later."""
EXTENTS = ("max_epochs", "max_steps", "limit_train_batches")
"""Of the trainer's settings, those in which 0 trains nothing at all."""
PROCESSES = {"num_workers", "devices", "workers"}
"""Settings that say how many processes are started."""
EVALUATIONS = {"validate": "val", "test": "test", "predict": "predict"}
"""The commands that need no training data, and whose loader each takes."""
LONGEST_NAME = 255
"""Bytes of one part of a path, on every file system in common use."""
VERSION = re.compile(r"\d{1,9}(\.\d{1,9})*([._-]?(a|b|rc|dev|post)\.?\d*)*(\+[a-zA-Z0-9.]+)?")
SOUND: dict[str, Callable[[Any], bool]] = {
    "epoch": lambda value: isinstance(value, int) and 0 <= value < 2**63,
    "global_step": lambda value: isinstance(value, int) and 0 <= value < 2**63,
    "pytorch-lightning_version": lambda value: isinstance(value, str) and VERSION.fullmatch(value) is not None,
}
"""What every checkpoint of Lightning's has."""
PARTS: dict[str, tuple[type[Any], int]] = {
    "config": (str, 0),
    "hyper_parameters": (dict, 0),
    "state_dict": (dict, 0),
    "callbacks": (dict, 1),
    "optimizer_states": (list, 1),
    "lr_schedulers": (list, 1),
    "loops": (dict, 2),
    "plateau": (list, 0),
}
"""What it may have, the kind of each, and for how many levels within there are mappings."""
SHORTAGE = re.compile(r"tried to allocate [\d.]+ ?\w+|storage size calculation overflowed|not enough memory", re.I)


def check_settings(config: Mapping[str, Any]) -> None:
    """Refuse numbers and names out of range.

    Args:
        config: A command's resolved settings, as plain data.

    Raises:
        UsageError: names the setting, its value and what to give.
    """
    if not 0 <= config["seed_everything"] < 2**32:  # NumPy's range
        raise UsageError(f"seed_everything={config['seed_everything']}: give a whole number from 0 to {2**32 - 1}")
    for name in ("logs_dir", "experiment"):
        if not config[name]:
            raise UsageError(f"{name}={config[name]}: is empty; give a name, such as --{name}=mine")
        check_name(name, config[name])
    check_name("experiment", str(Path(config["logs_dir"], config["experiment"])))
    trainer = config["trainer"]
    for name, least in LEAST.items():
        value = trainer.get(name)
        if isinstance(value, (int, float)) and not value >= least:
            raise UsageError(f"trainer.{name}={value}: give at least {least}")
    for name in EXTENTS:
        if trainer.get(name) == 0:
            raise UsageError(f"trainer.{name}={trainer[name]}: trains nothing; give more")
    interval = trainer.get("val_check_interval")
    if isinstance(interval, (int, float)) and interval <= 0:
        raise UsageError(f"trainer.val_check_interval={interval}: give a share of an epoch or a number of batches")
    most = max(256, 16 * cores())
    for name, value in flat(config).items():
        argument = f"{name.replace('.init_args', '')}={value}"
        if isinstance(value, int) and abs(value) >= 2**63:
            raise UsageError(f"{argument}: is beyond what can be counted to; give less")
        if name.rpartition(".")[2] in PROCESSES and str(value).isdecimal() and int(value) > most:
            raise UsageError(f"{argument}: is a number of processes; give at most {most} on this machine")
    largest = torch.finfo(torch.float32).max
    for name, value in flat(config.get("model") or {}, "model").items():
        if isinstance(value, float) and largest < abs(value) < math.inf:
            name = name.replace(".init_args", "")
            raise UsageError(f"{name}={value}: is beyond the largest number that a network can hold, {largest:.2g}")


def check_checkpoint(path: str | Path, checkpoint: dict[str, Any], to_go_on: bool = False) -> dict[str, Any]:
    """Refuse a checkpoint that Lightning could not read, or go on from; return it.

    Raises:
        UsageError: names what it lacks, or what is of the wrong kind.
    """
    remedy = "take a checkpoint that this project or plain Lightning has written"
    check_plain(checkpoint, f"ckpt_path={path}", most=1_000_000)  # numbers of random states, a few for each weight
    for key, sound in SOUND.items():
        if key not in checkpoint or not sound(checkpoint[key]):
            has = f"{key}={checkpoint[key]!r:.60}" if key in checkpoint else f"no {key}"
            raise UsageError(f"ckpt_path={path}: not a whole Lightning checkpoint, it has {has}; {remedy}")
    for key, (kind, levels) in PARTS.items():
        odd = next(_odd_in(checkpoint.get(key, kind()), kind, levels), None)
        if odd is not None:
            raise UsageError(f"ckpt_path={path}: in its {key} is a {type(odd).__name__}; {remedy}")
    if to_go_on and not {"optimizer_states", "lr_schedulers"} <= checkpoint.keys():
        raise UsageError(
            f"ckpt_path={path}: holds weights alone (save_weights_only), no training goes on from them; {remedy} whole"
        )
    for name, value in checkpoint["state_dict"].items():
        if isinstance(name, str) and not name.endswith("_extra_state") and not isinstance(value, torch.Tensor):
            raise UsageError(f"ckpt_path={path}: {name} in its state_dict is a {type(value).__name__}; {remedy}")
    check_plain(checkpoint.get("hyper_parameters"), f"ckpt_path={path}: its hyper_parameters")
    return checkpoint


def _odd_in(value: Any, kind: type[Any], levels: int) -> Iterator[Any]:
    """What is not of this kind; for the levels within, what is no mapping."""
    if not isinstance(value, kind):
        yield value
    elif levels:
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _odd_in(inner, dict, levels - 1)


def check_name(argument: str, path: str) -> None:
    """Refuse a path that no file system takes, or that leads through a link to nothing.

    Raises:
        UsageError: names the argument.
    """
    if "\0" in path:
        raise UsageError(f"{argument}={path!r}: holds a null character; give another name")
    for part in Path(path).parts:
        if len(part.encode(errors="surrogateescape")) > LONGEST_NAME:
            raise UsageError(f"{argument}={part[:20]}...: is longer than {LONGEST_NAME} bytes; give a shorter name")
    for place in (Path(path), *Path(path).parents):
        if place.is_symlink() and not place.exists():
            raise UsageError(f"{argument}={path}: {place} is a link to nothing; give another, or make what it leads to")


def check_loader(loader: Any, named: str) -> None:
    """Refuse a loader that is known to be empty, without taking anything from it.

    Raises:
        UsageError: names the loader.
    """
    if isinstance(loader, DataLoader) and not isinstance(loader.dataset, IterableDataset) and len(loader) == 0:
        raise _empty(named)


def first_batch(loader: Any, named: str) -> Any:
    """Return a loader's first batch.

    Raises:
        UsageError: if it ends before.
    """
    try:
        return next(iter(loader))
    except StopIteration:
        raise _empty(named) from None


def check_data(data: pl.LightningDataModule, module: pl.LightningModule, trainer: pl.Trainer, command: str) -> None:
    """Set data up as the trainer will, and refuse loaders that are empty, and a batch that the module refuses.

    Args:
        data: To be looked at.
        module: Whose `check_batch`, if it has one, is shown a batch of training.
        trainer: As Lightning would call it: a data module may ask its trainer what is about to be done.
        command: What is.

    Raises:
        UsageError: names the loader, or is what the module raises.
    """
    data.trainer, trainer.predicting = trainer, command == "predict"
    data.prepare_data()
    data.setup(command if command in EVALUATIONS else "fit")
    named = f"{EVALUATIONS.get(command, 'train')}_dataloader"
    if is_overridden(named, data):
        loader = getattr(data, named)()
        check_loader(loader, named)
        check: Any = getattr(module, "check_batch", None)
        if command not in EVALUATIONS and check is not None:
            batch = first_batch(loader, named)
            check(module.transfer_batch_to_device(batch, module.device, 0))  # data may be on the trainer's already
    data.trainer, trainer.predicting = None, False


def check_alone(command: str, trainer: pl.Trainer, trains_after: bool) -> None:
    """Refuse what trains in one process where several would do it, or where it would wait for the others for ever.

    Args:
        command: One of the instruments.
        trainer: Of the fit that it is about.
        trains_after: Whether that fit follows at once. Lightning starts its other processes with this one's words, and
            they would begin with the instrument.

    Raises:
        UsageError: says how to start it.
    """
    processes = trainer.num_devices * trainer.num_nodes
    if processes == 1:
        return
    environment = getattr(trainer.strategy, "cluster_environment", None)
    if environment is not None and environment.creates_processes_externally:
        launcher = type(environment).__name__.removesuffix("Environment")
        raise UsageError(
            f"{command}: trains in one process, and each of {processes} was started with it ({launcher}); start it "
            f"once, with --trainer.devices=1 --trainer.num_nodes=1 --trainer.accumulate_grad_batches={processes}"
        )
    if command == "sweep":
        raise UsageError(
            f"trainer.devices={trainer.num_devices}: a trial trains in one process; give --trainer.devices=1, and "
            "start the same command once for each device (docs/scale.md)"
        )
    if trains_after:
        raise UsageError(
            f"trainer.devices={trainer.num_devices}: {command} works in one process and cannot go straight on to a fit "
            "in several; leave out --fit or --verify, and start the command that it ends with"
        )


def blamed(error: Exception, trainer: Mapping[str, Any]) -> str:
    """Return Lightning's complaint after the setting of the trainer that it is about."""
    about = _named_in(error, trainer)[:1] or ["accelerator", "devices"]
    return f"{', '.join(f'trainer.{name}={trainer[name]}' for name in about)}: {error}"


def _named_in(error: Exception, trainer: Mapping[str, Any]) -> list[str]:
    return [word for word in re.findall(r"`(\w+)", str(error)) if word in trainer]


def refusal_in(error: Exception, path: str | None, trainer: Mapping[str, Any]) -> UsageError | None:
    """Return what a user can mend of an error while a command runs; None if it is something else, or code of theirs.

    It is what a checkpoint holds, where that was being taken up; or a setting of the trainer, where Lightning itself
    complains of one by its name.

    Args:
        error: That ended the command.
        path: The checkpoint, as it was typed.
        trainer: Its settings.
    """
    files = [Path(frame.filename) for frame in extract_tb(error.__traceback__)]
    at = next((index for index, file in enumerate(files) if file.name == "checkpoint_connector.py"), len(files))
    ours = Path(__file__).parents[1]
    if at < len(files) and all("site-packages" in file.parts or ours in file.parents for file in files[at:]):
        said = f"{type(error).__name__}: {error}"
        return UsageError(f"ckpt_path={path}: cannot be taken up, {said}; take a sound one of this model")
    lightnings = files and "pytorch_lightning" in files[-1].parts and isinstance(error, ValueError | TypeError)
    return UsageError(blamed(error, trainer)) if lightnings and _named_in(error, trainer) else None


def shortage_in(error: BaseException | None) -> str | None:
    """Return what a chain of exceptions says of memory that was not to be had; None if it is about something else."""
    while error is not None:
        found = SHORTAGE.search(str(error))
        if found or isinstance(error, MemoryError):
            return found[0] if found else "out of memory"
        error = error.__cause__ or error.__context__
    return None


def _empty(named: str) -> UsageError:
    return UsageError(f"data: its {named}() gives no batch; give it data, or a batch size that they suffice for")
