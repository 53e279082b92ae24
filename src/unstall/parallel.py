"""Calls that do not depend on one another, side by side: on a CPU a process for each core, with one thread each.

A small network leaves most of the cores idle most of the time, however many threads it has; K of them do not.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(function: Callable[[int], Result], count: int) -> list[Result]:
    """Return `[function(0), ..., function(count - 1)]`, computed in forked processes where there are cores for them.

    The processes are forks, so that nothing needs to be sent to them and nothing that a call changes comes back. They
    use one thread each, as the workers of a `DataLoader` do: a fork has no thread but its own. Which process makes
    which calls is left to chance. Whatever a process could not return, because the call raised, or the process was
    killed, is called again here.

    Args:
        function: on the CPU; its results can be pickled.
        count: how many calls.
    """
    processes = min(count, cores())
    results: dict[int, Result] = _forked(function, count, processes) if processes > 1 else {}
    return [results[i] if i in results else function(i) for i in range(count)]


def cores() -> int:
    """How many processes may compute at once: torch's threads, or 1 where a fork is not safe.

    It is not on macOS (Python's documentation of `multiprocessing`), nor where an accelerator is at hand: torch's
    backward pass then has threads that a fork lacks (https://github.com/pytorch/pytorch/wiki/Autograd-and-Fork). A
    daemon may have no children.
    """
    safe = sys.platform == "linux" and not torch.accelerator.is_available()
    return torch.get_num_threads() if safe and not multiprocessing.current_process().daemon else 1


def _forked(function: Callable[[int], Result], count: int, processes: int) -> dict[int, Result]:
    context = multiprocessing.get_context("fork")
    taken = context.Value("i", 0)
    results: dict[int, Result] = {}
    children, readers = [], []
    try:
        for _ in range(processes):
            reader, writer = context.Pipe(duplex=False)
            child = context.Process(target=_work, args=(function, count, taken, writer), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns of any fork beside threads. Those here are idle ones, of OpenMP and loggers.
                warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
                child.start()
            writer.close()
            children.append(child)
            readers.append(reader)
        while readers:
            for reader in wait(readers):
                assert isinstance(reader, Connection)
                try:
                    i, result = pickle.loads(reader.recv_bytes())
                    results[i] = result
                except EOFError:
                    readers.remove(reader)
    finally:
        for child in children:
            child.terminate()
            child.join()
    return results


def _work(function: Callable[[int], Any], count: int, taken: Any, writer: Connection) -> None:
    try:
        torch.set_num_threads(1)
        while True:
            with taken.get_lock():
                i = taken.value
                taken.value += 1
            if i >= count:
                return
            # Not `send`, with which torch would pass tensors through shared memory, of which containers have little.
            writer.send_bytes(pickle.dumps((i, function(i))))
    except BaseException:  # called again, where whoever called can see it fail
        pass
