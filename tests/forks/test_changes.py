"""Settings are found under any of their names; changed networks are copies."""

import pickle
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from forks.blobs import Lit, dead
from unstall.forks.changes import (
    accumulation_overlay,
    batch_overlay,
    network_settings,
    overlay_of,
    redrawn,
    wider,
    with_relu,
    with_relu_after,
    with_usual_momentum,
)
from unstall.trials import copied


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
    ("config", "overlay"),
    [
        ({"data": {"batch_size": 8}}, {"data": {"batch_size": 32}}),
        ({"data": {"class_path": "D", "init_args": {"bs": 8}}}, {"data": {"class_path": "D", "init_args": {"bs": 32}}}),
        ({"data": {"val_batch_size": 8, "train_batch_size": 8}}, {"data": {"train_batch_size": 32}}),
        (
            {"data": {"class_path": "D", "init_args": {"loader": {"batch_size": 8, "num_workers": 8}}}},
            {"data": {"class_path": "D", "init_args": {"loader": {"batch_size": 32, "num_workers": 8}}}},
        ),
        ({"data": None, "model": {"batch_size": 8}}, {"model": {"batch_size": 32}}),
        ({"data": {"class_path": "D"}, "model": {"batch_size": 8}}, None),
        ({"data": {"batch_size": 16, "workers": 8, "batches": 8}}, None),
        ({"data": {"batch_size": None}}, None),
        ({}, None),
    ],
)
def test_the_size_of_a_batch_is_a_setting_that_is_called_so_and_has_its_value(
    config: dict[str, Any], overlay: object
) -> None:
    assert batch_overlay(config, samples=8, factor=4) == overlay


def test_gradients_are_accumulated_on_top_of_what_the_trainer_accumulates() -> None:
    assert accumulation_overlay({"trainer": {"accumulate_grad_batches": 2}}, 4) == {
        "trainer": {"accumulate_grad_batches": 8}
    }
    assert accumulation_overlay({"trainer": None}, 4) is accumulation_overlay({}, 4) is None


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


class Apart(pl.LightningModule):
    """Layers as attributes, with a normalisation between."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(20, 4), nn.BatchNorm1d(4), nn.Linear(outputs, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.norm(self.first(inputs)).relu())  # type: ignore[no-any-return]


def test_narrow_layers_become_wide_and_what_is_between_follows() -> None:
    one = wider(Lit(0.1, widths=[20, 1, 10]))
    assert one is not None
    assert one.network(torch.zeros(3, 20)).shape == (3, 10)
    assert [layer.weight.shape for layer in one.network if isinstance(layer, nn.Linear)] == [(128, 20), (10, 128)]
    apart = wider(Apart())
    assert apart is not None
    assert apart(torch.zeros(3, 20)).shape == (3, 10)
    assert (apart.first.out_features, apart.norm.num_features, apart.last.in_features) == (128, 128, 128)
    assert wider(Lit(0.1, widths=[20, 128, 10])) is None
    assert wider(Apart(outputs=8)) is None, "the second does not take what the first gives"


def test_an_unusual_momentum_becomes_the_usual_one() -> None:
    module = Lit(0.1)
    assert with_usual_momentum(module) is None
    module.network.insert(1, nn.BatchNorm1d(64, momentum=1e-4))
    changed = with_usual_momentum(module)
    assert changed is not None
    assert [part.momentum for part in changed.modules() if isinstance(part, nn.BatchNorm1d)] == [0.1]
    assert module.network[1].momentum == 1e-4


def test_activations_come_after_layers_of_a_copy_which_can_be_copied_itself() -> None:
    module = Lit(0.1, activation=nn.Identity)
    changed = with_relu_after(module, ["network.0"])
    assert changed is not None
    inputs, names = torch.randn(8, 20), list(module.state_dict())
    hidden = module.network[0](inputs)
    for twin in (changed, pickle.loads(pickle.dumps(changed)), copied(changed)):
        torch.testing.assert_close(twin.network(inputs), module.network[2](hidden.relu()))
        assert list(twin.state_dict()) == names
    torch.testing.assert_close(module.network(inputs), module.network[2](hidden))
    assert with_relu_after(module, ["network"]) is None, "what is more than a layer may return anything"
    assert with_relu_after(module, ["network.0", ""]) is None
