"""What a network should reach before more is asked of it: a few samples by heart, and what a linear model does."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unstall.forks.remedies import at_rates
from unstall.forks.subject import Subject
from unstall.trials import Score, copied, first_samples, samples_in

SMALL_BATCH, SMALL_STEPS = 32, 150
"""Samples that any network with enough capacity and living units learns by heart in so many steps."""


def fits_few_samples(subject: Subject, rates: Sequence[float]) -> bool:
    """Return whether a few samples can be learned by heart: then it is not the network that fails."""
    few = first_samples(subject.batches, SMALL_BATCH)
    variants = at_rates(*sorted({*rates, 1e-3, 1e-2, 1e-1}))
    outcomes = subject.race(variants, [few] * SMALL_STEPS, [few])
    loss = min(outcome.held_out_loss for outcome in outcomes)
    reference = subject.judge.reference
    subject.note(f"only {samples_in(few)} samples, {SMALL_STEPS} times", Score(reference), Score(loss))
    return loss < 0.5 * reference


def try_linear_model(subject: Subject, best: Score) -> Score | None:
    """Return what a linear model in the place of `module.network` comes to; None where there is none.

    Args:
        subject: The run.
        best: What its own network comes to.
    """
    try:
        return _linear_model(subject, best)
    except Exception:  # the module asks of its network what only that has: its layers, a second input
        return None


def _linear_model(subject: Subject, best: Score) -> Score | None:
    network = getattr(subject.module, "network", None)
    inputs = subject.first_batch[0] if isinstance(subject.first_batch, (tuple, list)) else None
    if not isinstance(network, nn.Module) or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return None
    module = copied(subject.module)
    with torch.no_grad():
        outputs = copied(network).eval()(inputs[:1].to(module.device))
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return None
    linear = nn.Linear(inputs[0].numel(), outputs.shape[1])
    module.network = nn.Sequential(nn.Flatten(), linear).to(module.device)
    score = subject.judge.better_of(*subject.scores(at_rates(1e-1, 1e-2, 1e-3), subject.long, module))
    subject.note("a linear model instead", best, score)
    return score
