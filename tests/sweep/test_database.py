"""A database that cannot be used: one line, without its password, and nothing lost."""

import sqlite3
from pathlib import Path

import pytest

from sweep.searcher import plan
from unstall.errors import UsageError
from unstall.sweep import database
from unstall.sweep.study import Shared, open_study

pytest.importorskip("optuna")


def opened(folder: Path) -> Shared:
    shared = open_study(plan(f"sqlite:///{folder / 'study.db'}"))
    shared.fill()
    return shared


def states(shared: Shared) -> list[str]:
    return [trial.state.name for trial in shared.study.get_trials()]


def test_a_file_that_another_process_keeps_to_itself_is_said_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE", 0.2)
    shared = opened(tmp_path)
    trial = shared.take()
    assert trial is not None
    other = sqlite3.connect(tmp_path / "study.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UsageError, match=r"study.db: cannot be used, database is locked; for 0.2 s another process"):
        open_study(shared.plan)
    with (
        pytest.raises(UsageError, match=r"study.db: database is locked; what is finished is kept, the same command"),
        shared,
    ):
        shared.study.tell(trial, 1.0)
    other.execute("ROLLBACK")
    other.close()
    again = opened(tmp_path)
    again.study.tell(trial.number, 1.0)
    assert states(again) == ["COMPLETE", *["WAITING"] * 3]


def test_a_database_that_finds_no_room_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    shared = opened(tmp_path)
    trial = shared.take()
    assert trial is not None
    with shared.storage.engine.connect() as connection:  # SQLite's own limit stands for that of the disk
        connection.exec_driver_sql("PRAGMA max_page_count = 1")
    with pytest.raises(UsageError, match=r"study.db: database or disk is full; what is finished is kept"), shared:
        trial.set_user_attr("note", "long " * 10_000)
    again = opened(tmp_path)
    again.study.tell(trial.number, 1.0)
    assert states(again) == ["COMPLETE", *["WAITING"] * 3]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "storage=nonsense: cannot be used"),
        ("sqlite:////proc/none/study.db", "cannot be used, unable to open database file"),
        ("mariadb://me:secret@localhost/x", r"storage=mariadb://me:\*\*\*@localhost/x: cannot be used"),
    ],
)
def test_a_database_that_cannot_be_used_is_said_without_its_password(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_study(plan(url))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database, and longer than a header of SQLite's would be" * 20)
    with pytest.raises(UsageError, match="file is not a database"):
        opened(tmp_path)
