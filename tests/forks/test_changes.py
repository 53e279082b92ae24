"""Settings are found under any of their names; changed networks are copies."""

import pytest
from torch import nn

from forks.blobs import Lit, dead
from unstall.forks.changes import network_settings, overlay_of, redrawn, with_relu


def test_a_setting_may_have_several_names_and_places() -> None:
    nested = {"model": {"class_path": "mine.Lit", "init_args": {"optimizer": {"lr": 1.0}, "learning_rate": 2.0}}}
    rate = "optimizer.lr", "lr", "learning_rate"
    assert overlay_of(nested, rate, 3.0) == {
        "model": {"class_path": "mine.Lit", "init_args": {"optimizer": {"lr": 3.0}}}
    }
    assert overlay_of({"model": {"learning_rate": 2.0}}, rate, 3.0) == {"model": {"learning_rate": 3.0}}
    assert overlay_of({"learning_rate": 2.0}, rate, 3.0) == {"learning_rate": 3.0}
    assert overlay_of({"model": {"depth": 2}}, rate, 3.0) is None


@pytest.mark.parametrize(
    "model",
    [
        {"class_path": "L", "init_args": {"network": {"class_path": "N", "init_args": {"widths": [2, 3]}}}},
        {"network": {"widths": [2, 3]}},
        {"class_path": "L", "init_args": {"widths": [2, 3]}},
    ],
)
def test_settings_of_the_network_are_found_wherever_they_are(model: object) -> None:
    assert network_settings({"model": model}) == {"widths": [2, 3]}


def test_a_configuration_without_a_model_has_no_settings() -> None:
    assert network_settings({}) == {}
    assert network_settings({"model": "a name"}) == {}


def test_network_surgery_leaves_the_original_alone() -> None:
    module = Lit(0.1, activation=nn.Tanh)
    other = with_relu(module)
    assert other is not None
    assert isinstance(other.network[1], nn.ReLU)
    assert isinstance(module.network[1], nn.Tanh)
    assert with_relu(Lit(0.1)) is None
    again = redrawn(dead(Lit(0.1)))
    assert isinstance(again.network[0], nn.Linear)
    assert float(again.network[0].bias.detach().abs().max()) < 1
