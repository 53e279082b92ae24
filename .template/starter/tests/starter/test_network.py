import torch
from torch import nn

from starter.network import Network


def test_points_to_logits_by_hand() -> None:
    network = Network(hidden=5)
    points = torch.randn(7, 2)
    first, second, last = (layer for layer in network.modules() if isinstance(layer, nn.Linear))
    hidden = torch.tanh(torch.tanh(points @ first.weight.T + first.bias) @ second.weight.T + second.bias)
    torch.testing.assert_close(network(points), hidden @ last.weight.T + last.bias)


def test_every_weight_is_reached_by_a_gradient() -> None:
    network = Network(hidden=5)
    network(torch.randn(7, 2)).square().sum().backward()
    assert all(bool(weight.grad.abs().sum() > 0) for weight in network.parameters() if weight.grad is not None)
    assert all(weight.grad is not None for weight in network.parameters())
