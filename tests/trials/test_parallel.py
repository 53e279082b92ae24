"""Calls side by side return what they would return one after another, whatever becomes of the processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from unstall.trials.parallel import cores, side_by_side

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a fork is not safe: all calls are made here")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)


def slow_pid(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def test_results_come_in_order() -> None:
    weights = torch.randn(50, 50)
    results = side_by_side(lambda i: weights * i, 7)  # a function that could not be pickled
    assert all(torch.equal(result, weights * i) for i, result in enumerate(results))
    assert side_by_side(lambda i: i, 0) == []


@linux
def test_one_process_for_each_core_and_none_remains() -> None:
    pids = side_by_side(slow_pid, 5)
    assert len(set(pids)) == 2
    assert os.getpid() in pids
    assert not multiprocessing.active_children()


@linux
def test_each_process_has_one_thread() -> None:
    assert side_by_side(lambda i: torch.get_num_threads(), 2) == [1, 1]
    assert torch.get_num_threads() == 2


def test_one_core_needs_no_process() -> None:
    torch.set_num_threads(1)
    assert side_by_side(slow_pid, 2) == [os.getpid()] * 2


def test_few_calls_on_many_cores_need_all_threads_of_one_process() -> None:
    torch.set_num_threads(6)
    assert side_by_side(lambda i: (os.getpid(), torch.get_num_threads()), 2) == [(os.getpid(), 6)] * 2
    if sys.platform == "linux":
        assert len({pid for pid, _ in side_by_side(lambda i: (slow_pid(i), 0), 3)}) == 3


def test_where_an_accelerator_is_at_hand_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert cores() == 1


def test_among_several_processes_nothing_is_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    assert cores() == 1


def test_what_a_call_raises_is_raised_here_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    class OwnError(Exception):  # a local class, which could not be pickled
        pass

    def fail(i: int) -> int:
        if i == 1:
            raise OwnError("second call")
        return i

    with pytest.raises(OwnError, match="second call"):
        side_by_side(fail, 3)
    assert not multiprocessing.active_children()
    assert capfd.readouterr() == ("", "")


@linux
def test_a_killed_process_costs_time_but_no_result() -> None:
    parent = os.getpid()

    def killed(i: int) -> int:
        if os.getpid() != parent and i == 1:  # as when memory runs out
            os.kill(os.getpid(), signal.SIGKILL)
        return i * i

    assert side_by_side(killed, 4) == [0, 1, 4, 9]


@linux
def test_a_result_that_cannot_be_pickled_is_computed_here() -> None:
    results = side_by_side(lambda i: lambda: i, 2)
    assert [result() for result in results] == [0, 1]


@contextmanager
def long_calls() -> Iterator[tuple[subprocess.Popen[str], set[int]]]:
    """A process that makes 40 calls of half a second side by side, and the numbers of both processes."""
    code = (
        "import os, time, torch\n"
        "from unstall.trials.parallel import side_by_side\n"
        "torch.set_num_threads(2)\n"
        # one write for a whole line: two processes write to this pipe, and unbuffered `print` makes two
        "side_by_side(lambda i: (os.write(1, b'%d\\n' % os.getpid()), time.sleep(0.5)), 40)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a job in a shell's background ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stdout is not None
        pids: set[int] = set()
        try:
            while len(pids) < 2:  # until both are within a call
                pids.add(int(process.stdout.readline()))
            yield process, pids
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@linux
@pytest.mark.slow
@pytest.mark.parametrize("by", ["SIGINT", "SIGKILL"])
def test_ended_it_leaves_no_process_behind(by: str) -> None:
    with long_calls() as (process, pids):
        assert process.pid in pids
        if by == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            process.kill()
        # until nobody can write any more, or forty calls would take 10 s
        _, errors = process.communicate(timeout=10)
        assert errors.count("KeyboardInterrupt") == (by == "SIGINT")
        deadline = time.monotonic() + 2  # a process closes its files a moment before it is gone
        while any(map(is_running, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(is_running, pids))
