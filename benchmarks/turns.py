"""Processes that take turns, an epoch each: what slows the machine down slows all of them. Needs nothing but Python."""

import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from typing import Any

from measuring import ROOT

TRAIN, VAL, BATCH, EVAL_BATCH, HIDDEN = 48_000, 12_000, 128, 1024, 512
"""What all of them train: the samples of an epoch, those of a batch, and the width of the network."""


class Gate:
    """A contender's side: waits for its turn before an epoch, and says how long the last one took."""

    def __init__(self) -> None:
        self.channel = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.started: float | None = None

    def send(self, **message: Any) -> None:
        print(json.dumps(message), file=self.channel, flush=True)

    def turn(self) -> None:
        if self.started is not None:
            self.send(seconds=time.perf_counter() - self.started)
        else:
            self.send(ready=True)
        sys.stdin.readline()
        self.started = time.perf_counter()

    def end(self, accuracy: float) -> None:
        assert self.started is not None
        seconds = time.perf_counter() - self.started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in kB
        self.send(seconds=seconds, accuracy=accuracy, peak_gb=peak)


@functools.cache
def gate() -> Gate:
    """This process's gate; whoever asks first shuts its standard output to all but messages."""
    return Gate()


class Contender:
    """The referee's side of one process."""

    def __init__(
        self, name: str, epochs: int, *options: str, script: str = "contenders.py", python: str = sys.executable
    ) -> None:
        self.name = name
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100"}  # rich then draws as if on a terminal
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            [python, str(ROOT / "benchmarks" / script), name, str(epochs), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.to, self.of = self.process.stdin, self.process.stdout

    def receive(self) -> dict[str, Any]:
        line = self.of.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-2000:]}")
        message: dict[str, Any] = json.loads(line)
        return message

    def go(self) -> None:
        print(file=self.to, flush=True)

    def finish(self) -> None:
        self.to.close()
        self.process.wait()
        self.errors.close()


def take_turns(contenders: list[Contender], epochs: int) -> dict[str, dict[str, Any]]:
    """Each contender's seconds per epoch, epoch by epoch in turn."""
    results: dict[str, dict[str, Any]] = {contender.name: {"seconds": []} for contender in contenders}
    for contender in contenders:
        contender.receive()
    for epoch in range(epochs):
        print(f"epoch {epoch + 1} of {epochs}", end="\r", file=sys.stderr, flush=True)
        shift = epoch % len(contenders)  # whoever follows a slow one gets a warm or a cold cache: let that change
        for contender in contenders[shift:] + contenders[:shift]:
            contender.go()
            message = contender.receive()
            results[contender.name]["seconds"].append(message.pop("seconds"))
            results[contender.name] |= message
    for contender in contenders:
        contender.finish()
    return results


def ask(name: str, epochs: int = 1) -> dict[str, Any]:
    """What a process that takes no turns has to say."""
    contender = Contender(name, epochs)
    message = contender.receive()
    contender.finish()
    return message
