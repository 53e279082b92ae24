"""Where the rows go."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", type=Path, help="write what came of each package to this file, as lines of JSON")
