"""The program's ends: a command of a project's own, and one line for what a user can mend."""

import errno
import tempfile

import pytest

from unstall.cli.entry import main
from unstall.errors import UsageError


def test_a_command_of_a_projects_own_gets_the_words_that_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setitem(main.__globals__, "commands", lambda: {"mine": lambda: seen.append})
    main(["mine", "--a", "b"])
    assert seen == [["--a", "b"]]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UsageError("a=1: give\n 2"), "a=1: give 2"),
        (
            OSError(errno.ENOSPC, "No space left", "/x"),
            "/x: No space left; make room, or give another folder with --lo",
        ),
        (OSError(errno.ENOSPC, "No space left", f"{tempfile.gettempdir()}/x"), f"{tempfile.gettempdir()}/x: No space"),
        (OSError(errno.ENOSPC, "No space left"), "the disk: No space left; make room, or give another folder: --logs"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: list[str]) -> None:
        raise error

    monkeypatch.setitem(main.__globals__, "commands", lambda: {"mine": lambda: fails})
    with pytest.raises(SystemExit) as end:
        main(["mine"])
    assert end.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"unstall: error: {line}")
    if isinstance(error, OSError):  # whose disk it was is not made up
        assert ("TMPDIR" in said) == (error.filename != "/x")


def test_what_a_user_s_own_code_raises_is_shown_as_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: list[str]) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(main.__globals__, "commands", lambda: {"mine": lambda: fails})
    with pytest.raises(ZeroDivisionError):
        main(["mine"])
