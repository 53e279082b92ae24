"""Config text of bounded extent. Files in full are in tests/hostile."""

import pytest
import yaml

from unstall.cli.reading import DEEPEST, MOST, load
from unstall.errors import UsageError


def test_what_people_write_is_read_as_yaml_reads_it() -> None:
    text = "a: &a {b: [1, 2.5, true, null], c: text}\nd: *a\ne: {<<: *a, f: 2026-01-01}\n"
    assert load(text, "config=x") == yaml.safe_load(text)
    assert load("", "config=x") is None
    assert len(load(str(list(range(MOST - 2))), "config=x")) == MOST - 2


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * (DEEPEST + 1), "nested"),
        (str(list(range(MOST))), "values"),
        ("[&a [x, x], " + ", ".join(["*a"] * MOST) + "]", "values"),
        ("a: &a {b: *a}", "refers to itself"),
        ("x" * 1_000_001, "characters"),
        ("a: [1, 2", "not YAML"),
        ("a: *b", "not YAML"),
        ("a: 2026-13-01", "not YAML"),
        ("{[1]: 2}", "not YAML"),
    ],
)
def test_what_nobody_writes_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=f"config=x: .*{reason}"):
        load(text, "config=x")
