"""Cost grows with the work and no faster, in counts of Python calls. For seconds see benchmarks/growth.py."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unstall import Meter, Variant, race
from unstall.audit import observe
from unstall.causes import FAULTS, find
from unstall.trials import StepOptions, copied, in_fit
from unstall.watch.course import CourseRecord

BATCH = torch.ones(8, 4) * torch.arange(8)[:, None], torch.arange(8) % 2


class Deep(pl.LightningModule):
    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(layers)])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def calls_of(act: Callable[[], object]) -> int:
    """Count the calls of functions, built-in ones among them."""
    count = 0

    def note(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(before)
    return count


def look(layers: int) -> None:
    module = Deep(layers)
    find(FAULTS, observe(module, BATCH, [module.configure_optimizers()]))


def step(layers: int) -> None:
    with in_fit(Deep(layers), Variant(), StepOptions(), torch.device("cpu")) as lane:
        lane.step([BATCH])


def watch(layers: int) -> None:
    module = Deep(layers)
    meter = Meter(module)
    for _ in range(25):
        loss = module.training_step(BATCH, 0)
        torch.autograd.backward(loss)
        meter.before_step()
        meter.after_batch(loss, BATCH[1])
    meter.read()
    meter.watch.stop()


@pytest.mark.parametrize("act", [look, step, watch, lambda layers: copied(Deep(layers))])
def test_twice_the_layers_are_twice_the_work(act: Callable[[int], object]) -> None:
    act(8)  # what is done once, such as an import
    few, more, most = (calls_of(lambda layers=layers: act(layers)) for layers in (16, 32, 64))  # type: ignore[misc]
    assert most - more < 2.2 * (more - few)


def test_twice_the_rates_and_twice_the_steps_are_twice_the_work() -> None:
    def racing(rates: int, steps: int) -> int:
        variants = [Variant(0.1 * (1 + i)) for i in range(rates)]
        return calls_of(lambda: race(Deep(2), variants, [BATCH] * steps))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # else some of them are made in forks
    try:
        racing(1, 1)
        few, more, most = (racing(2 * n, 4) for n in (1, 2, 4))
        assert most - more < 2.2 * (more - few)
        few, more, most = (racing(2, 4 * n) for n in (1, 2, 4))
        assert most - more < 2.2 * (more - few)
    finally:
        torch.set_num_threads(threads)


def test_a_reading_of_a_long_run_reads_what_is_new_and_knows_what_was() -> None:
    module = Deep(2)
    meter = Meter(module)
    (optimizer,) = [module.configure_optimizers()]
    record = CourseRecord(optimizer, clip=0.5)
    loss = module.training_step(BATCH, 0)
    meter.after_batch(loss, BATCH[1])
    torch.autograd.backward(loss)
    size = float(
        torch.nn.utils.get_total_norm([weight.grad for weight in module.parameters() if weight.grad is not None])
    )
    shares, readings = [], []
    for times in (1.0, 4.0, 100.0):
        for weight in module.parameters():
            assert weight.grad is not None
            weight.grad.mul_(times / size)
        size = times
        for _ in range(50):
            record.before_step(look=True)
        readings.append(calls_of(lambda: shares.append(record.read(meter.losses, meter.path, False, False).clip_share)))
    assert shares == pytest.approx([0.5, (0.5 + 0.125) / 2, (0.5 + 0.125 + 0.005) / 3])
    assert readings[1] == readings[2], "as many as before, in a run that is longer"
    meter.watch.stop()
