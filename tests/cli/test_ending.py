"""One line and the right code where a process is ended; real processes are in tests/test_endings.py."""

import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from unstall.cli.ending import Ending, Unbroken, unbroken_streams


def lightnings_end() -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(("happens", "name"), [(lightnings_end, "SIGINT"), (ask, "SIGTERM")])
def test_a_command_that_is_ended_says_how_to_start_it_again(
    happens: Callable[[], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, Ending().awaited(["diagnose", "a b"]):
        happens()
    assert end.value.code == {"SIGINT": 130, "SIGTERM": 143}[name]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"unstall: ended by {name}; to start again: ")
    assert line.endswith(" diagnose 'a b'")
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["fit", "-c", "a.yaml"], "fit --ckpt_path=logs/e/r"),
        (["fit", "--ckpt_path=logs/e/r", "--trainer.max_epochs=9"], "fit --ckpt_path=logs/e/r --trainer.max_epochs=9"),
    ],
)
def test_a_training_is_ended_by_lightning_and_can_be_gone_on_from(
    words: list[str], again: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ending = Ending()

    def fit() -> None:
        ending.fits(Path("logs/e/r"))
        signal.signal(signal.SIGTERM, lambda signum, frame: ending.ask(signum, frame))  # among Lightning's handlers
        ask()  # it has a batch to finish
        raise SIGTERMException

    with pytest.raises(SystemExit) as end, ending.awaited(words):
        fit()
    assert end.value.code == 143
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("unstall: ended by SIGTERM; logs/e/r is kept; to go on: ")
    assert line.endswith(again)


def test_other_ends_are_left_alone() -> None:
    for error in (SystemExit(2), ZeroDivisionError()):
        with pytest.raises(type(error)) as end, Ending().awaited(["fit"]):
            raise error
        assert end.value is error


def test_a_stream_without_a_reader_falls_silent_and_shows_what_it_cannot_encode() -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="ascii") as stream:  # noqa: PTH123 - a descriptor
        unbroken = Unbroken(stream)
        unbroken.write("loss → 0\n")
        unbroken.flush()
        assert os.read(reader, 100) == b"loss \\u2192 0\n"
        os.close(reader)
        for _ in range(3):
            unbroken.write("more")
            unbroken.flush()


def test_streams_that_were_closed_are_there_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with unbroken_streams():
        print("to nobody")
        assert isinstance(sys.stdout, Unbroken)
    assert sys.stdout is None
    assert isinstance(sys.stderr, io.TextIOBase)
