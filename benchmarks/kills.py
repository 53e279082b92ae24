"""Kill commands at random moments, go on, and compare with what was never interrupted.

    python benchmarks/kills.py --tries 12          # writes data/kills.jsonl, as many tries again with each call
    python benchmarks/kills.py --report

A try draws a command, a signal, a file system and a moment, anywhere or while a file is being written; it kills the
command there, counts what it left behind, goes on as its last line says (or, where it could say nothing, from the run's
folder, or again), and compares: weights bit for bit, the table of epochs, and the curves.
The data are 2,000 images of MNIST.
"""

import argparse
import json
import os
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from measuring import MNIST_FOLDER, RESULTS, ROOT, table
from unstall import Run, read_metrics

FILE = RESULTS / "kills.jsonl"
DATA = ["--data.train_samples=2000", f"--data.data_dir={MNIST_FOLDER}"]
OPTIONS = [*DATA, "--trainer.enable_progress_bar=false"]
FIT = ["fit", *OPTIONS, "--trainer.max_epochs=6", "--logs_dir=logs"]
COMMANDS = {
    "fit": FIT,
    "lr_find": ["lr_find", *OPTIONS, "--logs_dir=logs"],
    "diagnose": ["diagnose", "RUN"],
    "demo": ["demo", *OPTIONS, "--trainer.max_epochs=2", "--logs_dir=logs"],
}
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM}
FOLDERS = {"disk": None, "tmpfs": "/dev/shm"}
MEANS = ("train/",)
"""Of an epoch that was interrupted: they are over its rest."""


@dataclass
class Try:
    """What became of one kill.

    Args:
        command: Which was killed.
        signal: By what.
        disk: Whether on a disk or in memory.
        share: When, as a share of the time that the command takes.
        code: What the process ended with; negative for the signal itself.
        said: Whether it said how to go on, where it could, and ended with the signal's code.
        left: Files of no use that it left behind, and processes.
        finished: Whether going on, or starting again, ended well.
        equal: Whether its result equals that of the command that was never killed, bit for bit.
        once: Whether each point of the curves is there once, and in order.
        remains: Files of no use after all is done, in the project and in `TMPDIR`.
        at: Whether the moment was any, or one at which a file was being written.
    """

    command: str
    signal: str
    disk: str
    share: float
    code: int
    said: bool
    left: list[str]
    finished: bool
    equal: bool
    once: bool
    remains: list[str]
    at: str = "any"


def kinds() -> list[str]:
    """The file systems that there are."""
    return [kind for kind, place in FOLDERS.items() if place is None or Path(place).is_dir()]


def start(folder: Path, words: list[str]) -> "subprocess.Popen[str]":
    """Start the program in a folder."""
    temporary = folder.with_name(f"{folder.name}-temporary")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary)}
    return subprocess.Popen(
        [sys.executable, "-m", "unstall", *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def project(kind: str) -> Iterator[Path]:
    """A folder with the configs, on a disk or in memory, and beside it the place of temporary files, on the other."""
    other = next((FOLDERS[each] for each in kinds() if each != kind), None)
    with (
        tempfile.TemporaryDirectory(prefix="kills-", dir=FOLDERS[kind]) as name,
        tempfile.TemporaryDirectory(prefix="kills-", dir=other) as elsewhere,
    ):
        folder = Path(name, "project")
        folder.mkdir()
        (Path(name) / "project-temporary").symlink_to(elsewhere)
        (folder / "configs").symlink_to(ROOT / "configs")
        (folder / "pyproject.toml").write_text('[tool.unstall]\nconfig = "configs/mnist.yaml"\n')
        yield folder


def prepare(folder: Path, command: str) -> list[str]:
    """Make what a command needs, and return its words."""
    words = list(COMMANDS[command])
    if command == "diagnose":
        stalled = [*FIT, "--trainer.max_epochs=1", "--model.optimizer.lr=1e-7"]
        start(folder, stalled).communicate()
        words[words.index("RUN")] = str(next(folder.glob("logs/*/*")).relative_to(folder))
    return words


def useless(folder: Path) -> list[str]:
    """Files that only a process which was killed leaves, but for `.lock`, which then locks nothing."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob(".*") if file.name != ".lock")


def await_writing(folder: Path, process: "subprocess.Popen[str]", seconds: float = 20) -> bool:
    """Wait until a file is being written, which is beside its place then. False: none was."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        for place in ("logs/*/*", "logs/*/*/checkpoints"):  # few, because a file is there for milliseconds
            if next(folder.glob(f"{place}/.*.{process.pid}"), None) is not None:
                return True
    return False


def in_temporary(folder: Path) -> list[str]:
    """What lies in the place of temporary files."""
    return sorted(f"TMPDIR/{file.name}" for file in folder.with_name(f"{folder.name}-temporary").iterdir())


def words_of(last: str) -> list[str]:
    """The words of the command that a last line ends with."""
    words = shlex.split(last.partition("; ")[2].partition(": ")[2])
    return words[words.index("unstall") + 1 :] if "unstall" in words else []


def result(folder: Path, command: str) -> Any:
    """What a command is run for, without its times and names."""
    runs = sorted(folder.glob("logs/*/*/"))
    if command == "fit":
        (run,) = runs
        weights = torch.load(Run(run).last, weights_only=True)["state_dict"]
        rows = [{k: v for k, v in row.items() if not k.startswith(MEANS)} for row in read_metrics(run / "metrics.csv")]
        return {name: weight.numpy().tobytes() for name, weight in weights.items()}, rows
    if command == "lr_find":
        return runs[-1].joinpath("lr_find.yaml").read_text()
    if command == "diagnose":
        report = json.loads(runs[-1].joinpath("diagnosis.json").read_text())
        return report["cause"], report["fix"], report["forks"]
    newest = {run.parent.name: run for run in runs}  # a demo starts again: former runs stay beside its own
    return {experiment: read_metrics(run / "metrics.csv") for experiment, run in newest.items()}


def each_once(folder: Path) -> bool:
    """Whether TensorBoard shows each point of each curve once, in order."""
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    for run in folder.glob("logs/*/*/"):
        events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            steps = [event.step for event in events.Scalars(tag)]
            if steps != sorted(set(steps)):
                return False
    return True


def children_of(process: int) -> list[int]:
    """The processes that another has started, where the system tells (Linux)."""
    listed = Path(f"/proc/{process}/task/{process}/children")
    return [int(word) for word in listed.read_text().split()] if listed.exists() else []


def alive(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(command: str, by: str, kind: str, share: float, writing: bool, whole: float, expected: Any) -> Try:
    """Make one try."""
    with project(kind) as folder:
        words = prepare(folder, command)
        process = start(folder, words)
        time.sleep(share * whole)
        at = "writing" if writing and await_writing(folder, process) else "any"
        children = children_of(process.pid)
        process.send_signal(SIGNALS[by])
        _, error = process.communicate(timeout=600)
        time.sleep(0.5)
        left = [*useless(folder), *in_temporary(folder)]
        left += [f"process {child}" for child in children if alive(child)]
        last = next(reversed(error.splitlines()), "")
        code, runs = process.returncode, sorted(folder.glob("logs/*/*/"))
        said = by == "SIGKILL" or code == 0 or (code == 128 + SIGNALS[by] and bool(words_of(last)))
        if by == "SIGTERM" and code and said and command != "demo":  # which says how its run goes on
            words = words_of(last)
        elif command == "fit" and runs:
            words = ["fit", f"--ckpt_path={runs[0].relative_to(folder)}"]
        finished, equal = code == 0, code == 0
        if code != 0:
            again = start(folder, words)
            _, error = again.communicate(timeout=600)
            finished = again.returncode == 0 or "has been trained for" in error
        if finished:
            equal = result(folder, command) == expected
        else:
            print(error, file=sys.stderr)
        remains = [*useless(folder), *in_temporary(folder)]
        return Try(command, by, kind, share, code, said, left, finished, equal, each_once(folder), remains, at)


def report(tries: list[Try]) -> list[str]:
    """The table of docs/reliability.md."""
    rows = []
    for command in COMMANDS:
        for by in SIGNALS:
            these = [each for each in tries if (each.command, each.signal) == (command, by)]
            if these:
                counts = [sum(bool(getattr(each, name)) for each in these) for name in ("finished", "equal", "once")]
                clean = sum(not each.remains for each in these)
                told = "-" if by == "SIGKILL" else sum(each.said for each in these)
                rows.append([f"`{command}`", by, len(these), told, *counts, clean])
    header = "| command | signal | tries | said how to go on | went on | bit for bit | points once | nothing left |"
    return table(header, rows)


def main() -> None:
    """Parse the command line, make the tries, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tries", type=int, default=12)
    parser.add_argument("--commands", nargs="+", default=list(COMMANDS), choices=COMMANDS)
    parser.add_argument("--report", action="store_true", help="only print the table of the tries so far")
    given = parser.parse_args()
    tries = [Try(**json.loads(line)) for line in FILE.read_text().splitlines()] if FILE.exists() else []
    expected: dict[str, tuple[float, Any]] = {}
    draw = random.Random(len(tries))
    for number in range(len(tries), len(tries) + (0 if given.report else given.tries)):
        command = given.commands[number % len(given.commands)]
        turn = number // len(given.commands)
        by, kind = list(SIGNALS)[turn % 2], kinds()[(turn // 4 + number) % len(kinds())]
        if command not in expected:
            with project("disk") as folder:
                words = prepare(folder, command)
                began = time.monotonic()
                process = start(folder, words)
                _, error = process.communicate()
                assert process.returncode == 0, error
                expected[command] = time.monotonic() - began, result(folder, command)
        writing = turn % 4 >= 2 and command != "lr_find"  # which writes only at its end
        tries.append(kill(command, by, kind, draw.random(), writing, *expected[command]))
        print(tries[-1], flush=True)
        with FILE.open("a") as stream:
            stream.write(json.dumps(asdict(tries[-1])) + "\n")
    print("\n".join(report(tries)))


if __name__ == "__main__":
    main()
