"""Networks and optimizers, small enough to train thousands of times, and a plain step of training."""

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesson.network import ACTIVATIONS
from lesson.optimizer import KerasRMSprop
from problems import CONTEXT, FOR_TEXT, Data
from unstall import Meter

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": torch.optim.SGD,
    "momentum": functools.partial(torch.optim.SGD, momentum=0.9),
    "RMSprop": functools.partial(torch.optim.RMSprop, alpha=0.9, eps=1e-7),
    "KerasRMSprop": KerasRMSprop,
    "Adam": torch.optim.Adam,
    "AdamW": torch.optim.AdamW,
    "Adagrad": torch.optim.Adagrad,
}
"""RMSprop has Keras's constants, KerasRMSprop its formula, too."""


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
    """Build one of the architectures that `PROBLEMS` lists for a data set, from the global seed."""
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
        return feed_forward([inputs, 128, 128, outputs], nn.ReLU, nn.LayerNorm)
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
    if architecture == "cnn":
        layers = convolutional(nn.ReLU)
    elif architecture == "batchnorm":
        layers = feed_forward([784, 256, 128, 10], nn.ReLU, nn.BatchNorm1d)
    else:
        hidden = {"relu": [512], "tanh": [256, 128], "sigmoid": [256]}[architecture]
        layers = feed_forward([784, *hidden, 10], ACTIVATIONS[architecture])
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return layers


def feed_forward(
    widths: Sequence[int],
    activation: type[nn.Module],
    normalisation: Callable[[int], nn.Module] | None = None,
    dropout: float | None = None,
) -> nn.Sequential:
    """A multilayer perceptron of flattened inputs, with torch's own initial weights."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths[:-1]):
        layers.append(nn.Linear(inputs, outputs))
        if normalisation is not None:
            layers.append(normalisation(outputs))
        layers.append(activation())
        if dropout is not None:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def convolutional(activation: type[nn.Module]) -> nn.Sequential:
    """A small network for images of 28 x 28 and ten classes, with torch's own initial weights."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, stride=2), activation(), nn.Conv2d(8, 16, 5, stride=2), activation(), nn.Flatten(),
        nn.Linear(16 * 4 * 4, 10),
    )  # fmt: skip


class Lit(pl.LightningModule):
    """Any network and optimizer, as a stranger would write it."""

    def __init__(self, network: nn.Module, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.network, self.optimizer = network, optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss; log the accuracy if there are classes."""
        outputs = self.network(batch[0])
        if not batch[1].is_floating_point():
            self.log("train/accuracy", (outputs.argmax(1) == batch[1]).float().mean())
        return loss_of(outputs, batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the given optimizer."""
        return self.optimizer(self.parameters())


def loss_of(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy, or the mean squared error of targets that are no classes."""
    if targets.is_floating_point():
        return F.mse_loss(outputs.squeeze(1), targets)
    return F.cross_entropy(outputs, targets)


def take_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor, targets: Tensor, meter: Meter | None = None
) -> Tensor:
    """Train on one batch, and measure it if there is a meter; returns the loss before the step."""
    loss = loss_of(network(inputs), targets)
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    if meter is not None:
        meter.before_step()
    optimizer.step()
    if meter is not None:
        meter.after_batch(loss, targets)
    return loss.detach()


@torch.no_grad()
def evaluate(network: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Loss and accuracy: the share of right answers, or of the variance of targets that are no classes, at least 0."""
    network.eval()
    outputs: Tensor = network(inputs)
    network.train()
    loss = float(loss_of(outputs, targets))
    if targets.is_floating_point():
        return loss, max(0.0, 1 - loss / float(targets.var())) if loss == loss else 0.0
    return loss, float((outputs.argmax(1) == targets).float().mean())
