"""Several processes end after the same batch, whichever was asked to; with real processes in tests/test_scale.py."""

import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from unstall.cli.together import Together
from unstall.cli.trainer import Trainer

NOBODY: Any = None


def of_processes(count: int, others_say: bool = False) -> Any:
    passed_on: list[int] = []
    strategy = SimpleNamespace(
        launcher=SimpleNamespace(kill=passed_on.append),
        reduce_boolean_decision=lambda decision, all: decision or others_say,
    )
    return SimpleNamespace(world_size=count, strategy=strategy, passed_on=passed_on)


@pytest.fixture(autouse=True)
def _handler() -> Any:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


def test_one_that_is_asked_passes_it_on_and_ends_when_all_know() -> None:
    together, trainer = Together(), of_processes(2)
    together.on_train_start(trainer, NOBODY)
    together.on_train_batch_end(trainer, NOBODY, None, None, 0)
    assert not together.agreed
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert trainer.passed_on == [signal.SIGTERM]
    assert not together.agreed
    together.on_train_batch_end(trainer, NOBODY, None, None, 1)
    assert together.agreed


def test_one_that_was_not_asked_ends_with_the_others() -> None:
    together, trainer = Together(), of_processes(2, others_say=True)
    together.on_train_start(trainer, NOBODY)
    together.on_train_batch_end(trainer, NOBODY, None, None, 0)
    assert together.agreed


def test_one_alone_leaves_it_to_lightning() -> None:
    Together().on_train_start(of_processes(1), NOBODY)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_the_trainer_says_so_only_when_all_know() -> None:
    quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    together = Together()
    trainer = Trainer(accelerator="cpu", devices=2, strategy="ddp", callbacks=[together], **quiet)
    together.asked = True
    assert not trainer.received_sigterm
    together.agreed = True
    assert trainer.received_sigterm
    assert not Trainer(accelerator="cpu", callbacks=[together], **quiet).received_sigterm
