"""Copies that can be trained, of what `copy.deepcopy` refuses or spoils."""

import threading
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from unstall.errors import UsageError
from unstall.trials.copies import copied


def scripted() -> nn.Module:
    network: nn.Module = torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)))
    return network


def normalised() -> nn.Module:
    old: Any = nn.utils.weight_norm
    network: nn.Module = old(nn.Linear(3, 2))
    return network


def with_graph() -> nn.Module:
    network: Any = nn.Linear(3, 2)
    network.kept = {"norms": [network.weight.norm()], "last": (network.weight * 2,)}
    network.bias.requires_grad_(False)
    return network  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore")  # torch means to drop both
@pytest.mark.parametrize("build", [scripted, normalised, with_graph])
def test_a_copy_learns_and_the_original_does_not(build: Any) -> None:
    network = build()
    before = {name: weight.detach().clone() for name, weight in network.named_parameters()}
    twin = copied(network)
    assert [weight.requires_grad for weight in twin.parameters()] == [w.requires_grad for w in network.parameters()]
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    inputs = torch.ones(2, 3)
    assert torch.equal(twin(inputs), network(inputs))
    twin(inputs).sum().backward()
    optimizer.step()
    assert not torch.equal(twin(inputs), network(inputs))
    assert all(torch.equal(weight, before[name]) for name, weight in network.named_parameters())
    assert all(weight.grad is None for weight in network.parameters())


def test_lazy_parts_are_copied_before_they_have_weights() -> None:
    network = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    assert copied(network)(torch.randn(4, 2)).shape == (4, 3)
    assert isinstance(network[0], nn.LazyLinear)


def test_what_has_no_copy_is_refused_in_one_line() -> None:
    network: Any = nn.Linear(3, 2)
    network.lock = threading.Lock()
    with pytest.raises(UsageError, match=r"model=Linear: it cannot be copied \(cannot pickle '_thread.lock' object\)"):
        copied(network)


def test_a_copy_shares_functions_but_not_those_that_hold_weights() -> None:
    network: Any = nn.Linear(3, 2)
    network.make = partial(torch.optim.SGD, lr=0.1, momentum=partial(max, list(range(9))))
    network.kept = {"make": [partial(sorted, key=threading.Lock)]}
    network.scale = partial(torch.mul, network.weight)
    network.step = partial(network.forward)
    twin: Any = copied(network)
    assert twin.make is network.make
    assert twin.kept["make"][0] is network.kept["make"][0]
    assert twin.scale.args[0] is twin.weight
    assert twin.step.func.__self__ is twin
