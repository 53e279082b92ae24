"""Real packages' modules go through every instrument, each in a file of its own beside this one.

`make test-zoo` installs them and keeps the rows of docs/packages.md. Elsewhere, a package that is not installed is
skipped.
"""

import importlib
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

HERE = Path(__file__).parent
CASES = sorted(file.stem for file in HERE.glob("*.py") if not file.stem.startswith(("test_", "conftest", "driver")))


def loaded(name: str) -> ModuleType:
    """The case, whose imports may warn of anything."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case = importlib.import_module(f"packages.{name}")
            version(case.PACKAGE)
        except (ModuleNotFoundError, PackageNotFoundError) as error:
            if getattr(error, "name", None) == f"packages.{name}":
                raise
            pytest.skip(f"{name}: {error}; `make test-zoo` installs it")
    return case


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Lightning, torch and the packages: they are as they are
@pytest.mark.parametrize("name", CASES)
def test_a_package(
    name: str, tmp_path: Path, keep: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # some leave files where they are run
    case = loaded(name)
    from packages.driver import examine

    row = examine(case, 0, tmp_path)
    keep(row)
    assert row["steps"] > 50
    assert 1e-7 <= row["pick"] <= 1e2
    for stall in "too_high", "too_low":
        assert row[stall]["sentence"]
        assert "\n" not in row[stall]["sentence"]
