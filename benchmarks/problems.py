"""Data sets on which the diagnosis and the learning-rate finder are measured, and what is tried on them.

Each is `(training inputs, training targets, held-out inputs, held-out targets)`. Everything is at hand without a
download: MNIST, scikit-learn's digits and generators, and the text of Python's own help pages.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.datasets import MNIST

from measuring import MNIST_FOLDER

Data = tuple[Tensor, Tensor, Tensor, Tensor]
CONTEXT = 8
"""Characters from which the next one is told."""


@dataclass(frozen=True)
class Problem:
    """A data set and what is tried on it.

    Args:
        load: Reads or draws it, given the folder of MNIST.
        epochs: Of the fits whose results are the truth.
        architectures: What `build_network` knows for such inputs.
    """

    load: Callable[[str], Data]
    epochs: int
    architectures: tuple[str, ...]


def mnist(root: str, standardised: bool = False) -> Data:
    """Inputs `(N, 1, 28, 28)` in [0, 1], or of mean 0 and deviation 1; the last 20 % held out."""
    images = MNIST(root, train=True)
    inputs = images.data.unsqueeze(1).float() / 255
    if standardised:
        inputs = (inputs - inputs.mean()) / inputs.std()
    return inputs[:-12_000], images.targets[:-12_000], inputs[-12_000:], images.targets[-12_000:]


def classes(_: str) -> Data:
    """Ten classes of several clusters each, in 64 dimensions of which 24 tell them apart."""
    inputs, labels = _ten_classes(16_000)
    return _divided(_floats(inputs / inputs.std()), torch.tensor(labels))


def spheres(_: str) -> Data:
    """Five nested shells of a normal distribution in 8 dimensions: no linear model beats chance."""
    inputs, labels = _five_shells(16_000)
    return _divided(_floats(inputs), torch.tensor(labels))


def friedman(_: str) -> Data:
    """Regression with noise (Friedman, "Multivariate adaptive regression splines", 1991), targets standardised."""
    inputs, targets = _scikit_learn("make_friedman1")(16_000, n_features=10, noise=1.0, random_state=0)
    return _divided(_floats(inputs), _floats((targets - targets.mean()) / targets.std()))


def text(_: str) -> Data:
    """The next character of Python's help pages, after eight others; the last fifth of the text held out."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    whole = "".join(topics[name] for name in sorted(topics))
    alphabet = {character: index for index, character in enumerate(sorted(set(whole)))}
    codes = torch.tensor([alphabet[character] for character in whole])
    generator = torch.Generator().manual_seed(0)
    cut = len(codes) * 4 // 5
    parts = []
    for first, last, samples in ((0, cut, 32_000), (cut, len(codes), 8_000)):
        windows = codes[first:last].unfold(0, CONTEXT + 1, 1)
        drawn = windows[torch.randperm(len(windows), generator=generator)[:samples]]
        parts += [drawn[:, :-1].contiguous(), drawn[:, -1].contiguous()]
    return parts[0], parts[1], parts[2], parts[3]


FOR_IMAGES = "relu", "tanh", "sigmoid", "batchnorm", "cnn"
FOR_VECTORS = "layernorm", "residual", "dropout"
FOR_TEXT = "embedding", "gru", "transformer"

PROBLEMS = {
    "mnist": Problem(mnist, 2, FOR_IMAGES),
    "mnist standardised": Problem(functools.partial(mnist, standardised=True), 2, FOR_IMAGES),
    "classes": Problem(classes, 20, FOR_VECTORS),
    "spheres": Problem(spheres, 20, FOR_VECTORS),
    "friedman": Problem(friedman, 20, FOR_VECTORS),
    "text": Problem(text, 6, FOR_TEXT),
}
"""On the first two the finder's constants were chosen; the others came later."""


def load_for_diagnosis(name: str) -> Data:
    """What the diagnosis is measured on: inputs `(N, 1, height, width)`, features in as many rows."""
    if name == "mnist":
        inputs, labels, held_inputs, held_labels = mnist(str(MNIST_FOLDER))
        return inputs, labels, held_inputs[:2_000], held_labels[:2_000]
    if name == "digits":
        digits = _scikit_learn("load_digits")()
        order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
        inputs, labels = _floats(digits.data / 16)[order], torch.tensor(digits.target)[order]
        return _divided(inputs.reshape(-1, 1, 8, 8), labels, 1_400)
    if name == "synthetic":
        features, targets = _ten_classes(8_000)
        inputs = _floats(features)
        return _divided((inputs / inputs.std()).reshape(-1, 1, 8, 8), torch.tensor(targets), 6_000)
    features, targets = _five_shells(8_000)
    return _divided(_floats(features).reshape(-1, 1, 2, 4), torch.tensor(targets), 6_000)


def _ten_classes(samples: int) -> Any:
    make = _scikit_learn("make_classification")
    return make(samples, 64, n_informative=24, n_redundant=8, n_classes=10, class_sep=2.0, random_state=0)


def _five_shells(samples: int) -> Any:
    return _scikit_learn("make_gaussian_quantiles")(n_samples=samples, n_features=8, n_classes=5, random_state=0)


def _scikit_learn(name: str) -> Any:
    return getattr(importlib.import_module("sklearn.datasets"), name)


def _floats(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def _divided(inputs: Tensor, targets: Tensor, cut: int | None = None) -> Data:
    cut = len(inputs) * 4 // 5 if cut is None else cut
    return inputs[:cut], targets[:cut], inputs[cut:], targets[cut:]
