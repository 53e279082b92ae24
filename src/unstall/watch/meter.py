"""Gathers the signals of a run while it trains, at almost no cost: no extra forward or backward pass."""

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unstall.watch.signals import Signals, entropy, random_walk_efficiency, straightness, turning_point
from unstall.watch.units import UNITS_WATCHED, WATCH_AT, WATCH_BATCHES, WATCH_EVERY, UnitWatch

LABELS_COUNTED = 100_000
"""Labels counted for the class prior: its entropy is then off by (classes - 1) / 200,000 nats (Miller, 1955)."""


class Meter:
    """Accumulates the signals of one run.

    Call `before_step()` between the backward pass and the optimizer's step, and `after_batch()` after it. Most steps
    cost a list append; every `stride`-th one touches the weights. Nothing is brought to the host until `flush()` or
    `read()`.

    Args:
        module: The network, at its initial weights.
        momentum: Decay of the optimizer's running average of gradients: `momentum`, or the first of `betas`.
        stride: Optimizer steps between two looks at the weights. 20 costs 1 % of a step of a 784-512-10 network at
            batch 128 (`benchmarks/diagnosis.py overhead`).
        window: Looks per window of `path_efficiency`.
    """

    def __init__(self, module: nn.Module, momentum: float = 0.0, stride: int = 20, window: int = 16) -> None:
        self.weights: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
        matrices = [weight for weight in self.weights if weight.ndim > 1]
        self.ends = (matrices[0], matrices[-1]) if len(matrices) > 1 else None
        self.momentum, self.stride, self.window = momentum, stride, window
        self.step = 0
        self.batch_size: int | None = None
        self.initial = [weight.detach().clone() for weight in self.weights]
        # Zero or tiny initial weights would make any movement look large: the norm is at least that of torch's own
        # initial weights, whose variance is 1 / (3 fan_in) (torch.nn.Linear's documentation).
        usual = math.sqrt(sum(len(weight) / 3 for weight in matrices))
        self.initial_norm = max(float(_norm(self.initial)), usual)
        self.snapshot = [weight.clone() for weight in self.initial]
        self.window_start = [weight.clone() for weight in self.initial]
        self.watch = UnitWatch(module)
        self.watch.start()
        self.dead_at_start: Tensor | None = None
        self.dead: Tensor | None = None
        self.class_counts: list[int] | None = []
        self.first_losses: list[float] = []
        self.recent: deque[float] = deque(maxlen=50)
        self.previous: deque[float] = deque(maxlen=50)
        self.lowest: float | None = None
        self.epoch_losses: list[float] = []
        self.training_losses: list[float] = []
        self.validation_losses: list[float] = []
        self.validation_epochs: list[int] = []
        self.non_finite_step: int | None = None
        self._batches = self._watched = 0
        self._pending: list[Tensor] = []
        self._pending_targets: list[Tensor] = []
        self._labels = 0
        self._increments: list[Tensor] = []
        self._gains: deque[tuple[Tensor, Tensor]] = deque(maxlen=window)
        self._gradient_norms: tuple[Tensor, Tensor] | None = None
        self._complete_efficiency: float | None = None
        self._looked = self._sampled = False
        self._length: Tensor | float = 0.0
        self._looks = 0

    @torch.no_grad()
    def before_step(self) -> None:
        """Note the weights before every `stride`-th step; gradients must be there, and unscaled."""
        self._sampled = self.step % self.stride == 0
        if not self._sampled:
            return
        if self._looked:
            self._increments.append(_norm(_difference(self.weights, self.snapshot)))
            self._length, self._looks = self._length + self._increments[-1], self._looks + 1
        torch._foreach_copy_(self.snapshot, self.weights)
        if not self._looked:
            torch._foreach_copy_(self.window_start, self.snapshot)
            self._looked = True
        elif len(self._increments) == self.window:
            self._complete_efficiency = self._window_efficiency()
            self._increments = []
            torch._foreach_copy_(self.window_start, self.snapshot)

    @torch.no_grad()
    def after_batch(self, loss: Tensor, targets: Tensor | None = None, stepped: bool = True) -> None:
        """Note a batch's loss; after every `stride`-th step, what the step should have gained.

        Args:
            loss: The batch's mean loss, a scalar on any device.
            targets: The batch's targets; the entropy of integer ones is the baseline.
            stepped: Whether the optimizer made a step after this batch.
        """
        self._pending.append(loss.detach())
        self._watch_units()
        if targets is not None and self.class_counts is not None and self._labels < LABELS_COUNTED:
            if targets.is_floating_point() or targets.is_complex():
                self.class_counts = None
            else:
                self._pending_targets.append(targets.detach())
                self._labels += targets.numel()
        if targets is not None and targets.ndim:
            self.batch_size = max(len(targets), self.batch_size or 0)
        if not stepped:
            return
        if self._sampled:
            pairs = [(w, s, w.grad) for w, s in zip(self.weights, self.snapshot, strict=True) if w.grad is not None]
            dots = [torch.sum((w - s) * gradient) for w, s, gradient in pairs]
            if dots:
                self._gains.append((-torch.stack(dots).sum(), loss.detach()))
            if self.ends is not None and self.ends[0].grad is not None and self.ends[1].grad is not None:
                self._gradient_norms = self.ends[0].grad.square().mean(), self.ends[1].grad.square().mean()
            self._sampled = False
        self.step += 1

    def flush(self) -> None:
        """Bring the losses and labels noted since the last call to the host: the one synchronisation."""
        if self._pending:
            # One copy for all; under mixed precision losses may differ in type.
            losses: list[float] = torch.stack([loss.float().reshape(()) for loss in self._pending]).tolist()
            self._pending = []
            for loss in losses:
                self._note(loss)
        if self._pending_targets:
            labels = torch.cat([targets.reshape(-1) for targets in self._pending_targets]).cpu().long()
            self._pending_targets = []
            counted = torch.bincount(labels[labels >= 0]).tolist()
            known = self.class_counts or []
            size = max(len(known), len(counted))
            self.class_counts = [
                (known[c] if c < len(known) else 0) + (counted[c] if c < len(counted) else 0) for c in range(size)
            ]

    def end_epoch(self) -> None:
        """Close a training epoch: its mean loss is the one that the validation loss is compared with."""
        self.flush()
        if self.epoch_losses:
            self.training_losses.append(sum(self.epoch_losses) / len(self.epoch_losses))
            self.epoch_losses = []

    def validated(self, loss: float, epoch: int) -> None:
        """Note the validation loss of an epoch."""
        self.validation_losses.append(loss)
        self.validation_epochs.append(epoch)

    @torch.no_grad()
    def read(self) -> Signals:
        """Return all signals as they stand. Synchronises."""
        self.flush()
        if not self.recent:
            return Signals(step=self.step)
        baseline = entropy(self.class_counts) if self.class_counts else None
        initial, loss = self.first_losses[0], sum(self.recent) / len(self.recent)
        reference = baseline or initial
        early = self.first_losses[15:25]
        gain = _over(sum(float(dot) for dot, _ in self._gains), sum(float(loss) for _, loss in self._gains))
        lowest = min(self.validation_losses, default=None)
        training = self.training_losses[-1] if self.training_losses else None
        validation = self.validation_losses[-1] if self.validation_losses else None
        norms = None if self._gradient_norms is None else [math.sqrt(float(norm)) for norm in self._gradient_norms]
        previous = sum(self.previous) / len(self.previous) if self.previous else None
        turned = turning_point(self.validation_losses)
        half = len(self._increments) >= self.window // 2
        efficiency = self._window_efficiency() if half or self._complete_efficiency is None else None
        return Signals(
            step=self.step,
            initial_loss=initial,
            loss=loss,
            baseline=baseline,
            initial_ratio=_over(initial, baseline),
            loss_ratio=_over(loss, reference),
            blow_up=_over(sum(early) / 10, max(initial, baseline or 0.0)) if len(early) == 10 else None,
            move=float(_norm(_difference(self.weights, self.initial))) / self.initial_norm,
            path_efficiency=self._complete_efficiency if efficiency is None else efficiency,
            straightness=self._straightness(),
            predicted_gain=gain,
            realised_gain=_over(previous - loss, gain * loss * len(self.recent)) if previous and gain else None,
            noise=_over(float(torch.tensor(list(self.recent)).std()), loss) if len(self.recent) > 1 else None,
            dead_at_start=None if self.dead_at_start is None else float(self.dead_at_start),
            dead=None if self.dead is None else float(self.dead),
            rebound=_over(loss, self.lowest),
            gradient_ratio=None if norms is None else _ratio(*norms),
            non_finite_step=self.non_finite_step,
            batch_size=self.batch_size,
            training_loss=training,
            validation_loss=validation,
            generalisation_gap=validation - training if validation is not None and training is not None else None,
            turned_epoch=None if turned is None else self.validation_epochs[turned] + 1,
            rise=_over(validation, lowest) if validation is not None else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and tensors; the window of `path_efficiency` starts anew after a resume."""
        self.flush()
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "recent": list(self.recent), "previous": list(self.previous), "initial": self.initial}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, ."""
        for name in _KEPT:
            setattr(self, name, state[name])
        self.recent.extend(state["recent"])
        self.previous.extend(state["previous"])
        torch._foreach_copy_(self.initial, [weight.to(self.initial[0].device) for weight in state["initial"]])
        self._increments, self._looked = [], False

    def _watch_units(self) -> None:
        if self.dead_at_start is None:
            self.dead_at_start = self.watch.stop() if self.watch.inputs > 1 else None
        elif self.watch.inputs >= UNITS_WATCHED or self.watch.batches == WATCH_BATCHES:
            self.dead = self.watch.stop()
            self.watch.inputs = self.watch.batches = 0
        if self._watched % WATCH_EVERY == WATCH_AT:
            self.watch.start()
        self._watched += 1

    def _note(self, loss: float) -> None:
        if not math.isfinite(loss):
            self.non_finite_step = self._batches + 1 if self.non_finite_step is None else self.non_finite_step
        if len(self.first_losses) < 25:
            self.first_losses.append(loss)
        if len(self.recent) == 50:
            self.previous.append(self.recent[0])
        self.recent.append(loss)
        if self._batches % 50 == 49:
            mean = sum(self.recent) / 50
            self.lowest = mean if self.lowest is None else min(self.lowest, mean)
        self.epoch_losses.append(loss)
        self._batches += 1

    def _window_efficiency(self) -> float | None:
        if len(self._increments) < 4:
            return None
        length = float(torch.stack(self._increments).sum())
        return self._efficiency(self.window_start, length, len(self._increments))

    def _straightness(self) -> float | None:
        efficiency = self._efficiency(self.initial, float(self._length), self._looks)
        return efficiency and straightness(efficiency, self._looks, self.stride, self.momentum)

    def _efficiency(self, start: list[Tensor], length: float, increments: int) -> float | None:
        if increments < 4:
            return None
        net = float(_norm(_difference(self.snapshot, start)))
        return _over(net, length * random_walk_efficiency(increments, self.stride, self.momentum))


_KEPT = (
    "step",
    "initial_norm",
    "batch_size",
    "dead_at_start",
    "dead",
    "class_counts",
    "first_losses",
    "lowest",
    "epoch_losses",
    "training_losses",
    "validation_losses",
    "validation_epochs",
    "non_finite_step",
    "_labels",
    "_batches",
    "_watched",
    "_complete_efficiency",
    "_length",
    "_looks",
)


def _difference(left: list[Tensor], right: list[Tensor]) -> tuple[Tensor, ...]:
    return torch._foreach_sub(left, right)


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
    return norm


def _ratio(first: float, last: float) -> float:
    if last:
        return first / last
    return math.inf if first else 0.0


def _over(numerator: float, denominator: float | None) -> float | None:
    return numerator / denominator if denominator else None
