"""The database that the processes of a search share: how it is opened, and what is said where it cannot be used."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from unstall.errors import UsageError

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

BEAT, SILENCE = 5, 30
"""Seconds between two signs of life of a trial, and without any until it is repeated elsewhere."""
PATIENCE = 60
"""Seconds for which a database may be busy with others."""
MEANWHILE = ("locked", "already exists", "unique constraint")
"""What a database says while another process makes the same tables."""

T = TypeVar("T")


def storage_at(url: str) -> RDBStorage:
    """Return Optuna's storage at a URL, whose trials give signs of life."""
    import sqlalchemy
    from optuna.storages import RDBStorage

    local = url.startswith("sqlite")
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if local else {"pool_pre_ping": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls heartbeats experimental
        storage = RDBStorage(url, engine_kwargs=engine, heartbeat_interval=BEAT, grace_period=SILENCE)
    if local:
        # sqlite3 begins a transaction at its first change: two processes would read the same trial as waiting, and
        # both take it. https://docs.sqlalchemy.org/en/20/dialects/sqlite.html, "Serializable isolation". Not earlier:
        # Optuna opens a second connection within a transaction while it looks at its tables.
        sqlalchemy.event.listen(storage.engine, "connect", _without_own_transactions)
        sqlalchemy.event.listen(storage.engine, "begin", _begin)
        storage.engine.dispose()
    return storage


def _without_own_transactions(connection: Any, record: Any) -> None:
    connection.isolation_level = None


def _begin(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def reached(url: str, attempt: Callable[[], T]) -> T:
    """Return what an attempt at a database returns; another process may be making the same tables at this moment.

    Raises:
        UsageError: if it cannot be used: what the database says, in a line.
    """
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    reasons = (SQLAlchemyError, StorageInternalError, ImportError, RuntimeError, ValueError)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except reasons as error:  # noqa: PERF203 # it waits for others
            reason = _reason(error)
            if any(word in reason.lower() for word in MEANWHILE) and time.monotonic() < end:
                time.sleep(random.uniform(0.1, 1))
                continue
            remedy = "see that it is there and may be written"
            if "locked" in reason:
                remedy = f"for {PATIENCE} s another process has kept it to itself: end that one"
            raise UsageError(
                f"storage={without_password(url)}: cannot be used, {reason}; {remedy}, or give another --storage"
            ) from None


def why_gone(url: str, error: BaseException) -> str | None:
    """Say why a database that was there cannot be used any more; None for an error that is not of a database."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    if not isinstance(error, StorageInternalError | SQLAlchemyError):
        return None
    return f"storage={without_password(url)}: {_reason(error)}; what is finished is kept, the same command goes on"


def _reason(error: BaseException) -> str:
    """What a database says, in a line."""
    cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error.__cause__ or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return lines[0][:200]


def without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return str(make_url(url).render_as_string(hide_password=True))
    except ArgumentError:
        return url
