"""What is noted of the weights: how far they go, how straight, and what each of their steps should gain."""

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unstall.watch.signals import over, random_walk_efficiency, straightness


class WeightPath:
    """The way of the weights since the start, looked at every `stride` steps.

    Args:
        module: The network, at its initial weights.
        momentum: Decay of the optimizer's running average of gradients.
        stride: Optimizer steps between two looks.
        window: Looks per window of `efficiency()`, and of the latest gains.
    """

    KEPT = ("step", "initial_norm", "_complete_efficiency", "_length", "_looks")

    def __init__(self, module: nn.Module, momentum: float, stride: int, window: int) -> None:
        self.weights: list[Tensor] = [weight for weight in module.parameters() if weight.requires_grad]
        matrices = [weight for weight in self.weights if weight.ndim > 1]
        self.ends = (matrices[0], matrices[-1]) if len(matrices) > 1 else None
        self.momentum, self.stride, self.window = momentum, stride, window
        self.step = 0
        self.initial = [weight.detach().clone() for weight in self.weights]
        # Zero or tiny initial weights would make any movement look large: the norm is at least that of torch's own
        # initial weights, whose variance is 1 / (3 fan_in) (torch.nn.Linear's documentation).
        usual = math.sqrt(sum(len(weight) / 3 for weight in matrices))
        self.initial_norm = max(float(_norm(self.initial)), usual)
        self.snapshot = [weight.clone() for weight in self.initial]
        self.window_start = [weight.clone() for weight in self.initial]
        self._increments: list[Tensor] = []
        self._gains: deque[tuple[Tensor, Tensor]] = deque(maxlen=window)
        self._gradient_squares: tuple[Tensor, Tensor] | None = None
        self._complete_efficiency: float | None = None
        self._looked = self.looking = False
        self._length: Tensor | float = 0.0
        self._looks = 0

    def before_step(self) -> None:
        """Look at the weights before every `stride`-th step; gradients must be there, and unscaled."""
        self.looking = self.step % self.stride == 0
        if self.looking:
            self._look()

    def after_step(self, loss: Tensor) -> None:
        """Count the step; after a look, note what it should have gained of the batch's loss, and the gradients."""
        if self.looking:
            self._note_gain(loss)
            self.looking = False
        self.step += 1

    @torch.no_grad()
    def _look(self) -> None:
        if self._looked:
            self._increments.append(_distance(self.weights, self.snapshot))
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
    def _note_gain(self, loss: Tensor) -> None:
        pairs = [(w, s, w.grad) for w, s in zip(self.weights, self.snapshot, strict=True) if w.grad is not None]
        dots = [torch.sum((w - s) * gradient.conj()).real for w, s, gradient in pairs]
        if dots:
            self._gains.append((-torch.stack(dots).sum(), loss.detach()))
        if self.ends is not None and self.ends[0].grad is not None and self.ends[1].grad is not None:
            self._gradient_squares = _mean_square(self.ends[0].grad), _mean_square(self.ends[1].grad)

    def go_on_from(self, initial: Sequence[Tensor]) -> None:
        """Measure from these weights instead; the window of `efficiency()` starts anew."""
        torch._foreach_copy_(self.initial, [weight.to(self.initial[0].device) for weight in initial])
        self._increments, self._looked = [], False

    @torch.no_grad()
    def size_share(self) -> float | None:
        """Return the norm of the weights over that of the initial ones. Synchronises."""
        start = float(_norm(self.initial))
        return float(_norm(self.weights)) / start if start else None

    def move(self) -> float:
        """Return the distance from the initial weights over their norm."""
        return float(_distance(self.weights, self.initial)) / self.initial_norm

    def efficiency(self) -> float | None:
        """Return net over total movement of this window, if half of it has passed, else of the last one."""
        begun = len(self._increments) >= self.window // 2 or self._complete_efficiency is None
        latest = self._window_efficiency() if begun else None
        return self._complete_efficiency if latest is None else latest

    def straightness(self) -> float | None:
        """Return the same for the whole way, as an exponent: 0 is a random walk, 1 straight on."""
        efficiency = self._efficiency(self.initial, self._length, self._looks)
        return efficiency and straightness(efficiency, self._looks, self.stride, self.momentum)

    def predicted_gain(self) -> float | None:
        """Return which share of the loss the latest steps should have gained, each on its own batch."""
        gains = [(float(dot), float(loss)) for dot, loss in self._gains]
        # A step whose gradients overflow in half precision is left out, and tells nothing.
        finite = [(dot, loss) for dot, loss in gains if math.isfinite(dot)] or gains
        return over(sum(dot for dot, _ in finite), sum(loss for _, loss in finite))

    def gradient_ratio(self) -> float | None:
        """Return the root mean square of the first layer's gradient over the last layer's; 0 if none arrives."""
        if self._gradient_squares is None:
            return None
        first, last = (math.sqrt(float(square)) for square in self._gradient_squares)
        if not (math.isfinite(first) and math.isfinite(last)):
            return None
        return first / last if last else math.inf if first else 0.0

    def _window_efficiency(self) -> float | None:
        length = torch.stack(self._increments).sum() if self._increments else 0.0
        return self._efficiency(self.window_start, length, len(self._increments))

    def _efficiency(self, start: list[Tensor], length: Tensor | float, increments: int) -> float | None:
        if increments < 4:
            return None
        net = float(_distance(self.snapshot, start))
        return over(net, float(length) * random_walk_efficiency(increments, self.stride, self.momentum))


def _mean_square(gradient: Tensor) -> Tensor:
    """Over all elements, of which a sparse gradient, as of an embedding, holds few."""
    held = gradient.coalesce().values() if gradient.is_sparse else gradient
    return held.abs().square().sum() / gradient.numel()


@torch.no_grad()
def _distance(left: list[Tensor], right: list[Tensor]) -> Tensor:
    return _norm(torch._foreach_sub(left, right))


def _norm(tensors: Sequence[Tensor]) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(tensors))))
    return norm
