"""The space of a search: which settings, and what each of them may be."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unstall.errors import UsageError

if TYPE_CHECKING:
    from optuna.trial import Trial

KEYS = {"low", "high", "log", "points"}
REMEDY = "give a list of values, or {low: 1e-5, high: 1, log: true}"
RUNS_GO_BY = ("experiment", "logs_dir")
"""Settings by which a study finds its runs: no trial has its own."""


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included.

    Args:
        low: The lowest.
        high: The highest.
        log: Whether equal factors count as equal steps.
        points: How many of them a grid tries.
    """

    low: float
    high: float
    log: bool = False
    points: int | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are meant."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def grid(self) -> list[float]:
        """Return `points` numbers, evenly spaced; whole ones rounded, each once."""
        assert self.points is not None
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        steps = [low + (high - low) * index / (self.points - 1) for index in range(self.points)]
        numbers = [10**step if self.log else step for step in steps]
        if self.whole:
            return list(dict.fromkeys(round(number) for number in numbers))
        return [float(f"{number:.6g}") for number in numbers]  # as one would write it


@dataclass(frozen=True)
class Choices:
    """Values of any kind, each under a short label that tells it from the others."""

    values: dict[Any, Any]

    @classmethod
    def of(cls, values: Sequence[Any]) -> Choices:
        """Label some values: a number, text or truth stands for itself, a class for its name and arguments."""
        named: dict[Any, Any] = {}
        for value in values:
            plain = value is None or isinstance(value, bool | int | float)
            label = value if plain else _label(value)
            if label in named and named[label] != value:  # mine.Adam and torch.optim.Adam
                label = value if isinstance(value, str) else json.dumps(value)
            named[label] = value
        return cls(named)


Settings = dict[str, Range | Choices]


class Space:
    """Which settings a search varies, and what each may be.

    Args:
        raw: As YAML has it: for each setting's dotted name `{low, high, log, points}` or a list of values, a class with
            arguments among them (`{class_path: ..., init_args: {...}}`). A list of such spaces is a grid each.
        grid: Whether every combination is to be tried, and so every range to be of `points`.

    Raises:
        UsageError: names the setting and what is wrong with it.
    """

    def __init__(self, raw: Any, grid: bool = False) -> None:
        parts = raw if isinstance(raw, list) else [raw]
        if len(parts) > 1 and not grid:
            raise UsageError("space: is a list of spaces, which only a grid goes through; add --method=grid")
        if not all(isinstance(part, Mapping) and part for part in parts) or not parts:
            raise UsageError(f"space={raw}: holds no settings; give lines such as `model.optimizer.lr: [0.1, 1]`")
        self.raw = raw
        self.parts: list[Settings] = []
        for part in parts:
            named = {setting_name(name): value for name, value in part.items()}
            self.parts.append({name: _domain(name, value, grid) for name, value in named.items()})
        self.domains: Settings = {}
        for name, domain in (item for part in self.parts for item in part.items()):
            known = self.domains.get(name)
            if isinstance(known, Choices) and isinstance(domain, Choices):
                domain = Choices.of([*known.values.values(), *domain.values.values()])
            self.domains[name] = domain

    def grid(self) -> list[dict[str, Any]]:
        """Return every combination of labels, part by part, each once."""
        points: list[dict[str, Any]] = []
        for part in self.parts:
            labels = [self._labels(name, domain) for name, domain in part.items()]
            points += [dict(zip(part, combination, strict=True)) for combination in itertools.product(*labels)]
        return [point for index, point in enumerate(points) if point not in points[:index]]

    def _labels(self, name: str, domain: Range | Choices) -> list[Any]:
        """The labels, among those of all parts, of what one part lists."""
        everywhere = self.domains[name]
        assert isinstance(domain, Choices)
        assert isinstance(everywhere, Choices)
        return [label for label, value in everywhere.values.items() if value in domain.values.values()]

    def suggest(self, trial: Trial, names: Sequence[str] = ()) -> dict[str, Any]:
        """Have Optuna choose a value for some of the settings; for all if none is named."""
        chosen: dict[str, Any] = {}
        for name, domain in self.domains.items():
            if names and name not in names:
                continue
            if isinstance(domain, Choices):
                chosen[name] = trial.suggest_categorical(name, list(domain.values))
            elif domain.whole:
                chosen[name] = trial.suggest_int(name, int(domain.low), int(domain.high), log=domain.log)
            else:
                chosen[name] = trial.suggest_float(name, domain.low, domain.high, log=domain.log)
        return self.settings(chosen)

    def settings(self, chosen: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that labels stand for."""
        values = {name: (self.domains[name], label) for name, label in chosen.items()}
        return {
            name: domain.values[label] if isinstance(domain, Choices) else label
            for name, (domain, label) in values.items()
        }

    def probes(self) -> list[tuple[str, dict[str, Any]]]:
        """Return settings in which every value occurs, and the name of what each was made for."""
        found = []
        for part in self.parts:
            first = {name: _ends(domain)[0] for name, domain in part.items()}
            found += [(name, first | {name: value}) for name, domain in part.items() for value in _ends(domain)]
        return found


def words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command line, a class before its arguments."""
    ordered = sorted(settings, key=lambda name: name.count("."))
    return [f"--{name}={value if isinstance(value := settings[name], str) else json.dumps(value)}" for name in ordered]


def setting_name(name: Any) -> str:
    """Return a setting's name as one would type it: `model.lr` for `model.init_args.lr`."""
    return ".".join(part for part in str(name).split(".") if part not in ("init_args", "class_path"))


def _domain(name: str, value: Any, grid: bool) -> Range | Choices:
    if name.partition(".")[0] in RUNS_GO_BY:
        raise UsageError(f"space.{name}: is where the runs of a study go, the same for all; leave it out")
    if isinstance(value, list):
        if not value:
            raise UsageError(f"space.{name}=[]: is empty; {REMEDY}")
        return Choices.of(value)
    if not isinstance(value, Mapping) or not {"low", "high"} <= set(value) <= KEYS:
        raise UsageError(f"space.{name}={value}: is no range; {REMEDY}")
    low, high, log, points = (value.get(key) for key in ("low", "high", "log", "points"))
    low, high = (_number(name, key, number) for key, number in (("low", low), ("high", high)))
    if not low < high:
        raise UsageError(f"space.{name}: is empty, low={low} is not below high={high}; exchange them, or {REMEDY}")
    if log not in (None, True, False):
        raise UsageError(f"space.{name}.log={log}: give true or false")
    if log and low <= 0:
        raise UsageError(f"space.{name}.low={low}: a logarithmic range begins above zero; raise it, or leave out log")
    if points is not None and (not isinstance(points, int) or points < 2):
        raise UsageError(f"space.{name}.points={points}: give a whole number of at least 2")
    if grid and points is None:
        raise UsageError(f"space.{name}: a grid has a number of points; add one, such as points: 8, or give a list")
    found = Range(low, high, bool(log), points)
    return Choices.of(found.grid()) if grid else found


def _number(name: str, key: str, value: Any) -> float:
    try:
        number = value if isinstance(value, int) else float(value)
        if isinstance(value, bool) or not math.isfinite(number):
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"space.{name}.{key}={value}: is no number; {REMEDY}") from None
    return number


def _label(value: Any) -> str:
    if isinstance(value, str):
        return value.rpartition(".")[2] if value.replace(".", "").isidentifier() else value
    if isinstance(value, Mapping) and "class_path" in value:
        arguments = ", ".join(f"{key}={_label(inner)}" for key, inner in (value.get("init_args") or {}).items())
        return str(value["class_path"]).rpartition(".")[2] + (f"({arguments})" if arguments else "")
    return str(value)


def _ends(domain: Range | Choices) -> list[Any]:
    return list(domain.values.values()) if isinstance(domain, Choices) else [domain.low, domain.high]
