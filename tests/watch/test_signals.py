import copy
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from unstall.watch.meter import Meter
from unstall.watch.signals import entropy, random_walk_efficiency, straightness, turning_point
from unstall.watch.units import UnitWatch


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


def test_baseline_is_the_loss_of_always_predicting_the_class_shares() -> None:
    labels = torch.tensor([0] * 70 + [1] * 20 + [3] * 10)
    counts = torch.bincount(labels)
    constant = torch.log(counts / counts.sum() + 1e-30).expand(100, 4)
    assert entropy(counts.tolist()) == pytest.approx(float(F.cross_entropy(constant, labels)))
    assert entropy([5]) == 0


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_null_of_path_efficiency_is_that_of_simulated_noise(momentum: float) -> None:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(4600, 300, generator=generator, dtype=torch.float64)
    step, steps = torch.zeros(300, dtype=torch.float64), []
    for row in noise:
        step = momentum * step + row
        steps.append(step)
    walk = torch.stack(steps)[200:].cumsum(0)
    efficiencies = []
    for start in range(0, 4000, 320):
        places = walk[start : start + 321 : 20]
        efficiencies.append(float((places[-1] - places[0]).norm() / (places[1:] - places[:-1]).norm(dim=1).sum()))
    assert sum(efficiencies) / len(efficiencies) == pytest.approx(random_walk_efficiency(16, 20, momentum), rel=0.05)


def test_straight_descent_is_far_above_the_null_and_a_random_walk_at_it() -> None:
    ratios = []
    for straight in (True, False):
        module = nn.Linear(100, 50)
        meter = Meter(module)
        generator = torch.Generator().manual_seed(0)
        direction = torch.randn(50, 100, generator=generator)
        for _ in range(400):
            module.weight.grad = direction if straight else torch.randn(50, 100, generator=generator)
            meter.before_step()
            module.weight.data -= 1e-3 * module.weight.grad
            meter.after_batch(torch.tensor(1.0))
        ratios.append(meter.read().path_efficiency)
    assert ratios[0] == pytest.approx(4, rel=1e-3)  # 16 looks: the null is 1/4
    assert straightness(4, 16, 20, 0) == pytest.approx(1)
    assert straightness(1, 16, 20, 0) == 0
    assert ratios[1] == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("losses", "turned"),
    [
        ([1.0, 0.5, 0.4, 0.6], 2),
        ([1.0, 0.5, 0.41, 0.42], None),
        ([3.0, 2.0], None),
        ([], None),
        ([1.0, math.nan], None),
    ],
)
def test_turning_point(losses: list[float], turned: int | None) -> None:
    assert turning_point(losses) == turned


def test_units_that_never_change_are_counted_in_the_worst_layer() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 4), nn.Sigmoid(), nn.Linear(4, 2))
    assert isinstance(module[0], nn.Linear)
    with torch.no_grad():
        module[0].bias[:7] = -1000
    watch = UnitWatch(module)
    watch.start()
    module(torch.randn(32, 6))
    module.eval()
    module(torch.randn(32, 6) * 1e6)  # not a training batch: not counted
    share = watch.stop()
    assert share is not None
    assert float(share) == pytest.approx(0.7)
    module.train()
    module(torch.randn(32, 6))
    assert watch.inputs == 32, "the hooks are gone"


def test_one_activation_module_may_serve_several_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.relu = nn.Linear(6, 9), nn.Linear(9, 5), nn.ReLU()

        def forward(self, inputs: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(inputs))))

    module = Shared()
    nn.init.constant_(module.second.bias, -1000)
    watch = UnitWatch(module)
    watch.start()
    module(torch.randn(8, 6))
    share = watch.stop()
    assert share is not None
    assert float(share) == 1


def test_channels_of_a_convolution_are_units() -> None:
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
    nn.init.constant_(module[0].bias[:1].detach(), -1000)  # type: ignore[index,union-attr]
    watch = UnitWatch(module)
    watch.start()
    module(torch.randn(8, 1, 7, 7))
    assert float(watch.stop() or 0) == 0.25


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


def test_first_non_finite_loss_is_found_and_the_rest_survives() -> None:
    meter = Meter(network(6, 20, 3))
    for value in (2.0, 1.0, math.inf, math.nan, 1.0):
        meter.after_batch(torch.tensor(value))
    signals = meter.read()
    assert signals.non_finite_step == 3
    assert signals.baseline is None
    assert signals.loss_ratio is not None
    assert math.isnan(signals.loss_ratio)


def test_blow_up_compares_steps_16_to_25_with_the_start() -> None:
    meter = Meter(network(6, 20, 3))
    for step in range(40):
        meter.after_batch(torch.tensor(12.0 if 15 <= step < 25 else 3.0))
    assert meter.read().blow_up == 4


def test_regression_has_no_baseline_and_is_measured_against_its_start() -> None:
    meter = Meter(network(6, 20, 3))
    for _ in range(60):
        meter.after_batch(torch.tensor(5.0), torch.rand(4, 1))
    signals = meter.read()
    assert (signals.baseline, signals.loss_ratio, signals.initial_ratio) == (None, 1, None)


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
    assert len(looked) <= 6 * len(meter.weights) + 20
