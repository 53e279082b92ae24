"""Which functions a step calls, and who called them."""

import torch
import torch.nn.functional as F
from torch import nn

from unstall.audit.record import Recording, tensors_in


def test_calls_in_order_with_what_flows_between_them_and_the_line_that_made_them() -> None:
    layer, inputs, labels = nn.Linear(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    with Recording() as recording:
        loss = F.cross_entropy(layer(inputs).softmax(dim=1), labels)
    assert [call.name for call in recording.calls] == ["linear", "softmax", "cross_entropy"]
    linear, softmax, cross_entropy = recording.calls
    assert linear.inputs[1] is layer.weight
    assert softmax.inputs[0] is linear.outputs[0]
    assert softmax.arguments["dim"] == 1
    assert recording.maker_of(loss) is cross_entropy
    assert recording.maker_of(inputs) is None
    assert cross_entropy.site is not None
    assert cross_entropy.site.code.startswith("loss = F.cross_entropy")
    assert str(cross_entropy.site).startswith("test_record.py:")


def test_nothing_changes_by_being_recorded() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.ReLU(), nn.LSTM(8, 2))
    inputs = torch.randn(5, 3)
    torch.manual_seed(1)
    plain, _ = network(inputs)
    torch.manual_seed(1)
    with Recording():
        recorded, _ = network(inputs)
    assert torch.equal(plain, recorded)


def test_tensors_of_nested_batches_in_order() -> None:
    first, second, third = (torch.full((1,), float(k)) for k in range(3))
    assert list(tensors_in({"a": [first, {"b": second}], "c": (third, "text")})) == [first, second, third]
