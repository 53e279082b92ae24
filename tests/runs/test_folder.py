"""Folders of runs: names, places, room on the disk."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from unstall.errors import UsageError
from unstall.runs.folder import BEST, RunLogger, check_writable, newest_checkpoint, reserve


def _reserve(experiment: Path, start: float, names: "multiprocessing.Queue[str]") -> None:
    while time.time() < start:
        pass
    for _ in range(5):
        names.put(reserve(experiment))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_names_never_collide_though_many_start_in_one_second(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names: multiprocessing.Queue[str] = context.Queue()
    start = time.time() + 0.2
    processes = [context.Process(target=_reserve, args=(tmp_path / "e", start, names)) for _ in range(8)]
    for process in processes:
        process.start()
    reserved = [names.get(timeout=30) for _ in range(40)]
    for process in processes:
        process.join()
    assert len(set(reserved)) == 40
    assert sorted(reserved) == sorted(folder.name for folder in (tmp_path / "e").iterdir())


def test_names_sort_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = ["20251231-235959", "20260101-000000", "20260101-000000", "20260101-000000", "20260101-000001"]
    clock = iter(moments)
    monkeypatch.setattr("time.strftime", lambda _: next(clock))
    names = [reserve(tmp_path) for _ in moments]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def test_logger_makes_no_folder_until_it_is_needed(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path / "logs", "e")
    assert list(tmp_path.iterdir()) == []
    assert Path(logger.log_dir) == tmp_path / "logs" / "e" / logger.version
    assert Path(logger.log_dir).is_dir()
    assert logger.version == logger.version


def test_newest_checkpoint_is_the_run_trained_last(tmp_path: Path) -> None:
    assert "<run>" in str(newest_checkpoint(tmp_path))
    for age, name in enumerate(("b", "a")):
        file = tmp_path / "e" / name / BEST
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
        os.utime(file, (age, age))
    assert newest_checkpoint(tmp_path) == tmp_path / "e" / "a" / BEST


def test_a_full_disk_is_refused_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "logs", 1000)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2_000_000}))
    with pytest.raises(UsageError, match=r"logs_dir=.*2\.0 MB left.*5\.0 MB"):
        check_writable(tmp_path / "logs", 5_000_000)
