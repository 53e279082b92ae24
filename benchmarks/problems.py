"""Data and networks on which the learning-rate finder is measured: MNIST, and what it was never tuned on.

Each data set is `(training inputs, training targets, held-out inputs, held-out targets)`. Everything is at hand without
a download: MNIST, scikit-learn's generators, and the text of Python's own help pages.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.datasets import MNIST

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
    inputs, labels = _generator("make_classification")(
        16_000, 64, n_informative=24, n_redundant=8, n_classes=10, class_sep=2.0, random_state=0
    )
    return _divided(torch.tensor(inputs / inputs.std(), dtype=torch.float32), torch.tensor(labels))


def spheres(_: str) -> Data:
    """Five nested shells of a normal distribution in 8 dimensions: no linear model beats chance."""
    inputs, labels = _generator("make_gaussian_quantiles")(n_samples=16_000, n_features=8, n_classes=5, random_state=0)
    return _divided(torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels))


def friedman(_: str) -> Data:
    """Regression with noise (Friedman, "Multivariate adaptive regression splines", 1991), targets standardised."""
    inputs, targets = _generator("make_friedman1")(16_000, n_features=10, noise=1.0, random_state=0)
    targets = torch.tensor((targets - targets.mean()) / targets.std(), dtype=torch.float32)
    return _divided(torch.tensor(inputs, dtype=torch.float32), targets)


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


class Residual(nn.Module):
    """Adds what a layer makes of its inputs to them."""

    def __init__(self, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(width, width), activation)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, width) to the same shape."""
        outputs: Tensor = inputs + self.layer(inputs)
        return outputs


class Recurrent(nn.Module):
    """Logits from the last state of a GRU."""

    def __init__(self, symbols: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, 32)
        self.recurrent = nn.GRU(32, 64, batch_first=True)
        self.last = nn.Linear(64, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, context) to (batch, symbols)."""
        outputs: Tensor = self.last(self.recurrent(self.embedding(inputs))[0][:, -1])
        return outputs


class Transformer(nn.Module):
    """Logits from the last position of one layer of attention."""

    def __init__(self, symbols: int, width: int = 32) -> None:
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.positions = nn.Parameter(0.02 * torch.randn(CONTEXT, width))
        self.layer = nn.TransformerEncoderLayer(width, 4, 4 * width, batch_first=True)
        self.last = nn.Linear(width, symbols)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map (batch, context) to (batch, symbols)."""
        outputs: Tensor = self.last(self.layer(self.embedding(inputs) + self.positions)[:, -1])
        return outputs


def build_network(architecture: str, data: Data) -> nn.Module:
    """Small enough to train thousands of times."""
    inputs, targets = data[0][0].numel(), data[1]
    outputs = 1 if targets.is_floating_point() else int(targets.max()) + 1
    if architecture in FOR_TEXT:
        symbols = 1 + max(int(part.max()) for part in data)
        if architecture == "gru":
            return Recurrent(symbols)
        if architecture == "transformer":
            return Transformer(symbols)
        return nn.Sequential(
            nn.Embedding(symbols, 32), nn.Flatten(), nn.Linear(32 * CONTEXT, 256), nn.ReLU(), nn.Linear(256, symbols)
        )
    if architecture == "layernorm":
        return nn.Sequential(
            nn.Linear(inputs, 128), nn.LayerNorm(128), nn.ReLU(),
            nn.Linear(128, 128), nn.LayerNorm(128), nn.ReLU(), nn.Linear(128, outputs),
        )  # fmt: skip
    if architecture == "residual":
        return nn.Sequential(
            nn.Linear(inputs, 96), *(Residual(96, nn.ReLU()) for _ in range(4)), nn.Linear(96, outputs)
        )
    if architecture == "dropout":
        return nn.Sequential(
            nn.Linear(inputs, 256), nn.Tanh(), nn.Dropout(0.1), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, outputs)
        )
    return _for_images(architecture)


def _for_images(architecture: str) -> nn.Sequential:
    """With Glorot-uniform weights and zero biases, as in the base config."""
    activations: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
    layers: list[nn.Module]
    if architecture == "cnn":
        layers = [nn.Conv2d(1, 8, 5, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 5, stride=2), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(16 * 4 * 4, 10)]
    elif architecture == "batchnorm":
        layers = [nn.Flatten(), nn.Linear(784, 256), nn.BatchNorm1d(256), nn.ReLU()]
        layers += [nn.Linear(256, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Linear(128, 10)]
    else:
        widths = {"relu": [512], "tanh": [256, 128], "sigmoid": [256]}[architecture]
        layers, inputs = [nn.Flatten()], 784
        for width in widths:
            layers += [nn.Linear(inputs, width), activations[architecture]()]
            inputs = width
        layers.append(nn.Linear(inputs, 10))
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, or the mean squared error of targets that are no classes."""
    if targets.is_floating_point():
        return F.mse_loss(outputs.squeeze(1), targets)
    return F.cross_entropy(outputs, targets)


@torch.no_grad()
def accuracy_of(network: nn.Module, inputs: Tensor, targets: Tensor) -> float:
    """Share of right answers; for targets that are no classes, the share of their variance explained, or 0."""
    network.eval()
    outputs: Tensor = network(inputs)
    network.train()
    if targets.is_floating_point():
        error = float(F.mse_loss(outputs.squeeze(1), targets))
        return max(0.0, 1 - error / float(targets.var())) if error == error else 0.0
    return float((outputs.argmax(1) == targets).float().mean())


def _generator(name: str) -> Callable[..., tuple[Any, Any]]:
    return getattr(importlib.import_module("sklearn.datasets"), name)  # type: ignore[no-any-return]


def _divided(inputs: Tensor, targets: Tensor) -> Data:
    cut = len(inputs) * 4 // 5
    return inputs[:cut], targets[:cut], inputs[cut:], targets[cut:]
