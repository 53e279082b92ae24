"""Where no accelerator is at hand: no step mixes devices, and none makes the host wait for one.

Tensors on torch's `meta` device have a shape and no numbers. It stands here for an accelerator: an operation on tensors
of both devices raises, as there; that the host asks for a number is counted, and answered with 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unstall.trials import Variant
from unstall.trials.lane import Lane
from unstall.trials.variants import StepOptions
from unstall.watch.course import CourseRecord
from unstall.watch.meter import Meter

DEVICE = torch.device("meta")
STEPS = 200
COPIES = torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten._foreach_copy_.default


class StandIn(TorchDispatchMode):
    """Refuses operations on tensors of two devices, and counts in `waits` how often the host waits for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if func is torch.ops.aten._local_scalar_dense.default and tensors[0].device == DEVICE:
            self.waits += 1
            return 1.0
        if func is torch.ops.aten._to_copy.default and tensors[0].device == DEVICE:
            target = (kwargs or {}).get("device")
            if target is not None and target != DEVICE:
                self.waits += 1
                return torch.ones(tensors[0].shape, dtype=(kwargs or {}).get("dtype") or tensors[0].dtype)
        # A number in a tensor of the host's goes along with an operation; a larger tensor does not.
        places = {tensor.device for tensor in tensors if tensor.ndim or tensor.device == DEVICE}
        assert len(places) < 2 or func in COPIES, f"{func} on {places}"
        return func(*args, **(kwargs or {}))


class Lit(pl.LightningModule):
    """Everything that a step touches: normalisation with buffers, momentum, a schedule, a metric of its own."""

    def __init__(self) -> None:
        super().__init__()
        place = {"device": DEVICE}
        self.network = nn.Sequential(
            nn.Linear(20, 32, **place), nn.BatchNorm1d(32, **place), nn.ReLU(), nn.Linear(32, 10, **place)
        )

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)]


def batch() -> list[Tensor]:
    return [torch.zeros(16, 20, device=DEVICE), torch.zeros(16, dtype=torch.long, device=DEVICE)]


def test_mixing_and_waiting_would_be_seen() -> None:
    here, there = torch.zeros(3), torch.zeros(3, device=DEVICE)
    with StandIn() as device:
        with pytest.raises(AssertionError, match="add"):
            here + there
        float(there.sum())
        there.cpu()
        assert device.waits == 2


def test_the_watch_of_a_run_stays_on_the_device() -> None:
    with StandIn() as device:
        module = Lit()
        optimizer = module.configure_optimizers()[0][0]
        meter, course = Meter(module, momentum=0.9), CourseRecord(optimizer, None)
        for i in range(STEPS):
            if i == 50:  # the first batches are looked at
                device.waits = 0
            samples = batch()
            loss = module.training_step(samples, i)
            optimizer.zero_grad()
            course.before_backward(1)
            loss.backward()
            meter.before_step()
            course.before_step(meter.path.looking)
            optimizer.step()
            meter.after_batch(loss.detach(), samples[1])
            course.after_batch(samples, False)
        assert device.waits <= STEPS / 50  # some at the end of a window


@pytest.mark.parametrize("options", [StepOptions(), StepOptions(gradient_clip_val=1.0, accumulate_grad_batches=2)])
def test_a_trial_stays_on_the_device(options: StepOptions) -> None:
    with StandIn() as device:
        lane = Lane(Lit(), Variant(learning_rate=0.1), options, DEVICE, None)
        device.waits = 0
        for _ in range(20):
            lane.step([batch() for _ in range(options.accumulate_grad_batches)])
        assert device.waits == 0
