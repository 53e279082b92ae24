"""Which functions a step calls, and who called them."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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


def test_makers_in_time_of_what_is_changed_in_place() -> None:
    inputs = torch.ones(2)
    with Recording() as recording:
        doubled = inputs * 2
        doubled += 1
        doubled.relu_()
        F.relu(doubled, inplace=True)
        F.dropout(doubled, 0.5, training=False)  # returns what it is given: it has made nothing
    names = []
    call = recording.maker_of(doubled)
    while call is not None:
        names.append(call.name)
        assert call.in_place == (call.name != "mul")
        call = recording.maker_of(doubled, call)
    assert names == ["relu", "relu", "add", "mul"]


def test_tensors_of_data_classes() -> None:
    @dataclass
    class Graph:
        x: Tensor
        name: str
        edges: list[Tensor]

    nodes, edges = torch.ones(3), torch.zeros(2)
    assert list(tensors_in({"graph": Graph(nodes, "a", [edges])})) == [nodes, edges]


def test_the_line_is_the_users_own_also_through_modules_and_in_a_notebook(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def step(net, x):\n    hidden = net(x)\n    return hidden.softmax(0)\n")
    spec = importlib.util.spec_from_file_location("mine", file)
    assert spec is not None
    assert spec.loader is not None
    mine = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(mine)
    cell: dict[str, object] = {}
    exec(compile("def step(net, x): return net(x)", "<ipython-input-3-abc>", "exec"), cell)
    with Recording() as recording:
        mine.step(nn.Sequential(nn.Linear(3, 2)), torch.ones(1, 3))
        cell["step"](nn.Linear(3, 2), torch.ones(1, 3))  # type: ignore[operator]
    linear, softmax, in_cell = (call.site for call in recording.calls if call.name in ("linear", "softmax"))
    assert linear is not None
    assert softmax is not None
    assert in_cell is not None
    assert (linear.file, linear.line, linear.function, linear.code) == (str(file), 2, "step", "hidden = net(x)")
    assert str(softmax) == "mine.py:3, in step: return hidden.softmax(0)"
    assert (in_cell.file, in_cell.line) == ("<ipython-input-3-abc>", 1)
