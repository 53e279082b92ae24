"""What naming something in a config would import, found out without importing it."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from pkgutil import get_importer
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import CheckpointIO, ClusterEnvironment
from pytorch_lightning.accelerators import Accelerator
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import LayerSync, Precision
from pytorch_lightning.profilers import Profiler
from pytorch_lightning.strategies import Strategy
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Dataset, Sampler

from unstall.cli.reading import read_again

KINDS = (
    *(torch.nn.Module, torch.optim.Optimizer, LRScheduler, Dataset, Sampler, DataLoader, pl.LightningDataModule),
    *(pl.Callback, Logger, Profiler, Strategy, Accelerator, Precision, CheckpointIO, ClusterEnvironment, LayerSync),
)
"""What a run is made of. Of a library, no other class may be named: to build one may start a process
(`torch.distributed...SubprocessHandler`) or a whole command line (`LightningCLI`), and where an argument has no type,
as `device` of `torch.nn.Linear`, jsonargparse builds whatever class it is given."""
DOTTED = re.compile(r"(?<![\w.])[^\W\d]\w*(?:\.[^\W\d]\w*)+")


@dataclass(frozen=True)
class Name:
    """A dotted name that leads to code.

    Args:
        name: As it is written: `mine.network.Net`.
        module: The longest part of it that is a module: `mine.network`.
        files: Where it lies, and each package around it.
    """

    name: str
    module: str
    files: tuple[Path, ...]


def names_in(value: Any) -> dict[str, Name]:
    """Return the names in plain data whose import would run code, in order, wherever they stand.

    Which settings take classes or functions, only the classes themselves know: every text is looked at.
    """
    found = (resolve(name) for text in dict.fromkeys(texts_in(value)) for name in DOTTED.findall(text))
    return {name.name: name for name in found if name is not None}


def resolve(name: str) -> Name | None:
    """Return which modules an import of a dotted name would run; None if there are none, as of `val.loss`."""
    parts = name.split(".")
    module, files = "", []
    try:
        spec = find_spec(parts[0])  # of a name without a dot, that imports nothing
    except (ValueError, ImportError):  # a module without a spec, such as __main__
        return Name(name, parts[0], ())
    for index in range(1, len(parts) + 1):
        if spec is None:
            break
        if spec.loader is not None and not _is_namespace(spec):
            module = ".".join(parts[:index])
            files += [Path(spec.origin).resolve()] if spec.has_location and spec.origin else []
        if index == len(parts) or spec.submodule_search_locations is None:
            break
        spec = _within(list(spec.submodule_search_locations), parts[index])
    return Name(name, module, tuple(files)) if module else None


def _within(folders: list[str], part: str) -> ModuleSpec | None:
    """The spec of a module in a package, whose parents the import system itself would have to import first."""
    portions: list[str] = []
    for folder in folders:
        importer = get_importer(folder)
        spec = importer.find_spec(part) if importer is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += (spec.submodule_search_locations or []) if spec is not None else []
    if not portions:
        return None
    namespace = ModuleSpec(part, None, is_package=True)
    namespace.submodule_search_locations = portions
    return namespace


def texts_in(value: Any, depth: int = 0) -> Iterator[str]:
    """Every text in plain data, and those in what a text is read as: jsonargparse reads texts as YAML once more."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from texts_in(inner, depth)
            if not isinstance(key, str):
                yield from texts_in(key, depth)
    elif isinstance(value, (list, tuple, set)):
        for inner in value:
            yield from texts_in(inner, depth)
    elif isinstance(value, str):
        yield value
        read = read_again(value, depth)
        if read != value:
            yield from texts_in(read, depth + 1)


def is_under(name: str, prefixes: set[str]) -> bool:
    """Whether a name is one of these, or within one: `torch.nn.ReLU` is within `torch`."""
    parts = name.split(".")
    return any(".".join(parts[:index]) in prefixes for index in range(1, len(parts) + 1))


def is_safe_to_call(name: Name, prefixes: set[str], functions: set[str], libraries: set[str]) -> bool:
    """Whether a name of known modules is a class of theirs, of `KINDS` where it is a library's. Imports the module.

    Not what they have imported themselves (`torch.hub.Path`), nor a class's way to load something
    (`LightningModule.load_from_checkpoint`), nor a function (`torch.hub.load`), but for those in `functions`.
    """
    rest = name.name[len(name.module) + 1 :]
    if any(part.startswith("_") for part in name.name.split(".")):
        return False
    if not rest or "." in rest:
        return not rest or not hasattr(_module(name.module), rest.partition(".")[0])
    found = getattr(_module(name.module), rest, None)
    if found is None:
        return True  # there is nothing of that name: it is a mistake, or no name at all
    if isinstance(found, torch.dtype):
        return True
    home = getattr(found, "__module__", None) or name.module
    kinds = KINDS if is_under(home, libraries) else object
    of_a_kind = isinstance(found, type) and issubclass(found, kinds)
    return (of_a_kind or is_under(name.name, functions)) and is_under(home, prefixes)


def _module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


def _is_namespace(spec: ModuleSpec) -> bool:
    return spec.origin is None and spec.submodule_search_locations is not None
