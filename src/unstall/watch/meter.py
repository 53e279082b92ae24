"""Gathers the signals of a run while it trains, at almost no cost: no extra forward or backward pass."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from unstall.watch.losses import LossHistory
from unstall.watch.path import WeightPath
from unstall.watch.signals import Signals
from unstall.watch.units import UnitWatch


class Meter:
    """Accumulates the signals of one run.

    Call `before_step()` between the backward pass and the optimizer's step, and `after_batch()` after it. Most steps
    cost a list append; every `stride`-th one touches the weights. Nothing is brought to the host before the epoch ends
    or `read()` is called, but two numbers at the end of a window.

    Args:
        module: The network, at its initial weights.
        momentum: Decay of the optimizer's running average of gradients: `momentum`, or the first of `betas`.
        stride: Optimizer steps between two looks at the weights. 20 costs 1 % of a step of a 784-512-10 network at
            batch 128 (`benchmarks/diagnosis.py overhead`).
        window: Looks per window of `path_efficiency`.
    """

    def __init__(self, module: nn.Module, momentum: float = 0.0, stride: int = 20, window: int = 16) -> None:
        self.losses = LossHistory()
        self.path = WeightPath(module, momentum, stride, window)
        self.watch = UnitWatch(module)
        self.watch.start()

    def before_step(self) -> None:
        """Note the weights before every `stride`-th step; gradients must be there, and unscaled."""
        self.path.before_step()

    def after_batch(self, loss: Tensor, targets: Tensor | None = None, stepped: bool = True) -> None:
        """Note a batch's loss; after every `stride`-th step, what the step should have gained.

        Args:
            loss: The batch's mean loss, a scalar on any device.
            targets: The batch's targets; the entropy of integer ones is the baseline.
            stepped: Whether the optimizer made a step after this batch.
        """
        self.losses.after_batch(loss, targets)
        self.watch.after_batch()
        if stepped:
            self.path.after_step(loss)

    def end_epoch(self) -> None:
        """Close a training epoch: its mean loss is the one that the validation loss is compared with. Synchronises."""
        self.losses.end_epoch()

    def validated(self, loss: float, epoch: int) -> None:
        """Note the validation loss of an epoch, counted from 0."""
        self.losses.validated(loss, epoch)

    def read(self) -> Signals:
        """Return all signals as they stand. Synchronises."""
        signals = replace(self.losses.read(), step=self.path.step)
        if signals.loss is None:
            return signals
        gain, dead_at_start, dead = self.path.predicted_gain(), self.watch.dead_at_start, self.watch.dead
        return replace(
            signals,
            move=self.path.move(),
            path_efficiency=self.path.efficiency(),
            straightness=self.path.straightness(),
            predicted_gain=gain,
            realised_gain=self.losses.realised_gain(gain),
            dead_at_start=None if dead_at_start is None else float(dead_at_start),
            dead=None if dead is None else float(dead),
            gradient_ratio=self.path.gradient_ratio(),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and tensors: what each part names in `KEPT`, where old checkpoints have it, too.

        The window of `path_efficiency` starts anew after a resume.
        """
        self.losses.flush()
        parts = self.losses, self.losses.targets, self.path, self.watch
        kept = {name: getattr(part, name) for part in parts for name in part.KEPT}
        targets = self.losses.targets
        return kept | {name: getattr(targets, name) for name in targets.NEW} | {"initial": self.path.initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        for part in (self.losses, self.losses.targets, self.path, self.watch):
            for name in part.KEPT:
                setattr(part, name, state[name])
        targets = self.losses.targets
        for name in targets.NEW:
            setattr(targets, name, state.get(name, getattr(targets, name)))
        self.path.go_on_from(state["initial"])
