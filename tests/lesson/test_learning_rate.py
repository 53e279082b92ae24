"""The learning-rate finder on the lesson: real MNIST, the lesson's network, and four optimizers."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from lesson.network import MLP
from lesson.optimizer import KerasRMSprop
from unstall.find import find_learning_rate
from unstall.find.range_test import RANGE_TEST_STEPS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "low", "high"),
    [
        (functools.partial(KerasRMSprop, lr=1.0), 1e-3, 1e-2),
        (functools.partial(torch.optim.RMSprop, lr=1.0, alpha=0.9, eps=1e-7), 1e-3, 1e-2),
        (functools.partial(torch.optim.SGD, lr=1e-7), 0.3, 1.5),
        (functools.partial(torch.optim.Adam, lr=10.0), 1e-3, 1e-2),
    ],
    ids=["keras-rmsprop", "rmsprop", "sgd", "adam"],
)
def test_picks_on_mnist(mnist_dir: Path, optimizer: Any, low: float, high: float) -> None:
    """The rates that reach 0.95 after one epoch (docs/lr_find.md), wherever the module's own rate is."""
    torch.manual_seed(0)
    module = LitClassifier(MLP([784, 512, 10]), optimizer)
    search = find_learning_rate(module, MNISTDataModule(data_dir=str(mnist_dir), batch_size=128))
    assert low <= search.learning_rate <= high
    steps = sum(len(rate.losses) for rate in search.race) + RANGE_TEST_STEPS
    assert steps <= 937  # 2.5 epochs
