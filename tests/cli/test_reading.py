"""Config text of bounded extent. Files in full are in tests/hostile."""

from typing import Any

import pytest
import yaml

from unstall.cli.reading import DEEPEST, MOST, TEXTS_DEEP, check_plain, load, read_again
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


def test_plain_data_is_counted_as_what_it_stands_for() -> None:
    check_plain({"a": [1, (2, {3}), {"b": None}], "c": "text"}, "x")
    shared: list[Any] = [1] * 100
    for _ in range(5):
        shared = [shared] * 100
    in_itself: dict[str, Any] = {}
    in_itself["x"] = in_itself
    for value, reason in ((shared, f"over {MOST:,} values"), (in_itself, "in itself"), ([1] * (MOST + 1), "over")):
        with pytest.raises(UsageError, match=f"x: .*{reason}"):
            check_plain(value, "x")
    check_plain([1] * (MOST + 1), "x", most=MOST + 2)


def test_a_text_is_read_again_to_some_depth() -> None:
    assert read_again("plain", 0) == "plain"
    assert read_again("{a: 1}", 0) == {"a": 1}
    assert read_again("2026-13-45: [", TEXTS_DEEP) == "2026-13-45: ["  # no YAML, and so a text
    with pytest.raises(UsageError, match="texts within texts"):
        read_again("{a: 1}", TEXTS_DEEP)
