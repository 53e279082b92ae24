"""Processes share a study: nothing is lost and nothing done twice, also where some of them are killed."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweep import searcher
from sweep.searcher import plan
from unstall.sweep.study import ERROR, PLACE, Shared, open_study
from unstall.sweep.trial import UnmeasuredError, Watch
from unstall.sweep.worker import work

LIMIT = 300
"""Seconds, on a machine that others use as well."""
pytestmark = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def opened(folder: Path) -> Shared:
    return open_study(plan(f"sqlite:///{folder / 'study.db'}", trials=4))


def start(url: str, record: Path, seconds: float, trials: int, processes: int = 1) -> subprocess.Popen[bytes]:
    words = [url, str(record), str(seconds), str(trials), str(processes)]
    return subprocess.Popen([sys.executable, searcher.__file__, *words])


def wait_for(record: Path, word: str, count: int, seconds: float = 300) -> list[str]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        lines = record.read_text().splitlines() if record.is_file() else []
        found = [line for line in lines if line.startswith(word)]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{count} times {word!r} in {seconds} s")


def finished(url: str, trials: int) -> list[Any]:
    with open_study(plan(url, trials=trials)) as shared:
        return [trial for trial in shared.study.get_trials() if trial.state.name == "COMPLETE"]


def test_errors_are_noted_and_the_others_are_made(tmp_path: Path) -> None:
    shared, made = opened(tmp_path), []

    def train(settings: dict[str, Any], watch: Watch) -> None:
        made.append(settings)
        if len(made) == 2:
            raise ValueError("not\nthese")
        watch.best = None if len(made) == 3 else 1.0

    work(shared, train)
    work(shared, train)
    trials = shared.study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "PRUNED", "COMPLETE"]
    assert trials[1].user_attrs[ERROR] == "ValueError: not these"
    assert trials[2].user_attrs["given_up"] == "not finite"
    assert len(made) == 4


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left"), UnmeasuredError("no")])
def test_what_is_broken_off_is_repeated_with_its_settings(tmp_path: Path, error: BaseException) -> None:
    shared, made = opened(tmp_path), []

    def train(settings: dict[str, Any], watch: Watch) -> None:
        made.append(settings)
        if len(made) == 2:
            raise error
        watch.best = 1.0

    with pytest.raises(type(error)):
        work(shared, train)
    work(opened(tmp_path), train)
    assert len(made) == 5
    assert made.count(made[1]) == 2


def test_one_that_another_process_repeats_is_left_to_it(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    shared, made = opened(tmp_path), []

    def train(settings: dict[str, Any], watch: Watch) -> None:
        made.append(settings)
        watch.best = float(len(made))
        if len(made) == 1:
            shared.study.tell(watch.trial.number, state=TrialState.FAIL)  # as `fail_stale_trials` does

    work(shared, train)
    assert len(made) == 5
    assert made[0] == made[-1]
    assert [trial.state.name for trial in shared.study.get_trials()] == ["FAIL", *["COMPLETE"] * 4]


def test_it_stops_when_it_is_no_longer_wanted(tmp_path: Path) -> None:
    shared, made = opened(tmp_path), []
    work(shared, lambda settings, watch: made.append(settings), lambda: len(made) < 2)
    assert len(made) == 2


@pytest.mark.slow
def test_eight_at_once_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    url, record = f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "record"
    assert start(url, record, 0.05, 24, processes=8).wait(LIMIT) == 0
    begun = Counter(line.split()[1] for line in record.read_text().splitlines() if line.startswith("begins"))
    trials = finished(url, 24)
    assert sorted(trial.user_attrs[PLACE] for trial in trials) == list(range(24))
    assert set(begun.values()) == {1}
    assert len(begun) == 24


def kill_and_go_on(url: str, record: Path) -> None:
    killed = start(url, record, 1000, 6)
    (line,) = wait_for(record, "begins", 1)
    os.kill(int(line.split()[-1]), signal.SIGKILL)
    assert killed.wait(LIMIT) == 1
    assert start(url, record, 0.3, 6, processes=2).wait(LIMIT) == 0
    trials = finished(url, 6)
    assert sorted(trial.user_attrs[PLACE] for trial in trials) == list(range(6))
    done = [line.split(" ", 2)[2].rpartition(" ")[0] for line in wait_for(record, "done", 6)]
    assert len(done) == len(set(done)) == 6
    assert line.split(" ", 2)[2].rpartition(" ")[0] in done
    length = record.stat().st_size
    assert start(url, record, 0.3, 6).wait(LIMIT) == 0
    assert record.stat().st_size == length


@pytest.mark.slow
def test_one_that_was_killed_is_repeated_and_what_is_finished_is_not(tmp_path: Path) -> None:
    kill_and_go_on(f"sqlite:///{tmp_path / 'study.db'}", tmp_path / "record")


class Server:
    """A PostgreSQL of the test's own, on a free port of loopback."""

    def __init__(self, programs: Path, folder: Path, port: int) -> None:
        self.programs, self.folder, self.port = programs, folder, port
        self.url = f"postgresql://tester@127.0.0.1:{port}/postgres"
        self.user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
        if self.user:
            shutil.chown(folder, "nobody", "nogroup")
        self._run("initdb", "-D", folder / "data", "-U", "tester", "-A", "trust", "--no-sync")

    def _run(self, program: str | Path, *words: str | Path) -> None:
        command = [*self.user, str(self.programs / program), *map(str, words)]
        subprocess.run(command, check=True, cwd=self.folder, stdout=subprocess.DEVNULL, timeout=120)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        log = self.folder / "log"
        command = ["pg_ctl", "-D", self.folder / "data", "-w", "-l", log, "-o", options, "start"]
        for _ in range(30):  # after a kill, its processes are still there for a moment
            with contextlib.suppress(subprocess.CalledProcessError):
                return self._run(*command)
            time.sleep(1)
        return self._run(*command)

    def kill(self) -> None:
        """End it as a power cut would."""
        pid = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        time.sleep(1)


@pytest.fixture
def server() -> Iterator[Server]:
    if importlib.util.find_spec("psycopg") is None:
        pytest.skip("psycopg is not installed")
    found = shutil.which("pg_config")
    asked = [found, "--bindir"] if found else None
    folder = Path(subprocess.run(asked, capture_output=True, text=True).stdout.strip()) if asked else Path("/none")
    if not (folder / "initdb").is_file():
        pytest.skip("no PostgreSQL is installed: pg_config --bindir names no folder with initdb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Not in the tests' own folder, which is closed to the user that a server started by root runs as.
    with tempfile.TemporaryDirectory() as scratch:
        made = Server(folder, Path(scratch), port)
        made.start()
        yield made
        made._run("pg_ctl", "-D", made.folder / "data", "-m", "immediate", "stop")


@pytest.mark.slow
def test_eight_at_once_on_postgresql(tmp_path: Path, server: Server) -> None:
    record = tmp_path / "record"
    assert start(server.url, record, 0.05, 24, processes=8).wait(LIMIT) == 0
    begun = Counter(line.split()[1] for line in record.read_text().splitlines() if line.startswith("begins"))
    assert sorted(trial.user_attrs[PLACE] for trial in finished(server.url, 24)) == list(range(24))
    assert set(begun.values()) == {1}


@pytest.mark.slow
def test_on_postgresql_a_killed_process_and_a_killed_server_lose_nothing(tmp_path: Path, server: Server) -> None:
    record = tmp_path / "record"
    kill_and_go_on(server.url, record)
    before = len(finished(server.url, 6))
    process = start(server.url, record, 2, 10)
    wait_for(record, "done", before + 1)
    server.kill()
    process.wait(LIMIT)
    server.start()
    assert start(server.url, record, 0.1, 10).wait(LIMIT) == 0
    assert sorted(trial.user_attrs[PLACE] for trial in finished(server.url, 10)) == list(range(10))
