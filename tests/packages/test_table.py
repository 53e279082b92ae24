"""The table in the docs is what the rows say."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_table_is_what_the_rows_say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("table_of_packages", ROOT / "benchmarks" / "package_table.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    page = (ROOT / "docs" / "packages.md").read_text()
    rows = [json.loads(line) for line in script.ROWS.read_text().splitlines()]
    assert len({row["package"] for row in rows}) >= 8
    assert all(f"| {row['package']} {row['version']} | `{row['module']}` |" in page for row in rows)
    script.PAGE = tmp_path / "packages.md"
    script.PAGE.write_text(page)
    script.main()
    assert script.PAGE.read_text() == page
