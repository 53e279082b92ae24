"""The whole meter beside small networks in training: its signals, its memory and its cost."""

import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unstall.watch.meter import Meter


def network(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def train(
    module: nn.Module, meter: Meter, steps: int, rate: float = 0.1, batch_size: int = 16, seed: int = 0
) -> list[tuple[float, list[Tensor], list[Tensor]]]:
    """Train with SGD; return per step the loss, the gradients and the weights before the step."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    trace = []
    for _ in range(steps):
        inputs = torch.randn(batch_size, 6, generator=generator)
        labels = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 1).long()
        optimizer.zero_grad()
        loss = F.cross_entropy(module(inputs), labels)
        loss.backward()
        weights = [weight.detach().clone() for weight in module.parameters()]
        gradients = [weight.grad.clone() for weight in module.parameters() if weight.grad is not None]
        trace.append((loss.item(), gradients, weights))
        meter.before_step()
        optimizer.step()
        meter.after_batch(loss, labels)
    return trace


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors]).double()


def test_signals_are_what_plain_loops_over_the_whole_history_give() -> None:
    torch.manual_seed(0)
    module = network(6, 20, 3)
    meter = Meter(module, stride=5, window=8)
    rate = 0.3
    trace = train(module, meter, 203, rate)
    signals = meter.read()
    losses = [loss for loss, _, _ in trace]
    weights = [flat(step_weights) for _, _, step_weights in trace]
    assert signals.step == 203
    assert signals.initial_loss == pytest.approx(losses[0])
    assert signals.loss == pytest.approx(sum(losses[-50:]) / 50)
    assert signals.noise == pytest.approx(float(torch.tensor(losses[-50:]).std()) / (sum(losses[-50:]) / 50), rel=1e-4)
    usual = math.sqrt((20 + 3) / 3)  # torch's own initial weights have variance 1 / (3 fan_in)
    now = flat([weight.detach() for weight in module.parameters()])
    assert signals.move == pytest.approx(float((now - weights[0]).norm()) / max(float(weights[0].norm()), usual))
    looks = range(160, 201, 5)  # the last complete window of 8 looks, 5 steps apart, starts at step 160
    path = sum(float((weights[look] - weights[look - 5]).norm()) for look in looks[1:])
    net = float((weights[200] - weights[160]).norm())
    assert signals.path_efficiency == pytest.approx(net / path * math.sqrt(8), rel=1e-4)
    sampled = [trace[look] for look in range(165, 201, 5)]
    gained = sum(rate * float(flat(gradients).square().sum()) for _, gradients, _ in sampled)
    assert signals.predicted_gain == pytest.approx(gained / sum(loss for loss, _, _ in sampled), rel=1e-3)
    path = sum(float((weights[look] - weights[look - 5]).norm()) for look in range(5, 201, 5))
    net = float((weights[200] - weights[0]).norm())
    assert signals.straightness == pytest.approx(
        math.log(net / path * math.sqrt(40)) / math.log(math.sqrt(40)), rel=1e-3
    )
    assert signals.rebound == pytest.approx(signals.loss / min(sum(losses[i : i + 50]) / 50 for i in (0, 50, 100, 150)))
    first, last = trace[200][1][0], trace[200][1][2]
    assert signals.gradient_ratio == pytest.approx(
        float(first.square().mean().sqrt() / last.square().mean().sqrt()), rel=1e-4
    )


def test_dead_from_the_start_differs_from_dead_by_training() -> None:
    for at_start in (True, False):
        module = network(6, 20, 3)
        if at_start:
            nn.init.constant_(module[0].bias, -1000)
        meter = Meter(module)
        train(module, meter, 5)
        if not at_start:
            nn.init.constant_(module[0].bias, -1000)
        train(module, meter, 100)
        signals = meter.read()
        assert signals.dead == 1
        assert (signals.dead_at_start == 1) == at_start


def test_a_resumed_meter_reads_the_same(tmp_path: object) -> None:
    torch.manual_seed(0)
    whole, halves = network(6, 20, 3), network(6, 20, 3)
    halves.load_state_dict(whole.state_dict())
    one, first = Meter(whole), Meter(halves)
    train(whole, one, 100)
    train(halves, first, 100)
    state = copy.deepcopy(first.state_dict())
    torch.save(state, f"{tmp_path}/state")
    resumed = Meter(halves)
    resumed.load_state_dict(torch.load(f"{tmp_path}/state", weights_only=True))
    train(whole, one, 100, seed=1)
    train(halves, resumed, 100, seed=1)
    expected, signals = one.read(), resumed.read()
    for name in (
        "step",
        "initial_loss",
        "loss",
        "baseline",
        "move",
        "blow_up",
        "noise",
        "dead",
        "dead_at_start",
        "rebound",
    ):
        assert getattr(signals, name) == pytest.approx(getattr(expected, name)), name


def test_a_checkpoint_of_the_undivided_meter_still_loads() -> None:
    state = {
        **{"step": 40, "batch_size": 4, "_batches": 40, "_watched": 40, "_labels": 160, "_looks": 1},
        **{"initial": [torch.zeros(3, 6), torch.zeros(3)], "initial_norm": 3.0, "_length": torch.tensor(0.5)},
        **{"dead_at_start": torch.tensor(0.25), "dead": None, "_complete_efficiency": 1.5, "class_counts": [80, 80]},
        **{"first_losses": [2.0] * 25, "recent": [1.0] * 40, "previous": [], "lowest": None, "non_finite_step": None},
        **{"epoch_losses": [1.0] * 20, "training_losses": [1.0], "validation_losses": [1.5], "validation_epochs": [0]},
    }
    module = nn.Linear(6, 3)
    meter = Meter(module)
    meter.load_state_dict(state)
    signals = meter.read()
    assert (signals.step, signals.loss, signals.initial_loss, signals.validation_loss) == (40, 1, 2, 1.5)
    assert (signals.baseline, signals.dead_at_start, signals.path_efficiency) == (math.log(2), 0.25, 1.5)
    assert signals.move == pytest.approx(float(flat([weight.detach() for weight in module.parameters()]).norm()) / 3)
    assert meter.state_dict().keys() == state.keys() | {"moments"}


class CountOps(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.ops.append(str(func))
        return func(*args, **(kwargs or {}))


def test_cost_is_no_operator_on_most_steps_and_no_host_synchronisation_on_any() -> None:
    module = network(6, 20, 3)
    meter = Meter(module)
    train(module, meter, 230)  # past the watch of the units
    loss, labels = torch.tensor(1.0), torch.zeros(4, dtype=torch.long)
    per_step = []
    for _ in range(40):
        with CountOps() as counted:
            meter.before_step()
            meter.after_batch(loss, labels)
        per_step.append([op for op in counted.ops if op not in ("aten.detach.default", "aten.alias.default")])
    assert sum(bool(ops) for ops in per_step) == 2, "only every 20th step looks at the weights"
    assert not any("item" in op or "_local_scalar" in op or "_to_copy" in op for ops in per_step for op in ops)
    looked = max(per_step, key=len)
    assert len(looked) <= 6 * len(meter.path.weights) + 20
