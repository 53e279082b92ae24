"""How a process ends before its time: with one line that says how to go on, and with the code that shells expect."""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

from pytorch_lightning.utilities.exceptions import SIGTERMException

from unstall.cli.display import program
from unstall.cli.parser import options
from unstall.runs import rank


class Ending:
    """What a process is doing, and so what is said of it when it is ended.

    Lightning ends a training after the batch that it is at when it is asked to (SIGTERM), so that it can be gone on
    from; all else is left at once, and what is open is closed.
    """

    def __init__(self) -> None:
        self.words: list[str] = []
        self.run: Path | None = None
        self.asked = False

    def fits(self, run: Path) -> None:
        """A training has begun in this folder."""
        self.run = run

    def has_fitted(self) -> None:
        """It is over."""
        self.run = None

    def ask(self, signum: int, frame: FrameType | None) -> None:
        """Handle SIGTERM.

        Raises:
            SystemExit: unless Lightning handles it, too, and has a batch to finish.
        """
        self.asked = True
        if self.run is None or signal.getsignal(signum) == self.ask:
            raise SystemExit(128 + signum)

    @contextlib.contextmanager
    def awaited(self, words: list[str]) -> Iterator[None]:
        """Handle SIGTERM and SIGINT while a command runs.

        Args:
            words: The command's.

        Raises:
            SystemExit: with 143 or 130, after one line on standard error.
        """
        self.words, self.run, self.asked = words, None, False
        try:
            before = signal.signal(signal.SIGTERM, self.ask)
        except ValueError:  # not the main thread, which alone may set a handler
            yield
            return
        try:
            yield
        except KeyboardInterrupt:
            self.end(signal.SIGINT)
        except BaseException as error:
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits 1
                self.end(signal.SIGINT)
            if self.asked or isinstance(error, SIGTERMException):  # also where a worker was told first, and is missed
                self.end(signal.SIGTERM)
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def end(self, signum: signal.Signals) -> NoReturn:
        """Say where the run is and how to go on, in one line.

        Raises:
            SystemExit: 128 and the signal's number, as a shell has it.
        """
        if rank() == 0:
            words, how = self.words, "to start again"
            if words[:1] == ["sweep"]:
                how = "what is finished is kept; to go on"
            elif self.run is not None:
                how = f"{self.run} is kept; to go on"
                words = words if options(words, "--ckpt_path") else ["fit", f"--ckpt_path={self.run}"]
            with contextlib.suppress(OSError):
                print(f"unstall: ended by {signum.name}; {how}: {program()} {shlex.join(words)}", file=sys.stderr)
        raise SystemExit(128 + signum) from None


ENDING = Ending()
"""Of this process, which has one."""


class Unbroken:
    """A stream that goes on in silence when its reader has left (`| head`), and shows what it cannot encode escaped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, as far as anybody reads it."""
        encoding = self._stream.encoding or "utf-8"
        try:
            return self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            self._fall_silent()
            return len(text)

    def flush(self) -> None:
        """Flush, as far as anybody reads it."""
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._fall_silent()

    def _fall_silent(self) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def unbroken_streams() -> Iterator[None]:
    """Let no reader of the standard streams end what is being done."""
    out, err = sys.stdout, sys.stderr
    with contextlib.ExitStack() as stack:
        for name, stream in ("stdout", out), ("stderr", err):
            # None where a shell closed it (`>&-`): libraries expect a stream
            open_stream = stream or stack.enter_context(Path(os.devnull).open("w"))
            setattr(sys, name, Unbroken(open_stream))
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stdout, sys.stderr = out, err
