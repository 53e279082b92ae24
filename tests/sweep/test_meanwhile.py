"""What is done beside something else, until that ends."""

import threading
import time

import pytest

from unstall.sweep.meanwhile import meanwhile


def test_it_is_done_again_and_again_whatever_it_raises_and_not_afterwards() -> None:
    calls: list[float] = []
    enough = threading.Event()

    def call() -> None:
        calls.append(time.monotonic())
        if len(calls) > 2:
            enough.set()
        raise OSError("busy")

    with meanwhile(call, 0.01):
        assert enough.wait(10)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count


def test_it_ends_with_what_is_raised_within() -> None:
    before = threading.active_count()
    with pytest.raises(KeyError), meanwhile(lambda: None, 0.01):
        raise KeyError
    assert threading.active_count() == before
