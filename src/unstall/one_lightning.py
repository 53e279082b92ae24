"""One Lightning in a process: `lightning.pytorch` and `pytorch_lightning` are the same source under two names.

Loaded twice, their classes differ, and a module made of one is no module to the other. So whichever was loaded first
answers to both names, from when `unstall` is imported. Nothing is imported here, and no loaded module is changed.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

ALONE, TOGETHER = ("pytorch_lightning", "lightning_fabric"), ("lightning.pytorch", "lightning.fabric")
"""The packages by their names as separate distributions, and as parts of the distribution `lightning`."""


TOP = {
    "pytorch_lightning": ("Callback", "LightningDataModule", "LightningModule", "Trainer", "__version__"),
    "lightning_fabric": ("Fabric", "seed_everything"),
}
"""What `lightning` itself offers, and of which package it is."""


class OneLightning(MetaPathFinder):
    """Answers the import of either name with the modules of the one that was loaded first."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how to load a module under its second name; None for whatever has but one."""
        if name == "lightning":
            installed = PathFinder.find_spec(name)
            spec = ModuleSpec(name, _Top(), is_package=True)
            if installed is not None:  # what `lightning` has beside the two
                spec.submodule_search_locations = installed.submodule_search_locations
            return spec
        for first, second in zip(ALONE, TOGETHER, strict=True):
            if getattr(sys.modules.get(second), "__name__", None) == second:  # loaded as itself
                first, second = second, first
            if name == second or name.startswith(f"{second}."):
                return ModuleSpec(name, _SecondName(first + name[len(second) :]))
        return None


class _SecondName(Loader):
    """Loads a module by giving out that of the first name."""

    def __init__(self, first: str) -> None:
        self.first = first

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return the module of the first name, and note what the import system is about to write over."""
        module = importlib.import_module(self.first)
        self.spec, self.loader = module.__spec__, module.__loader__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module back its own name; it has been executed already."""
        module.__spec__, module.__loader__ = self.spec, self.loader


class _Top(Loader):
    """Makes the module `lightning` of the two packages."""

    def create_module(self, spec: ModuleSpec) -> None:
        """Have an empty one made."""

    def exec_module(self, module: ModuleType) -> None:
        """Fill it as the distribution's own `__init__.py` does."""
        for package, names in TOP.items():
            for name in names:
                setattr(module, name, getattr(importlib.import_module(package), name))
        for part in TOGETHER:
            importlib.import_module(part)
        vars(module)["__all__"] = [name for names in TOP.values() for name in names if name[0] != "_"]


def install() -> None:
    """Let both names stand for one Lightning."""
    if not any(isinstance(finder, OneLightning) for finder in sys.meta_path):
        sys.meta_path.insert(0, OneLightning())
