"""Where a configuration keeps the learning rate, found by building the module: one way for every command.

A setting need not be called `lr`, and need not be the rate itself: a module may give its first group a hundredth of it,
or scale it with the batch size. So a number counts as the setting if the optimizer's rate follows it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytorch_lightning as pl

from unstall.runs import scratch_folder
from unstall.trials import Data, Variant, learning_rate_of, rehearse, unchanged_random_state

Config = Mapping[str, Any]
Path = tuple[str, ...]

USUAL_NAMES = ("lr", "learning_rate", "base_lr", "max_lr", "init_lr", "lr_rate", "eta")
"""What a learning rate is called in public modules: where to look first."""


SAME = 1e-3
"""Rates that differ by a smaller share are one: a configuration keeps a few digits."""


def overlay_with_rate(
    config: Config, learning_rate: float, rate_with: Callable[[Config], float], overlay: Config | None = None
) -> dict[str, Any]:
    """Return the settings with which the optimizer has this rate: seen by building the module, not guessed.

    Where no number of the model's configuration moves the rate as it is moved itself, they are a `LearningRate`
    callback, which sets it when the fit starts.

    Args:
        config: The resolved configuration.
        learning_rate: As `RacedRate.learning_rate` counts it: of the first parameter group that has one.
        rate_with: Builds the module from the configuration with an overlay, and returns its optimizer's rate.
        overlay: What else is to be set.
    """
    fixed = dict(overlay or {})
    base = merged(config, fixed)
    own = _tried(rate_with, fixed)
    if fixed and _same(own, learning_rate):
        return fixed
    for path, value in sorted(_rates(base.get("model")), key=_likely):
        if not own or not value:
            break

        def with_value(number: float, path: Path = path) -> dict[str, Any]:
            found = overlay_for(base, path, number)
            assert found is not None  # the path was read off it
            return merged(fixed, found)

        # Half of it first: no number that means another thing is made so large that building would take long.
        if not _same(_tried(rate_with, with_value(value / 2)), own / 2):
            continue
        found = with_value(float(f"{value * learning_rate / own:.6g}"))
        if _same(_tried(rate_with, found), learning_rate):
            return found
    return merged(fixed, callback_with_rate(learning_rate))


def callback_with_rate(learning_rate: float) -> dict[str, Any]:
    """Return the settings that add a `LearningRate` callback to those of the configuration."""
    callback = {"class_path": "unstall.LearningRate", "init_args": {"learning_rate": learning_rate}}
    return {"trainer": {"callbacks+": [callback]}}


def rate_of_fit(module: pl.LightningModule, data: Data = None, trainer: pl.Trainer | None = None) -> float:
    """Return the rate with which `trainer.fit(module, data)` would train, before any schedule."""
    with unchanged_random_state(), scratch_folder() as scratch:
        (outcome,) = rehearse(module, data, trainer, scratch).race([Variant()], [], keep_state=True)
    state = outcome.state
    assert state is not None
    return learning_rate_of(state.groups, state.schedulers)


def overlay_for(config: Any, path: Path, value: Any, *, whole: bool = False) -> dict[str, Any] | None:
    """Return the overlay that sets `path`, through `class_path` and `init_args`, if it exists in the configuration.

    Args:
        config: The configuration.
        path: Names, without `class_path` and `init_args`.
        value: Of the last one.
        whole: Whether what a dictionary has beside is given, too. So it is within an argument that is a dictionary:
            a second configuration replaces it.
    """
    if not isinstance(config, Mapping):
        return None
    if "init_args" in config:
        inner = _within_class(config["init_args"] or {}, path, value)
        return None if inner is None else {"class_path": config["class_path"], "init_args": inner}
    if path[0] not in config:
        return None
    others = config if whole else {}
    if len(path) == 1:
        return {**others, path[0]: value}
    inner = overlay_for(config[path[0]], path[1:], value, whole=whole)
    return None if inner is None else {**others, path[0]: inner}


def _within_class(arguments: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any] | None:
    if path[0] not in arguments:
        return None
    if len(path) == 1:
        return {path[0]: value}
    inner = overlay_for(arguments[path[0]], path[1:], value, whole=True)
    return None if inner is None else {path[0]: inner}


def merged(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    """Return one overlay out of two; where both set the same, the right one wins."""
    both = dict(left)
    for key, value in right.items():
        nested = isinstance(value, Mapping) and isinstance(both.get(key), Mapping)
        both[key] = merged(both[key], value) if nested else value
    return both


def settings_in(values: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Yield every setting of a part of a configuration, which is at `path`, with its own path, as `overlay_for` has it.

    Args:
        values: The part.
        path: Of the part: names, without `class_path` and `init_args`.
    """
    if isinstance(values, Mapping):
        inner = values.get("init_args", values)
        for name, value in (inner or {}).items():
            yield from settings_in(value, (*path, str(name)))
    else:
        yield path, values


def _rates(model: Any) -> Iterator[tuple[Path, float]]:
    """Every positive number of a model's configuration; a whole one only where it is called a rate."""
    for path, value in settings_in(model, ("model",)):
        if type(value) is float or (type(value) is int and path[-1] in USUAL_NAMES):
            yield from [(path, float(value))] if 0 < value < math.inf else []


def _likely(found: tuple[Path, float]) -> tuple[bool, bool, int]:
    name = found[0][-1].lower()
    return name not in USUAL_NAMES, "lr" not in name and "rate" not in name, len(found[0])


def _tried(rate_with: Callable[[Config], float], overlay: Config) -> float:
    """The rate; 0 if the module cannot be built so: what it raises is about a number that nobody typed."""
    with contextlib.suppress(Exception):
        return rate_with(overlay)
    return 0.0


def _same(rate: float, other: float) -> bool:
    return math.isclose(rate, other, rel_tol=SAME)
