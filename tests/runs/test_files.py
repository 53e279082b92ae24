import dataclasses
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path

import pytest

from unstall.runs.files import as_json, remove_unfinished, scratch_folder, write, write_json


def test_a_file_appears_complete_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "metrics.csv"
    write(file, "old")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space") as error:
            write(file, "new")
    assert error.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


class Colour(str, Enum):
    RED = "red"


@dataclasses.dataclass
class Part:
    colour: Colour
    size: float


def test_json_holds_plain_data_only(tmp_path: Path) -> None:
    content = {"parts": (Part(Colour.RED, math.nan), [Part(Colour.RED, 1.5)]), "largest": math.inf}
    plain = {"parts": [{"colour": "red", "size": None}, [{"colour": "red", "size": 1.5}]], "largest": None}
    assert as_json(content) == plain
    write_json(tmp_path / "new" / "a.json", content)
    assert json.loads((tmp_path / "new" / "a.json").read_text()) == plain


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for name in (f".metrics.csv.{gone.pid}", f".metrics.csv.{os.getpid()}", ".hidden.txt", "a.1"):
        (tmp_path / name).touch()
    remove_unfinished(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {f".metrics.csv.{os.getpid()}", ".hidden.txt", "a.1"}


def test_the_next_to_write_a_file_removes_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f".{name}.{gone.pid}" for name in ("a.json", "b.json")]
    for name in names:
        (tmp_path / name).touch()
    write(tmp_path / "a.json", "new")
    assert {file.name for file in tmp_path.iterdir()} == {"a.json", names[1]}


def test_a_scratch_folder_is_removed_also_after_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = socket.gethostname()
    stale, *others = (f"unstall-{host}-{gone.pid}-x", f"unstall-{host}2-{gone.pid}-x", f"unstall-{host}-x", "tmpabc")
    for name in (stale, *others):
        (tmp_path / name / "within").mkdir(parents=True)
    with scratch_folder() as folder, scratch_folder() as another:
        assert Path(folder).is_dir()
        assert {Path(name).name for name in (folder, another)} | set(others) == {
            file.name for file in tmp_path.iterdir()
        }
    assert {file.name for file in tmp_path.iterdir()} == set(others)
