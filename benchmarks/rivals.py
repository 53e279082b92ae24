"""Other learning-rate finders: Lightning's and torch-lr-finder's code as installed, fastai's rules, and chance.

fastai's `valley`, `steep` and `minimum` are restated from its documentation, on a range test with its constants.
"""

import contextlib
import importlib
import importlib.util
import io
import itertools
import math
import random
import tempfile
from collections.abc import Callable
from statistics import fmean
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader

from networks import loss_of, take_step
from unstall import quiet

Loader = DataLoader[tuple[Tensor, Tensor]]
Build = Callable[..., tuple[nn.Module, torch.optim.Optimizer]]
"""Builds a network and its optimizer, given a rate or with one that a range test replaces."""


def picks_of_rivals(
    build_module: Callable[[], pl.LightningModule], build: Build, training: Loader, steps: int, draw: random.Random
) -> dict[str, tuple[float, int]]:
    """The rate and the number of steps of every rival that is installed; `steps` are what a random search may take."""
    picks = {"lightning": lightning_suggestion(build_module(), training)}
    curve = exponential_test(*build(), training)
    picks["fastai valley"] = valley(*curve), 100
    picks["fastai steep"] = steepest(*curve), 100
    picks["fastai minimum / 10"] = curve[0][curve[1].index(min(curve[1]))] / 10, 100
    if importlib.util.find_spec("torch_lr_finder") is not None:
        picks["torch-lr-finder"] = torch_lr_finder(*build(), training), 100
    picks["random search"] = random_search(build, training, steps, draw), steps
    return picks


def exponential_test(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader
) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses of fastai's range test: 1e-7 to 10 in 100 steps, beta 0.98, stops at 4x the least.

    Its first tenth and last five points are left out, as fastai leaves them out before it applies a rule.
    """
    rates, losses, average, batches = [], [], 0.0, iter(loader)
    for step in range(100):
        rate = 1e-7 * (10 / 1e-7) ** (step / 99)
        optimizer.param_groups[0]["lr"] = rate
        batch = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        loss = take_step(network, optimizer, *batch)
        average = 0.98 * average + 0.02 * loss.item()
        smoothed = average / (1 - 0.98 ** (step + 1))
        if not math.isfinite(smoothed):
            break
        rates.append(rate)
        losses.append(smoothed)
        if smoothed > 4 * min(losses):
            break
    return rates[10:-5], losses[10:-5]


def valley(rates: list[float], losses: list[float]) -> float:
    """Half-way down the longest decreasing subsequence: fastai's default rule."""
    longest = [1] * len(losses)
    for i, loss in enumerate(losses):
        longest[i] = 1 + max((longest[j] for j in range(i) if losses[j] > loss), default=0)
    end = longest.index(max(longest))
    return rates[max(0, end - longest[end] // 2)]


def steepest(rates: list[float], losses: list[float]) -> float:
    """Where the loss falls fastest against the logarithm of the rate: fastai's `steep`."""
    slopes = [b - a for a, b in itertools.pairwise(losses)]  # the rates are evenly spaced
    return rates[slopes.index(min(slopes))]


def lightning_suggestion(module: pl.LightningModule, loader: Loader) -> tuple[float, int]:
    """What a user of `Tuner.lr_find` with its defaults gets, and the steps that it took."""
    names = "logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar"
    off: dict[str, Any] = dict.fromkeys(names, False)
    with tempfile.TemporaryDirectory() as scratch, quiet():
        trainer = pl.Trainer(accelerator="cpu", max_epochs=100, default_root_dir=scratch, **off)
        finder = Tuner(trainer).lr_find(module, loader, update_attr=False)
        assert finder is not None
        return finder.suggestion() or 1e-8, len(finder.results["lr"])


def torch_lr_finder(network: nn.Module, optimizer: torch.optim.Optimizer, loader: Loader) -> float:
    """The suggestion of the package of that name, as its documentation calls it."""
    from matplotlib.figure import Figure

    with contextlib.redirect_stdout(io.StringIO()), quiet():
        finder = importlib.import_module("torch_lr_finder").LRFinder(network, optimizer, loss_of, device="cpu")
        finder.range_test(loader, start_lr=1e-7, end_lr=10, num_iter=100)
        _, rate = finder.plot(ax=Figure().subplots())
    return float(rate)


def random_search(build: Build, loader: Loader, steps: int, draw: random.Random) -> float:
    """Of three rates drawn from 1e-6 to 10, the one whose training loss ends lowest, in our number of steps."""
    ends = {}
    for _ in range(3):
        rate = 10 ** draw.uniform(-6, 1)
        network, optimizer = build(rate)
        losses: list[float] = []
        while len(losses) < steps // 3:
            for inputs, targets in itertools.islice(loader, steps // 3 - len(losses)):
                losses.append(take_step(network, optimizer, inputs, targets).item())
        end = fmean(losses[len(losses) // 2 :])
        ends[rate] = end if math.isfinite(end) else math.inf
    return min(ends, key=lambda rate: ends[rate])
