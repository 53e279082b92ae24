"""Files that others read: complete, or not there."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any


def write(file: Path, content: str | bytes) -> None:
    """Write a file that others read: beside, then renamed, so that it appears complete or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


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
