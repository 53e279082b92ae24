"""Which networks are one linear map, and which only look like it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from audit.modules import LABELS, Lit, X, observed
from unstall.audit import observe

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
SEQUENCES = torch.randn(32, 5, 4, generator=torch.Generator().manual_seed(0))
TOKENS = torch.arange(32 * 5).reshape(32, 5) % 7
TWO = {"first": nn.Linear(4, 8), "second": nn.Linear(8, 3)}
WHOLE = {"whole": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3))}


def conv(*between: nn.Module) -> dict[str, nn.Module]:
    first = nn.Conv2d(1, 8, 3, padding=1), *between, nn.Conv2d(8, 8, 3, padding=1)
    return {"whole": nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))}


def whole(module: Any, x: Tensor) -> Tensor:
    return module.whole(x)  # type: ignore[no-any-return]


def set_to_zero(module: Any, x: Tensor) -> Tensor:
    hidden = module.first(x)
    hidden[hidden < 0] = 0
    return module.second(hidden)  # type: ignore[no-any-return]


class Square(torch.autograd.Function):
    """An activation that no function of torch is called for."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, pull: Tensor) -> Any:
        return 2 * ctx.saved_tensors[0] * pull


@pytest.mark.parametrize(
    ("parts", "step", "inputs", "count", "places"),
    [
        (WHOLE, whole, X, 3, ("whole.0", "whole.1")),
        (conv(nn.BatchNorm2d(8), nn.AvgPool2d(2), nn.Dropout2d()), whole, IMAGES, 3, ("whole.1", "whole.4")),
        (TWO, lambda m, x: m.second(F.dropout(m.first(x.log1p().nan_to_num()), 0.5) / 2), X, 2, ("first",)),
        (TWO, lambda m, x: m.second(m.first(x) - torch.cat([x, x], 1)), X, 2, ("first",)),
        (
            {"of": nn.Embedding(7, 4), **TWO},
            lambda m, x: m.second(m.first(m.of(x).mean(1))),
            TOKENS,
            2,
            ("first",),
        ),
        (
            {"first": weight_norm(nn.Linear(4, 8, bias=False)), "second": nn.Linear(8, 3)},
            lambda m, x: m.second(m.first(x)),
            X,
            2,
            ("first",),
        ),
        (TWO, lambda m, x: m.second(x @ m.first.weight.T), X, 2, ("first",)),
        ({"again": nn.Linear(4, 4)}, lambda m, x: m.again(m.again(x)), X, 2, ("",)),  # which call of it is the last?
    ],
)
def test_shown(parts: dict[str, nn.Module], step: Any, inputs: Tensor, count: int, places: tuple[str, ...]) -> None:
    found = observed(parts, step, inputs).series
    assert found is not None
    assert (found.count, found.places) == (count, places)
    assert found.site is not None


GATED = {**TWO, "gate": nn.Linear(4, 8)}
FACTORS = {"users": nn.Embedding(7, 3), "items": nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3))}


@pytest.mark.parametrize(
    ("parts", "step", "inputs"),
    [
        ({"one": nn.Linear(4, 3)}, lambda m, x: m.one(x), X),
        ({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}, lambda m, x: m.a(x) + m.b(x.flip(1)), X),  # side by side
        ({}, lambda m, x: m.net(x), X),
        (conv(nn.MaxPool2d(2)), whole, IMAGES),
        (conv(nn.GroupNorm(2, 8)), whole, IMAGES),
        ({"whole": nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))}, whole, X),
        ({"whole": nn.Sequential(nn.Linear(4, 8), nn.PReLU(), nn.Linear(8, 3))}, whole, X),
        ({"whole": nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3))}, whole, X),
        ({"rnn": nn.LSTM(4, 8, batch_first=True), **TWO}, lambda m, x: m.second(m.rnn(x)[0][:, -1]), SEQUENCES),
        (
            {"attention": nn.MultiheadAttention(4, 1, batch_first=True), **TWO},
            lambda m, x: m.second(m.first(m.attention(x, x, x)[0].mean(1))),
            SEQUENCES,
        ),
        (TWO, lambda m, x: m.second((m.first(x) @ m.first(x).mT @ m.first(x)).mean(1)), SEQUENCES),  # by hand
        (GATED, lambda m, x: m.second(m.first(x) * m.gate(x)), X),
        (TWO, lambda m, x: m.second(m.first(x) + m.first(x).relu()), X),
        (TWO, lambda m, x: m.second(torch.where(m.first(x) > 0, m.first(x), 0.0)), X),
        (TWO, lambda m, x: m.second(1 / (1 + m.first(x).square())), X),
        (TWO, lambda m, x: m.second(torch.ones(8) / m.first(x)), X),
        (TWO, set_to_zero, X),
        (TWO, lambda m, x: m.second(m.first(x) + Square.apply(m.first(x))), X),
        (TWO, lambda m, x: m.second(m.first(x)) + m.net(x), X),  # beside a network that is none
        ({"of": nn.Embedding(7, 4), "head": nn.Linear(4, 3)}, lambda m, x: m.head(m.of(x).mean(1)), TOKENS),
        (FACTORS, lambda m, x: m.items(x) * m.users(x.argmax(1)), X),
        ({"narrow": nn.Linear(4, 2), "wide": nn.Linear(2, 3)}, lambda m, x: m.wide(m.narrow(x)), X),  # low rank
    ],
)
def test_not_shown(parts: dict[str, nn.Module], step: Any, inputs: Tensor) -> None:
    assert observed(parts, step, inputs).series is None


def test_what_is_frozen_learns_no_second_map() -> None:
    parts = {"first": nn.Linear(4, 8).requires_grad_(False), "second": nn.Linear(8, 3)}
    assert observed(parts, lambda m, x: m.second(m.first(x)), X).series is None


def test_what_follows_the_last_layer_does_not_count() -> None:
    module = Lit(3, lambda out, y: F.nll_loss(out.softmax(1).log(), y))
    module.net[1] = nn.Dropout()
    found = observe(module, [X, LABELS]).series
    assert found is not None
    assert found.layers == ("net.0", "net.2")
