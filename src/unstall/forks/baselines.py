"""What a network should reach before more is asked of it: a few samples by heart, and what a linear model does."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unstall.forks.mending import trained
from unstall.forks.remedies import at_rates
from unstall.forks.subject import Subject
from unstall.forks.targets import LinearModel, Task
from unstall.forks.tried import Mended
from unstall.trials import Score, copied, first_samples, inputs_of, samples_in, unchanged_random_state

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


def references(subject: Subject, task: Task) -> dict[str, float]:
    """Return how good a constant is, and a linear model of the inputs where one can be had: what is to be beaten.

    Args:
        subject: The run.
        task: What its targets ask for.

    Returns:
        Shares of right answers, or of the targets' variance that is explained, on the held-out batches.
    """
    targets = torch.cat([task.targets(batch) for batch in subject.as_seen(subject.held_out)])
    found = {"a constant": 0.0 if task.kind == "numbers" else 1 / len(set(targets.flatten().tolist()))}
    inputs, first = inputs_of(subject.first_batch), task.targets(subject.first_batch)
    one_each = task.kind != "classes" or first.ndim == 1
    if inputs is not None and inputs.ndim > 1 and len(inputs) == len(first) and one_each:
        with unchanged_random_state():
            linear = LinearModel(subject.module, task, subject.first_batch).to(inputs.device)
        reached = [score.accuracy for _, score in trained(subject, Mended("", linear, rates=(1e-2, 1e-1)), task)]
        if reached:  # it may diverge, too
            found["a linear model"] = max(accuracy for accuracy in reached if accuracy is not None)
    return found
