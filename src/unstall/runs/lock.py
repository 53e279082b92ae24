"""One process at a time trains in a run's folder."""

import atexit
import os
from pathlib import Path

from unstall.errors import UsageError
from unstall.runs.files import remove_unfinished
from unstall.runs.folder import LAST

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"


class Lock:
    """Held from its making to `release`, or to the end of the process, however that ends.

    Advisory: a record lock (`man 2 fcntl`), which the system takes back from a process that is gone and which workers
    do not inherit; so a file that was left behind locks nothing. Where the file system knows none, nothing is locked.

    Args:
        folder: The run's; what killed processes have left of unfinished files is removed there.

    Raises:
        UsageError: if another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / LOCK
        self._stream: int | None = None
        if fcntl is not None:
            self._stream = self._take(folder)
            for place in (folder, (folder / LAST).parent):
                remove_unfinished(place)
        atexit.register(self.release)

    def _take(self, folder: Path) -> int | None:
        while True:
            try:
                # No link: in a folder that was received, it may lead to any file, which is written into.
                stream = os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            except OSError:  # a folder that cannot be written: whoever writes there says so
                return None
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.read(stream, 20).decode(errors="replace").strip()
                os.close(stream)
                raise UsageError(
                    f"ckpt_path={folder}: another process{f' ({holder})' if holder else ''} is training in it; "
                    "wait for its end, or end it"
                ) from None
            except OSError:  # no locks on this file system
                os.close(stream)
                return None
            # Whoever held it may have removed the file between the two: then this one is nobody's.
            if self.file.exists() and self.file.stat().st_ino == os.fstat(stream).st_ino:
                os.truncate(stream, 0)
                os.write(stream, f"{os.getpid()}\n".encode())
                return stream
            os.close(stream)

    def release(self) -> None:
        """Let others train there."""
        atexit.unregister(self.release)
        if self._stream is not None:
            self.file.unlink(missing_ok=True)
            os.close(self._stream)
            self._stream = None
