"""One process at a time trains in a folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from unstall.errors import UsageError
from unstall.runs.lock import LOCK, Lock

HOLD = """
import importlib.util, os, sys, time
from pathlib import Path
from unstall.runs.lock import Lock
lock = Lock(Path(sys.argv[1]))
if os.fork():
    print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_process_is_told_and_a_killed_one_is_forgotten(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    process = holder.stdout.readline().strip()
    with pytest.raises(UsageError, match=rf"another process \({process}\) is training in it"):
        Lock(tmp_path)
    os.kill(holder.pid, signal.SIGKILL)  # and its child lives
    holder.wait()
    assert (tmp_path / LOCK).is_file()
    unfinished, mine = tmp_path / f".metrics.csv.{process}", tmp_path / f".metrics.csv.{os.getpid()}"
    for file in (unfinished, mine):
        file.touch()
    lock = Lock(tmp_path)
    assert not unfinished.exists()
    assert mine.exists()
    lock.release()
    assert list(tmp_path.iterdir()) == [mine]
    holder.stdout.close()


def test_it_can_be_taken_again_after_its_release_and_a_folder_that_cannot_be_written_has_none(tmp_path: Path) -> None:
    for _ in range(2):
        Lock(tmp_path).release()
    Lock(tmp_path / "nowhere").release()
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_where_a_link_in_its_place_leads(tmp_path: Path) -> None:
    (tmp_path / "dear").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "dear")
    Lock(tmp_path).release()
    assert (tmp_path / "dear").read_text() == "mine"
