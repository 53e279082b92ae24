"""The network: a point of the plane in, a score for each of two classes out."""

from torch import Tensor, nn


class Network(nn.Module):
    """A multilayer perceptron with two hidden layers.

    Args:
        hidden: Units in each of them.
    """

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map points `(batch, 2)` to logits `(batch, 2)`."""
        logits: Tensor = self.layers(inputs)
        return logits
