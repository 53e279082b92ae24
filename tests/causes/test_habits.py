"""Nobody is accused wrongly, no check fails, and no module is changed: modules as other people write them."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from causes.habits_of_networks import HABITS
from unstall.audit import observe, tensors_in
from unstall.causes import FAULTS


@pytest.mark.parametrize("name", HABITS)
def test_nothing_certain_shows_and_nothing_is_changed(name: str) -> None:
    module, batch = HABITS[name]()
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    inputs = [part.clone() for part in tensors_in(batch)]
    numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    seen = observe(module, batch, [module.configure_optimizers()])
    certain = [fault for fault in FAULTS if fault.check(seen) is not None and fault.certain]
    assert certain == []
    assert all(value.equal(weights[key]) for key, value in module.state_dict().items())
    assert all(weight.grad is None for weight in module.parameters())
    assert modes == [part.training for part in module.modules()]
    assert [same(*pair) for pair in zip(inputs, tensors_in(batch), strict=True)] == [True] * len(inputs)
    assert numbers[0].equal(torch.get_rng_state())
    assert numbers[1:] == (random.getstate(), np.random.get_state()[1].tolist())


def same(before: Tensor, after: Any) -> bool:
    if before.layout != torch.strided:
        before, after = before.to_dense(), after.to_dense()
    return not after.requires_grad and torch.equal(before.nan_to_num(), after.nan_to_num())
