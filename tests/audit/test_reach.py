"""Which weights the prediction is computed from, and where samples stop being different."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from audit.modules import X, observed
from unstall.audit.reach import drawn

SEQUENCES = torch.randn(32, 60, 4, generator=torch.Generator().manual_seed(0))
SEQUENCES[:, 8:] = 0.0


def without_gradient(module: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        features = module.net[0](x)
    return module.net[2](features)  # type: ignore[no-any-return]


def test_what_is_used_and_gets_no_gradient() -> None:
    cut = observed({}, without_gradient, X)
    assert cut.unreached == ("net.0.weight", "net.0.bias")
    assert cut.reached_last is not None
    assert cut.reached_last.name == "linear"
    assert observed({"beside": nn.Linear(4, 4)}, lambda m, x: m.net(x), X).unreached == ()  # not used
    learned = nn.Linear(4, 8)
    nn.init.normal_(learned.weight)
    assert observed({"encoder": learned}, lambda m, x: m.net[2](m.encoder(x).detach()), X).unreached == ()


def test_what_is_frozen_and_looks_as_drawn() -> None:
    frozen = observed({"encoder": nn.Linear(4, 8).requires_grad_(False)}, lambda m, x: m.net[2](m.encoder(x)), X)
    assert frozen.frozen_as_drawn == ("encoder.weight", "encoder.bias")
    unused = observed({"encoder": nn.Linear(4, 8).requires_grad_(False)}, lambda m, x: m.net(x), X)
    assert unused.frozen_as_drawn == ()


GRU = {"rnn": nn.GRU(4, 8, batch_first=True), "head": nn.Linear(8, 3)}
ATTENTION = {"attention": nn.MultiheadAttention(4, 1, batch_first=True), "head": nn.Linear(4, 3)}


@pytest.mark.parametrize(
    ("parts", "step", "function"),
    [
        (GRU, lambda m, x: m.head(m.rnn(x)[0][:, -1]), "getitem"),  # after fifty-two steps of padding
        (ATTENTION, lambda m, x: m.head(m.attention(x, x, x * 0 + 1)[0][:, 0]), "multi_head_attention_forward"),
    ],
)
def test_where_samples_are_lost(parts: dict[str, nn.Module], step: Any, function: str) -> None:
    found = observed(parts, step, SEQUENCES).loses_samples
    assert found is not None
    assert found.name == function


@pytest.mark.parametrize(
    ("parts", "step"),
    [
        (GRU, lambda m, x: m.head(m.rnn(x)[0][:, 7])),
        (ATTENTION, lambda m, x: m.head(m.attention(x, x, x)[0].mean(1))),
        ({}, lambda m, x: m.net(x[:, 0])),
        ({}, lambda m, x: m.net[2](m.net[0](x[:, 0]).clamp(min=0))),
    ],
)
def test_where_they_are_not(parts: dict[str, nn.Module], step: Any) -> None:
    assert observed(parts, step, SEQUENCES).loses_samples is None


def test_weights_that_begin_at_zero_lose_nothing() -> None:
    zero = nn.Linear(4, 4)
    nn.init.zeros_(zero.weight)
    assert observed({"first": zero}, lambda m, x: m.net(m.first(x)), X).loses_samples is None


def test_signals_that_fade_little_by_little_are_lost_nowhere() -> None:
    layers: list[nn.Module] = [nn.Linear(4, 16), nn.Sigmoid()]
    for _ in range(12):
        layers += [nn.Linear(16, 16), nn.Sigmoid()]
    assert observed({"deep": nn.Sequential(*layers, nn.Linear(16, 3))}, lambda m, x: m.deep(x), X).loses_samples is None


def test_what_is_drawn_ends_where_the_draw_does() -> None:
    weight = nn.Linear(20, 30).weight
    assert drawn(weight)
    assert not drawn(3 * weight)
    assert drawn(nn.init.xavier_uniform_(torch.empty(20, 30)))
    assert not drawn(nn.init.normal_(torch.empty(20, 30)))
