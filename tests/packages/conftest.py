"""Keeps what came of each package, and counts them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]
KEPT = pytest.StashKey[list[Row]]()
AT_LEAST = 8
"""Packages, for a table to be one of real packages."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", type=Path, help="write what came of each package here; fail if fewer than eight ran")


@pytest.fixture
def keep(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """Takes a row."""
    return request.config.stash.setdefault(KEPT, []).append


def pytest_sessionfinish(session: pytest.Session) -> None:
    rows, file = session.config.stash.get(KEPT, []), session.config.getoption("--rows", None)
    if file is None:
        return
    if len({row["package"] for row in rows}) < AT_LEAST:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"{len(rows)} of at least {AT_LEAST} packages ran; {file} is as it was", red=True)
        return
    whole = file.with_suffix(".new")
    whole.write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole.replace(file)
