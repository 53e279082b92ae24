"""Data for the tests: real MNIST where it can be had, and small generated sets everywhere."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

# Before torch is imported: on a shared machine, threads that wait for one another spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from lesson import download
from unstall.errors import UsageError

MakeMNIST = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_global_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`seed_everything` writes to the environment: no test inherits another's seed."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.setenv(name, "")  # so that the variable's absence is what is restored
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Every temporary folder lies in a project that says what this one says: configs/mnist.yaml is the base."""
    base = Path(__file__).parents[1] / "configs" / "mnist.yaml"
    (tmp_path_factory.getbasetemp() / "pyproject.toml").write_text(f'[tool.unstall]\nconfig = "{base}"\n')


@pytest.fixture(scope="session", autouse=True)
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The key that signs the configs of runs lies in a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """A data folder that holds real MNIST: the repository's own, filled on first use."""
    data_dir = Path(__file__).parents[1] / "data"
    try:
        download.ensure("MNIST", data_dir)
    except UsageError as error:
        if (data_dir / "MNIST" / "raw").exists():
            raise  # damaged, which is not the same as out of reach
        pytest.skip(str(error))
    return data_dir


def write_mnist(data_dir: Path, train: int = 600, test: int = 100, dataset: str = "MNIST", seed: int = 0) -> Path:
    """Writes a small generated set in the place of the real one: class k is a bright bar at height k, plus noise.

    Returns:
        `data_dir`.
    """
    random = np.random.default_rng(seed)
    raw = data_dir / dataset / "raw"
    raw.mkdir(parents=True)
    for part, count in ("train", train), ("t10k", test):
        labels = random.integers(10, size=count, dtype=np.uint8)
        images = random.integers(64, size=(count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[2 * label + 4 : 2 * label + 6] = 255
        (raw / f"{part}-images-idx3-ubyte").write_bytes(download.idx_bytes(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(download.idx_bytes(labels))
    return data_dir


@pytest.fixture(scope="session")
def make_mnist() -> MakeMNIST:
    """`write_mnist`, for tests that need sizes of their own."""
    return write_mnist


@pytest.fixture(scope="session")
def tiny_mnist_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 600 training and 100 test images that any network learns. Read only."""
    return write_mnist(tmp_path_factory.mktemp("tiny"))


FIT = ["fit", "--data.data_dir=data", "--trainer.accelerator=cpu", "--data.batch_size=64"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path) -> Path:
    """The folder of a run of three epochs, 480 samples each, with plain SGD and a test. Read only.

    The working directory that it was trained in, with `data`, is the third folder above it.
    """
    from unstall.cli.entry import main

    place = tmp_path_factory.mktemp("trained")
    (place / "data").symlink_to(tiny_mnist_dir)
    optimizer = ["--model.optimizer=SGD", "--model.optimizer.lr=0.05"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        main([*FIT, *optimizer, "--experiment=first", "--trainer.max_epochs=3", "--seed_everything=3"])
        (run,) = (place / "logs" / "first").iterdir()
        main(["test", f"--ckpt_path={run}", "--trainer.accelerator=cpu"])
    return run
