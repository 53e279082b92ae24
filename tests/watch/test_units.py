"""Units that never change their output, counted during ordinary forward passes."""

import pytest
import torch
from torch import Tensor, nn

from unstall.watch.units import UnitWatch


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


def test_units_are_watched_over_the_first_batch_and_a_thousand_inputs_now_and_then() -> None:
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU())
    watch = UnitWatch(module)
    watch.start()
    watched = []
    for batch in range(230):
        watched.append(len(module[1]._forward_hooks))
        if batch == 5:
            nn.init.constant_(module[0].bias, -1000)  # type: ignore[arg-type]
        module(torch.randn(100, 6))
        watch.after_batch()
    assert [batch for batch in range(230) if watched[batch]] == [0, *range(11, 21), *range(111, 121), *range(211, 221)]
    assert watch.dead_at_start is not None
    assert watch.dead is not None
    assert (float(watch.dead_at_start), float(watch.dead)) == (0, 1)
