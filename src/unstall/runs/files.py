"""Files that others read: complete, or not there."""

import dataclasses
import json
import math
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from glob import escape
from pathlib import Path
from typing import Any


def write(file: Path, content: str | bytes | memoryview) -> None:
    """Write a file that others read: beside, flushed, then renamed, so that it appears complete or not at all.

    Raises:
        OSError: with the file's name, also where the system names none, as of a full disk.
    """
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as stream:
            stream.write(content.encode() if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())  # a rename may reach the disk before what was written
        beside.replace(file)
        remove_unfinished(file.parent, escape(file.name))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def scratch_folder() -> Iterator[str]:
    """A folder for what is not kept, where `TMPDIR` says; those of processes that were killed are removed.

    The machine is part of its name: where several share a folder, each knows of its own processes only.
    """
    mine = f"unstall-{socket.gethostname()}-"
    for left in Path(tempfile.gettempdir()).glob(f"{escape(mine)}*"):
        process = left.name.removeprefix(mine).partition("-")[0]
        if process.isdecimal() and not _is_alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{mine}{os.getpid()}-") as folder:
        yield folder


def remove_unfinished(folder: Path, name: str = "*") -> None:
    """Remove what processes that were killed have left of `write` in a folder, of files that match a name."""
    for file in folder.glob(f".{name}.*"):
        process = file.suffix[1:]
        if process.isdecimal() and not _is_alive(int(process)):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's
        return True
    return True


def as_json(value: Any) -> Any:
    """Return plain data: enumerations as their text, numbers that are not finite as None."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write plain data; the file is complete or not there."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write(file, json.dumps(as_json(content), indent=2) + "\n")
