"""The stalls that are measured: configurations of each, faulty and repaired, and what is wrong with it."""

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml

from faults import kinds_of
from measuring import RESULTS
from program_data import table, version

COLLECTIONS = "reported", "fresh, seen", "fresh, unseen", "forums", "elsewhere", "later", "last", "programs"
"""In the order of the report. A collection with a comma is of the file before it, and of a part."""
BY_SCIKIT_LEARN = (
    "classification",
    "regression",
    "multilabel",
    "iris",
    "breast_cancer",
    "Friedman",
    "Tumours",
    "WithHoles",
)
"""Data that cannot be had without it."""


@dataclass(frozen=True)
class Entry:
    """One stall.

    Args:
        collection: One of `COLLECTIONS`.
        name: In its collection.
        faulty: The configuration of its run, without callbacks and folders.
        fixed: The repaired one.
        kinds: What is wrong with it (faults.py); empty if that is not known here.
        near: Kinds that are half right, besides those that always are.
        needs_scikit_learn: Whether its data come from there.
    """

    collection: str
    name: str
    faulty: dict[str, Any]
    fixed: dict[str, Any]
    kinds: tuple[str, ...] = ()
    near: tuple[str, ...] = ()
    needs_scikit_learn: bool = False

    def config(self, fixed: bool) -> dict[str, Any]:
        """The configuration of a version."""
        return self.fixed if fixed else self.faulty


def our_entries() -> list[Entry]:
    """All collections of this repository."""
    files = "reported", "fresh", "forums", "elsewhere", "later", "last"
    return [*(entry for file in files for entry in reported(file)), *programs()]


def reported(file: str = "reported") -> Iterator[Entry]:
    """Yield the stalls of reported.py, with the facts of data/reported.yaml, or those of another such pair."""
    for facts in yaml.safe_load((RESULTS / f"{file}.yaml").read_text()):
        run = {"epochs": 4, "batch_size": 64, "clip": None, "seed": 0, **facts["run"]}

        def config(fixed: bool, name: str = facts["id"], run: dict[str, Any] = run) -> dict[str, Any]:
            here = {key: value[fixed] if isinstance(value, list) else value for key, value in run.items()}
            model = {"class_path": f"{file}.{here['model']}", "init_args": {"lr": here["lr"], "fixed": fixed}}
            sizes = {"batch_size": here["batch_size"], "fixed": fixed}
            data = {"class_path": f"{file}.{here['data']}", "init_args": sizes}
            made = _config(name, model, data, here["epochs"], here["seed"])
            if here["clip"] is not None:
                made["trainer"]["gradient_clip_val"] = here["clip"]
            return made

        needed, truth = run["data"] in BY_SCIKIT_LEARN, (tuple(facts["faults"]), tuple(facts.get("near", ())))
        collection = f"{file}, {facts['part']}" if "part" in facts else file
        yield Entry(collection, facts["id"], config(False), config(True), *truth, needed)


def programs() -> Iterator[Entry]:
    """Yield the programs that reproduce, of data/programs.yaml or of the file that `PROGRAMS` names."""
    for name, facts in table().items():
        if not facts.get("reproduces", True):
            continue

        def config(fixed: bool, name: str = name, seed: int = facts.get("seed", 0)) -> dict[str, Any]:
            spec, given = version(name, fixed), {"program": name, "fixed": fixed}
            model = {"class_path": "programs.Program", "init_args": {**given, "lr": None}}
            data = {"class_path": "programs.ProgramData", "init_args": {**given, "batch_size": None}}
            return _config(name, model, data, spec["epochs"] // spec.get("passes", 1), seed)

        needed = facts["data"]["kind"] in BY_SCIKIT_LEARN
        yield Entry("programs", name, config(False), config(True), tuple(kinds_of(facts)), (), needed)


def other_cases(folder: Path) -> Iterator[Entry]:
    """Yield the stalls of another folder: modules `<folder>.<name>` with a YAML of that name beside each.

    A comment of the YAML ends with what repairs it: `... the same with --model.fixed=true`. What is wrong with each is
    looked up in `truths.yaml`, if the folder has one (`name: [kinds]`), else among our own by its name.
    """
    sys.path.insert(0, str(folder.parent))
    own = {entry.name: entry for entry in reported()}
    truths = yaml.safe_load((folder / "truths.yaml").read_text()) if (folder / "truths.yaml").is_file() else {}
    for file in sorted(folder.glob("*.yaml")):
        text = file.read_text()
        repair = re.search(r"the same with (.+)", text)
        if repair is None:
            continue
        faulty, ours = yaml.safe_load(text), own.get(re.sub(r"^c\d+_", "", file.stem))
        kinds = truths.get(file.stem, () if ours is None else ours.kinds)
        near = () if ours is None else ours.near
        needed = "sklearn" in file.with_suffix(".py").read_text()
        yield Entry("reported", file.stem, faulty, repaired(faulty, repair[1]), tuple(kinds), near, needed)


def other_programs(file: Path) -> list[Entry]:
    """The programs of another file of the form of data/programs.yaml."""
    os.environ["PROGRAMS"] = str(file.resolve())
    return list(programs())


def repaired(config: dict[str, Any], options: str) -> dict[str, Any]:
    """Return a configuration with options of the command line, such as `--model.fixed=true`."""
    changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(config))
    for path, value in re.findall(r"--([\w.]+)[= ](\S+)", options):
        *places, last = path.split(".")
        here = changed
        for place in places:
            here = here.setdefault(place, {})
            here = here.setdefault("init_args", {}) if "class_path" in here else here
        here[last] = yaml.safe_load(value)
    return changed


def build(config: Mapping[str, Any], part: str) -> Any:
    """Build the `model` or the `data` of a configuration."""
    module, _, name = config[part]["class_path"].rpartition(".")
    return getattr(importlib.import_module(module), name)(**config[part].get("init_args", {}))


def build_both(config: Mapping[str, Any]) -> tuple[pl.LightningModule, pl.LightningDataModule]:
    """Build the model and the data of a configuration, from its seed."""
    pl.seed_everything(config.get("seed_everything", 0), verbose=False)
    return build(config, "model"), build(config, "data")


def _config(name: str, model: dict[str, Any], data: dict[str, Any], epochs: int, seed: int = 0) -> dict[str, Any]:
    trainer = {"max_epochs": epochs}
    return {"experiment": name, "seed_everything": seed, "model": model, "data": data, "trainer": trainer}
