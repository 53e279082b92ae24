"""What the programs of data/programs.yaml train on: their data, drawn or loaded, and what is done to them first."""

import copy
import functools
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor
from torch.utils.data import TensorDataset

from lesson import download
from measuring import MNIST_FOLDER, RESULTS
from unstall import UsageError

Array = npt.NDArray[Any]
Facts = dict[str, Any]
"""An entry of the table, or a part of one."""
Drawn = tuple[Array, Array]
"""Inputs and targets, before any preprocessing."""


def table() -> dict[str, Facts]:
    """All programs by name; of another file, if the environment names one as `PROGRAMS`."""
    return _read(Path(os.environ.get("PROGRAMS", RESULTS / "programs.yaml")))


@functools.cache
def _read(file: Path) -> dict[str, Facts]:
    return {entry["id"]: entry for entry in yaml.safe_load(file.read_text())}


def version(program: str, fixed: bool) -> Facts:
    """All fields of the faulty version, or of the corrected one: the faulty one's with the changes."""
    entry = table()[program]
    return {**copy.deepcopy(entry["faulty"]), **(entry.get("fixed") or {} if fixed else {}), "data": entry["data"]}


@functools.cache
def read_mnist(part: str) -> Drawn:
    """Images `(N, 28, 28)` and labels `(N)` of `train` or `t10k`, as bytes; fetched if they are not there."""
    download.ensure("MNIST", MNIST_FOLDER)
    stem = MNIST_FOLDER / "MNIST" / "raw" / part
    return download.read_idx(Path(f"{stem}-images-idx3-ubyte")), download.read_idx(Path(f"{stem}-labels-idx1-ubyte"))


def scikit_learn(name: str) -> Callable[..., Any]:
    """A function of `sklearn.datasets`.

    Raises:
        UsageError: if scikit-learn is not installed.
    """
    try:
        found: Callable[..., Any] = getattr(importlib.import_module("sklearn.datasets"), name)
    except ModuleNotFoundError:
        raise UsageError(f"{name} needs scikit-learn: pip install -e '.[benchmark]'") from None
    return found


def is_labelled(data: Facts) -> bool:
    """Whether targets are classes."""
    return "classes" in data or "shares" in data


# --- drawing ---


@functools.lru_cache(maxsize=2)
def load(program: str) -> tuple[Array, Array, Array, Array]:
    """Return training inputs and targets, validation inputs and targets, before any preprocessing."""
    data, random = table()[program]["data"], np.random.default_rng(0)
    if data["kind"] == "mnist":
        return (*digits("train", data["samples"], data), *digits("t10k", data["held_out"], data))
    x, y = KINDS[data["kind"]](random, data)
    if "shape" in data:
        x = x.reshape(len(x), *data["shape"])
    if data.get("itself"):
        y = x.copy()
    if is_labelled(data) and y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if data["val"] == "same":
        return x, y, x, y
    order = random.permutation(len(x))
    cut = round(len(x) * (1 - data["val"]))
    return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]


def digits(part: str, count: int, data: Facts) -> Drawn:
    """The first so many images of the first `digits` digits, averaged down to `size` pixels."""
    images, labels = read_mnist(part)
    size = data.get("size", 28)
    keep = np.flatnonzero(labels < data.get("digits", 10))[:count]
    x = images[keep].astype(np.float32).reshape(-1, size, 28 // size, size, 28 // size).mean((2, 4))
    return x.reshape(len(x), -1) if data.get("flat") else x[:, None], labels[keep].astype(np.int64)


def points(random: np.random.Generator, data: Facts) -> Drawn:
    """Written out."""
    return np.asarray(data["x"], int if data.get("tokens") else float), np.asarray(data["y"])


def classification(random: np.random.Generator, data: Facts) -> Drawn:
    """scikit-learn's `make_classification`."""
    names = {"n_informative": "informative", "n_redundant": "redundant", "n_classes": "classes"}
    more = {name: data[ours] for name, ours in names.items() if ours in data}
    x, y = scikit_learn("make_classification")(data["samples"], data["features"], random_state=42, **more)
    return x, y


def regression(random: np.random.Generator, data: Facts) -> Drawn:
    """scikit-learn's `make_regression`; with `range`, of a program that scales its targets before anything else."""
    make, targets = scikit_learn("make_regression"), data.get("targets", 1)
    x, y = make(data["samples"], data["features"], n_targets=targets, random_state=42)
    y = y.reshape(len(x), -1)
    return x, 2 * (y - y.min()) / (y.max() - y.min()) - 1 if data.get("range") else y


def multilabel(random: np.random.Generator, data: Facts) -> Drawn:
    """scikit-learn's `make_multilabel_classification`."""
    make = scikit_learn("make_multilabel_classification")
    x, y = make(data["samples"], data["features"], n_classes=data["labels"], random_state=42)
    return x, y


def of_scikit_learn(random: np.random.Generator, data: Facts) -> Drawn:
    """A data set that comes with it."""
    x, y = scikit_learn(f"load_{data['kind']}")(return_X_y=True)
    return x, y


def column(random: np.random.Generator, how: list[Any], rows: int) -> Array:
    """A column of the given size."""
    kind, a, b = how
    if kind == "normal":
        return random.normal(a, b, rows)
    if kind == "lognormal":  # median a, spread b
        return np.asarray(a * np.exp(b * random.normal(size=rows)))
    if kind == "rare":  # zero, but for a share b
        return np.where(random.random(rows) < b, random.uniform(0, a, rows), 0.0)
    return random.integers(a, b, rows).astype(float)


def tabular(random: np.random.Generator, data: Facts) -> Drawn:
    """Columns of the given sizes; the target depends on the standardised columns."""
    x = np.stack([column(random, how, data["samples"]) for how in data["columns"]], 1)
    z = (x - x.mean(0)) / (x.std(0) + 1e-12)
    score = z @ np.asarray(data["weights"], float) + data.get("noise", 0.5) * random.normal(size=len(z))
    if "target" in data:  # a number: mean, spread, lowest
        mean, spread, lowest = data["target"]
        return x, np.maximum(lowest, mean + spread * score / score.std())[:, None]
    return x, np.searchsorted(np.quantile(score, np.cumsum(data["shares"])[:-1]), score)


CURVES: dict[str, Callable[[Array, np.random.Generator], Array]] = {
    "5x^2+noise^3": lambda x, random: 5 * x**2 + random.normal(size=x.shape) ** 3,
    "x^4": lambda x, _: x**4,
    "x^2+3": lambda x, _: x**2 + 3,
    "x^2": lambda x, _: x**2,
    "sin": lambda x, _: np.asarray(np.sin(x)),
    "quintic": lambda x, _: (
        0.05 * (15.72807 * x - 7.273893 * x**2 + 1.4912 * x**3 - 0.1384615 * x**4 + 0.00474359 * x**5)
    ),
}


def curve(random: np.random.Generator, data: Facts) -> Drawn:
    """A function of one number."""
    first, last = data["range"]
    x = np.linspace(first, last, data["samples"])[:, None]
    return x, CURVES[data["function"]](x, random)


def weighted_sum(random: np.random.Generator, data: Facts) -> Drawn:
    """A weighted sum of uniform numbers."""
    x = random.uniform(data.get("low", 0), data["high"], (data["samples"], len(data["weights"])))
    return x, (x @ np.asarray(data["weights"]) + data.get("offset", 0))[:, None]


def boxes(random: np.random.Generator, data: Facts) -> Drawn:
    """Two squares apart."""
    half = data["samples"] // 2
    x = np.concatenate([random.uniform(0.2, 0.4, (half, 2)), random.uniform(0.5, 0.7, (half, 2))])
    return x, np.repeat([0, 1], half)


def constants(random: np.random.Generator, data: Facts) -> Drawn:
    """All features are the label."""
    y = np.repeat([1, 0], data["samples"] // 2)
    return np.repeat(y[:, None], data["features"], 1).astype(float), y


def bits(random: np.random.Generator, data: Facts) -> Drawn:
    """All bytes, to be returned."""
    x = (np.arange(256)[:, None] >> np.arange(7, -1, -1)) & 1
    return x.astype(float), x.copy()


def uniform(random: np.random.Generator, data: Facts) -> Drawn:
    """Inputs and targets that have nothing to do with each other."""
    (low, high), (least, most), samples = data["inputs"], data["outputs"], data["samples"]
    return random.uniform(low, high, (samples, data["features"])), random.uniform(least, most, (samples, 1))


def normal(random: np.random.Generator, data: Facts) -> Drawn:
    """The same, normal."""
    return random.normal(0.5, 0.9, (data["samples"], data["features"])), random.normal(0.4, 0.6, (data["samples"], 1))


def sine(random: np.random.Generator, data: Facts) -> Drawn:
    """Two successive values of a sine, and labels that are all the same."""
    wave = np.sin(2 * np.pi * np.arange(data["samples"] + 1) / 100)
    return np.stack([wave[1:], wave[:-1]], 1), np.ones(data["samples"], int)


def life(random: np.random.Generator, data: Facts) -> Drawn:
    """3x3 fields of the game of life, wrapped around by one cell, and their next states."""
    field = (random.random((data["samples"], 3, 3)) < 0.5).astype(int)
    shifts = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    near = np.sum([np.roll(field, shift, (1, 2)) for shift in shifts], axis=0)
    after = ((near == 3) | ((field == 1) & (near == 2))).astype(int)
    return np.pad(field, ((0, 0), (1, 1), (1, 1)), mode="wrap")[:, None].astype(float), after[:, None]


def faces(random: np.random.Generator, data: Facts, side: int = 24, points: int = 15) -> Drawn:
    """Images of blobs at 15 places, all moved together and a little apart, and where they are, from -1 to 1."""
    samples = data["samples"]
    base = random.uniform(-0.6, 0.6, (points, 2))
    where = base + random.normal(0, 0.15, (samples, 1, 2)) + random.normal(0, 0.03, (samples, points, 2))
    grid = np.linspace(-1, 1, side)
    dx, dy = grid[None, None, None] - where[..., 0, None, None], grid[None, None, :, None] - where[..., 1, None, None]
    images = np.exp(-(dx**2 + dy**2) / 0.02).sum(1).clip(0, 1)
    return images.reshape(samples, -1), where.reshape(samples, -1)


def multiples(random: np.random.Generator, data: Facts) -> Drawn:
    """A number and its double; three times the number."""
    a = random.integers(26, 490, (data["samples"], 1)).astype(float)
    return np.concatenate([a, 2 * a], 1), 3 * a


def grid(random: np.random.Generator, data: Facts) -> Drawn:
    """Pairs of 1 to 10, to be returned."""
    x = np.stack(np.meshgrid(np.arange(1, 11.0), np.arange(1, 11.0)), -1).reshape(-1, 2)
    return x, x.copy()


KINDS: dict[str, Callable[[np.random.Generator, Facts], Drawn]] = {
    **{"points": points, "classification": classification, "regression": regression, "multilabel": multilabel},
    **{"iris": of_scikit_learn, "breast_cancer": of_scikit_learn, "table": tabular, "curve": curve},
    **{"sum": weighted_sum, "boxes": boxes, "constants": constants, "bits": bits, "uniform": uniform},
    **{"normal": normal, "sine": sine, "life": life, "faces": faces, "multiples": multiples, "grid": grid},
}


# --- preprocessing ---


def changed(values: Array, how: str, fitted: Array) -> Array:
    """Preprocess: none, standardise, minmax, minmax11 (to -1..1), divide <number>, rows (each to length 1)."""
    words, axes = how.split(), tuple(range(fitted.ndim - 1)) if fitted.ndim > 1 else 0
    if words[0] == "divide":
        return np.asarray(values / float(words[1]))
    if words[0] == "rows":
        return np.asarray(values / (np.linalg.norm(values.reshape(len(values), -1), axis=1, keepdims=True) + 1e-7))
    if words[0] == "standardise":
        return np.asarray((values - fitted.mean(axes)) / (fitted.std(axes) + 1e-12))
    if words[0].startswith("minmax"):
        unit = (values - fitted.min(axes)) / (fitted.max(axes) - fitted.min(axes) + 1e-12)
        return np.asarray(2 * unit - 1 if words[0] == "minmax11" else unit)
    return values


def encoded(y: Array, spec: Facts, outputs: int) -> Tensor:
    """Return targets as the program's loss gets them: class numbers for a cross-entropy, floats for all others."""
    if not is_labelled(spec["data"]):
        return torch.tensor(y, dtype=torch.float32)
    if spec["loss"] in ("categorical", "sparse", "categorical_logits") and outputs > 1:
        return torch.tensor(y).long()
    if outputs > 1 and spec.get("targets") != "column" and y.ndim == 1:
        return F.one_hot(torch.tensor(y).long(), outputs).float()
    return torch.tensor(y, dtype=torch.float32).reshape(len(y), -1) if y.ndim < 3 else torch.tensor(y).float()


@functools.lru_cache(maxsize=2)
def prepare(program: str, fixed: bool) -> tuple[TensorDataset, TensorDataset]:
    """Return what a program trains on and what it is validated on, as its network and loss get them."""
    spec = version(program, fixed)
    x, y, held_x, held_y = load(program)
    how: str = spec.get("inputs", "none")
    wanted: str = spec.get("targets", "raw")
    inputs = changed(x, how, x), changed(held_x, spec.get("val_inputs") or how, x)
    targets = changed(y, wanted, y), changed(held_y, spec.get("val_targets") or wanted, y)
    if spec.get("shuffled_targets") and not is_labelled(spec["data"]):
        order = np.random.default_rng(1).permutation(len(y))
        targets = targets[0][order], targets[1][order] if len(held_y) == len(y) else targets[1]
    outputs = int([layer for layer in spec["layers"] if layer.split()[0] in ("dense", "conv")][-1].split()[1])
    training, held_out = (
        TensorDataset(as_input(a), encoded(b, spec, outputs)) for a, b in zip(inputs, targets, strict=True)
    )
    return training, held_out


def as_input(values: Array) -> Tensor:
    """Whole numbers, which are for an embedding, as they are; others as floats."""
    return torch.tensor(values) if values.dtype == int else torch.tensor(values, dtype=torch.float32)
