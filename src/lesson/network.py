"""The network of the lesson: a multilayer perceptron that returns logits."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from unstall import UsageError

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh", "sigmoid", "identity"]
Initializer = Literal["glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "torch_default"]

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}

# Glorot & Bengio (2010), "Understanding the difficulty of training deep feedforward neural networks", eq. 16;
# He et al. (2015), "Delving Deep into Rectifiers", eq. 10 (gain sqrt(2), fan in).
INITIALIZERS: dict[str, Callable[[Tensor], object]] = {
    "glorot_uniform": nn.init.xavier_uniform_,
    "glorot_normal": nn.init.xavier_normal_,
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
}


class MLP(nn.Module):
    """A multilayer perceptron: linear layers with an activation between them, and a linear last layer.

    Args:
        widths: Number of units per layer, from the inputs to the classes: ``[784, 512, 10]``.
        activation: What stands between two linear layers; never after the last one.
        init: How the weights are drawn. All but ``torch_default`` start from zero biases; ``glorot_uniform`` is
            what Keras does, and the original lesson with it.
        init_scale: Multiplies the initial weights (and torch's default biases); anything far from 1 spoils them.

    Raises:
        UsageError: if there are fewer than two widths or one of them is not positive, if ``init_scale`` is negative
            or not finite, or if ``activation`` or ``init`` has no such name.
    """

    def __init__(
        self,
        widths: Sequence[int],
        activation: Activation = "relu",
        init: Initializer = "glorot_uniform",
        init_scale: float = 1.0,
    ) -> None:
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise UsageError(f"widths={list(widths)}: give at least two positive numbers, such as [784, 512, 10]")
        if not 0 <= init_scale < float("inf"):
            raise UsageError(f"init_scale={init_scale}: give a finite number of at least 0; 1 leaves the weights alone")
        if activation not in ACTIVATIONS:
            raise UsageError(f"activation={activation!r}: give one of {', '.join(ACTIVATIONS)}")
        if init != "torch_default" and init not in INITIALIZERS:
            raise UsageError(f"init={init!r}: give one of {', '.join(INITIALIZERS)}, torch_default")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            linear = nn.Linear(inputs, outputs)
            if init != "torch_default":
                INITIALIZERS[init](linear.weight)
                nn.init.zeros_(linear.bias)
            with torch.no_grad():
                linear.weight.mul_(init_scale)
                linear.bias.mul_(init_scale)
            layers += [linear, ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs of any shape ``(batch, ...)`` of ``widths[0]`` numbers to logits ``(batch, widths[-1])``."""
        logits: Tensor = self.layers(inputs.flatten(1))
        return logits
