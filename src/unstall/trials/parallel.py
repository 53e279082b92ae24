"""Calls that do not depend on one another, side by side: on a CPU a process for each core, with one thread each.

A small network leaves most of the cores idle most of the time, however many threads it has; K of them do not.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import warnings
from array import array
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TypeVar

import torch

Result = TypeVar("Result")


def side_by_side(function: Callable[[int], Result], count: int) -> list[Result]:
    """Return `[function(0), ..., function(count - 1)]`, computed here and in forks of this process.

    A fork needs nothing sent to it, and what a call changes there does not come back. Here and there, one thread is
    used, as by the workers of a `DataLoader`: a fork has no thread but its own. Which process makes which calls is
    left to chance. What a fork could not return, because the call raised or the process was killed, is called again
    here.

    Args:
        function: on the CPU; its results can be pickled.
        count: how many calls.
    """
    available = cores()
    processes = min(count, available)
    if processes < 2 or processes < available / 2:
        # All threads on one call at a time are then quicker: we take it that they gain half their number.
        return [function(i) for i in range(count)]
    context = multiprocessing.get_context("fork")
    waiting, filled = os.pipe()  # whoever is free reads the number of its next call
    os.write(filled, array("i", range(count)).tobytes())
    os.close(filled)
    threads = torch.get_num_threads()
    children, channels = [], []
    try:
        for _ in range(processes - 1):
            here, there = context.Pipe(duplex=False)
            channels.append(here)
            children.append(context.Process(target=_work, args=(function, waiting, there, os.getpid()), daemon=True))
            with warnings.catch_warnings():
                # Python 3.12 warns of any fork beside threads. Those here are idle ones, of OpenMP and loggers.
                warnings.filterwarnings("ignore", message=".*use of fork", category=DeprecationWarning)
                children[-1].start()
            there.close()
        torch.set_num_threads(1)
        results = {i: function(i) for i in _numbers(waiting)}
        for channel in channels:
            with suppress(EOFError, OSError):  # the process is gone
                results |= pickle.loads(channel.recv_bytes())
    finally:
        torch.set_num_threads(threads)
        for child in children:
            child.kill()  # a run may have set a handler for the signal to terminate
        for child, channel in zip(children, channels, strict=True):
            child.join()
            channel.close()
        os.close(waiting)
    return [results[i] if i in results else function(i) for i in range(count)]


def cores() -> int:
    """How many processes may compute at once: torch's threads, or 1 where a fork is not safe.

    It is not on macOS (Python's documentation of `multiprocessing`), nor where an accelerator is at hand: torch's
    backward pass then has threads that a fork lacks (https://github.com/pytorch/pytorch/wiki/Autograd-and-Fork); nor
    among several processes of a training, which a fork could not talk to. A daemon may have no children.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    safe = sys.platform == "linux" and not torch.accelerator.is_available() and not distributed
    return torch.get_num_threads() if safe and not multiprocessing.current_process().daemon else 1


def _numbers(waiting: int) -> Iterator[int]:
    while number := os.read(waiting, array("i").itemsize):
        yield array("i", number)[0]


def _work(function: Callable[[int], Result], waiting: int, channel: Connection, parent: int) -> None:
    results: dict[int, Result] = {}
    with suppress(BaseException):  # the call is made again where whoever asked for it can see it fail
        torch.set_num_threads(1)
        for i in _numbers(waiting):
            if os.getppid() != parent:
                return  # it was killed
            results[i] = function(i)
    with suppress(BaseException):
        # Not `send`, with which torch would pass tensors through shared memory, of which containers have little.
        channel.send_bytes(pickle.dumps(results))
