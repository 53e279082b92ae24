"""A config that was written here is known again; one that was changed, or written elsewhere, is not."""

import os
from pathlib import Path

import pytest
import yaml

from unstall.cli.signature import is_signed, key_file, signed

TEXT = "a: 1\nb: two\n"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize("text", [TEXT, "a: 1", "", "a: |\n  # written here: by me\n"])
def test_a_signed_text_says_the_same_and_is_known(text: str) -> None:
    written = signed(text)
    assert is_signed(written)
    assert yaml.safe_load(written) == yaml.safe_load(text)
    assert signed(written) == written
    assert not is_signed(text)


def test_any_change_breaks_it() -> None:
    written = signed(TEXT)
    assert not is_signed(written.replace("two", "too"))
    assert not is_signed(written + "c: 3\n")
    assert not is_signed(f"c: 3\n{written}")
    assert not is_signed(written + written)


def test_another_key_does_not_make_it() -> None:
    written = signed(TEXT)
    key_file().unlink()
    assert not is_signed(written)
    assert is_signed(signed(TEXT))
    assert not is_signed(written)


def test_the_key_is_for_nobody_else() -> None:
    signed(TEXT)
    assert len(key_file().read_bytes()) == 32
    if os.name == "posix":
        assert key_file().stat().st_mode & 0o077 == 0


def test_where_no_key_can_be_kept_it_lasts_for_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    written = signed(TEXT)
    assert is_signed(written)
    monkeypatch.setattr("unstall.cli.signature._KEY_OF_THIS_PROCESS", bytes(32))  # another process
    assert not is_signed(written)
