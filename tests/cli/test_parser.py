"""The words of a command line; what is wrong with them is in tests/test_bad_input.py."""

from pathlib import Path

import pytest

from unstall.cli.parser import check_config, flat, options, without
from unstall.errors import UsageError

WORDS = ["fit", "-c", "a.yaml", "--config=b.yaml", "--ckpt_path", "x", "--trainer.max_epochs=3", "-c"]


def test_values_of_an_option_in_either_form_and_order() -> None:
    assert options(WORDS, "--config", "-c") == ["a.yaml", "b.yaml", ""]
    assert options(WORDS, "--run") == []


def test_a_command_line_without_an_option() -> None:
    assert without(WORDS, "--ckpt_path") == [word for word in WORDS if word not in ("--ckpt_path", "x")]
    assert without(["--run=a", "b"], "--run") == ["b"]


def test_nested_settings_under_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {"a.b": 1, "a.c.d": [2], "e": None}


def test_a_file_without_settings_is_named(tmp_path: Path) -> None:
    check_config("model: {lr: 1}")  # the settings themselves
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(UsageError, match=r"list\.yaml: holds no settings"):
        check_config(str(tmp_path / "list.yaml"))
