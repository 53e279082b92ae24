"""Where the tensors of a step come from."""

import torch
import torch.nn.functional as F
from torch import nn

from unstall.audit.flow import Flow
from unstall.audit.record import Recording

NET, INPUTS, TARGETS = nn.Linear(3, 2), torch.randn(4, 3), torch.randn(4, 2)


def test_data_what_is_learned_and_the_way_between() -> None:
    with Recording() as recording:
        scaled = INPUTS / 2
        outputs = NET(scaled)
        prediction = outputs.tanh() * scaled[:, :2]
        loss = F.mse_loss(prediction, TARGETS)
    flow = Flow(recording, [INPUTS, TARGETS], NET.parameters())
    assert flow.is_data(scaled)
    assert flow.is_data(TARGETS)
    assert not flow.is_data(outputs)
    assert flow.is_learned(outputs)
    assert flow.is_learned(loss)
    assert not flow.is_learned(NET.weight)
    assert [call.name for call in flow.before(loss)] == ["mse_loss", "mul", "tanh", "getitem", "linear", "div"]
    path, layer = flow.path(prediction, recording.calls[-1])
    assert [call.name for call in path] == ["tanh", "mul"]
    assert layer is not None
    assert flow.is_layer(layer)
    assert flow.main(path[0]) is outputs


def test_a_path_ends_where_nothing_is_learned() -> None:
    with Recording() as recording:
        loss = (INPUTS.sum(1) - TARGETS[:, 0]).square().mean()
    flow = Flow(recording, [INPUTS, TARGETS], NET.parameters())
    assert flow.path(loss, recording.calls[-1]) == ((), None)


def test_what_is_changed_in_place_is_passed_once_for_each_change() -> None:
    with Recording() as recording:
        outputs = NET(INPUTS)
        outputs.mul_(2)
        outputs += 1
        loss = outputs.sum()
    flow = Flow(recording, [INPUTS], NET.parameters())
    assert [call.name for call in flow.before(loss)] == ["sum", "add", "mul", "linear"]
    assert [call.name for call in flow.path(outputs, recording.calls[-1])[0]] == ["mul", "add"]


def test_a_gradient_of_unknown_origin_is_learned() -> None:
    unseen = NET(INPUTS)  # as the output of a part whose calls are not recorded
    with Recording() as recording:
        loss = F.mse_loss(unseen, TARGETS)
    flow = Flow(recording, [INPUTS, TARGETS], ())
    assert flow.is_learned(unseen)
    assert flow.is_learned(loss)
