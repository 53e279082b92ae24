"""A multilayer perceptron: its formula, and weights that are drawn as the literature says."""

import math

import pytest
import torch
from torch import nn

from lesson.network import ACTIVATIONS, MLP
from unstall.errors import UsageError

FAN_IN, FAN_OUT = 400, 200
# Glorot & Bengio (2010), eq. 12 and 16; He et al. (2015), eq. 10; torch: U(-1/sqrt(fan in), 1/sqrt(fan in)).
STANDARD_DEVIATION = {
    "glorot_uniform": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "glorot_normal": math.sqrt(2 / (FAN_IN + FAN_OUT)),
    "he_uniform": math.sqrt(2 / FAN_IN),
    "he_normal": math.sqrt(2 / FAN_IN),
    "torch_default": math.sqrt(1 / (3 * FAN_IN)),
}


def test_images_to_logits_by_hand() -> None:
    network = MLP([784, 512, 10])
    images = torch.rand(5, 1, 28, 28)
    first, last = (module for module in network.modules() if isinstance(module, nn.Linear))
    hidden = (images.reshape(5, 784) @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(network(images), hidden @ last.weight.T + last.bias)
    assert sum(parameter.numel() for parameter in network.parameters()) == 784 * 512 + 512 + 512 * 10 + 10


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_last_layer_is_linear(activation: str) -> None:
    network = MLP([4, 3], activation=activation)  # type: ignore[arg-type]
    inputs = torch.randn(6, 4)
    torch.testing.assert_close(network(2 * inputs) - network(inputs), network(inputs) - network(0 * inputs))
    assert len(MLP([4, 8, 8, 3], activation=activation).layers) == 5  # type: ignore[arg-type]


@pytest.mark.parametrize("init", STANDARD_DEVIATION)
def test_initial_weights_follow_their_formula(init: str) -> None:
    torch.manual_seed(0)
    weight, bias = MLP([FAN_IN, FAN_OUT], init=init).state_dict().values()  # type: ignore[arg-type]
    expected = STANDARD_DEVIATION[init]
    # The standard deviation of 80,000 draws is known to 1 / sqrt(160,000) of itself: four of them.
    assert float(weight.std()) == pytest.approx(expected, rel=0.01)
    assert float(weight.mean()) == pytest.approx(0, abs=4 * expected / math.sqrt(FAN_IN * FAN_OUT))
    largest = float(weight.abs().max()) / expected
    if init.endswith("normal"):
        assert largest > 3.5
    else:  # a uniform distribution ends at sqrt(3) standard deviations
        assert math.sqrt(3) * 0.999 < largest < math.sqrt(3) * 1.00001
    assert bool(bias.any()) == (init == "torch_default")


@pytest.mark.parametrize("init", STANDARD_DEVIATION)
def test_scale_multiplies_the_initial_weights(init: str) -> None:
    torch.manual_seed(0)
    plain = MLP([20, 10, 5], init=init)  # type: ignore[arg-type]
    torch.manual_seed(0)
    scaled = MLP([20, 10, 5], init=init, init_scale=20)  # type: ignore[arg-type]
    for ours, reference in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, 20 * reference)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"widths": [784]}, r"widths=\[784\]"),
        ({"widths": []}, r"widths=\[\]"),
        ({"widths": [784, 0, 10]}, r"widths=\[784, 0, 10\]"),
        ({"widths": [4, 2], "init_scale": -1}, "init_scale=-1"),
        ({"widths": [4, 2], "init_scale": math.nan}, "init_scale=nan"),
        ({"widths": [4, 2], "init_scale": math.inf}, "init_scale=inf"),
        ({"widths": [4, 2], "activation": "step"}, "activation='step'.*relu"),
        ({"widths": [4, 2], "init": "glorot"}, "init='glorot'.*glorot_uniform"),
    ],
)
def test_refusals_name_argument_and_remedy(arguments: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        MLP(**arguments)  # type: ignore[arg-type]
