"""The lesson's optimizer. Others are named in the configuration: `torch.optim.Adam`, or a class of one's own."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT


class KerasRMSprop(torch.optim.Optimizer):
    """RMSprop as Keras has it, in which the lesson was first taught: `eps` is added under the root.

    `v <- alpha v + (1 - alpha) g^2`, `w <- w - lr g / sqrt(v + eps)` (https://keras.io/api/optimizers/rmsprop).
    `torch.optim.RMSprop` divides by `sqrt(v) + eps`, so that even the smallest gradients make steps of full size. At
    a rate of 1 that is another lesson: in ten epochs of three seeds validation accuracy was at 0.19 to 0.34, and here
    at 0.12 to 0.25. It is also slower where some `v` are zero, as for pixels that are never lit: the square root that
    torch takes from MKL needs eight times as long for zeros (both from `python benchmarks/optimizer.py --seeds 3`).

    Args:
        params: What to optimize, as for every optimizer.
        lr: Learning rate.
        alpha: Decay of the running average of squared gradients; `rho` in Keras.
        eps: Added to the average, in its unit (a squared gradient).

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, params: ParamsT, lr: float = 1e-3, alpha: float = 0.9, eps: float = 1e-7) -> None:
        if not lr >= 0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if not 0 <= alpha < 1:
            raise ValueError(f"Invalid alpha value: {alpha}")
        if not eps > 0:
            raise ValueError(f"Invalid epsilon value: {eps}")
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step.

        Args:
            closure: Computes the gradients anew and returns the loss.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            weights: list[Tensor] = []
            gradients: list[Tensor] = []
            averages: list[Tensor] = []
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                if not self.state[weight]:
                    self.state[weight]["square_avg"] = torch.zeros_like(weight)
                weights.append(weight)
                gradients.append(weight.grad)
                averages.append(self.state[weight]["square_avg"])
            if not weights:
                continue
            torch._foreach_mul_(averages, group["alpha"])
            torch._foreach_addcmul_(averages, gradients, gradients, 1 - group["alpha"])
            scales = torch._foreach_add(averages, group["eps"])
            torch._foreach_rsqrt_(scales)
            torch._foreach_addcmul_(weights, gradients, scales, -group["lr"])
        return loss
