"""MNIST and its sisters as tensors in memory, and the order in which training sees them."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from unstall import download
from unstall.errors import UsageError

DatasetName = Literal["MNIST", "FashionMNIST", "KMNIST"]
SplitName = Literal["last", "random"]
Batch = tuple[Tensor, Tensor]

CLASSES = {
    "MNIST": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    "FashionMNIST": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    ],
    "KMNIST": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
}
NO_LABEL = -1  # the target of an image that comes without one


class InMemoryDataset(Dataset[Batch]):
    """Images and labels as two tensors: a batch is one indexing operation.

    `DataLoader` calls `__getitems__` with all indices of a batch where a data set has that method.

    The images stay bytes and are scaled as they are read: over an epoch of shuffled batches of 128, float32 in memory
    is as fast (44 ms each) and four times as large. `index_select` takes half the time of `images[indices]` or less,
    and NumPy reads a list of indices five times as fast as `torch.tensor`. (2-core x86 CPU, one thread, best of 15.)

    Args:
        images: Bytes of shape `(N, C, H, W)`.
        labels: int64 of shape `(N,)`.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        assert len(images) == len(labels)
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Batch:
        """One sample: float32 `(C, H, W)` in [0, 1], and its label."""
        inputs, targets = self.__getitems__([index])
        return inputs[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch: float32 `(B, C, H, W)` in [0, 1], int64 `(B,)`."""
        chosen = torch.from_numpy(np.array(indices))
        return self.images.index_select(0, chosen) / 255, self.labels.index_select(0, chosen)


class EpochSampler(DistributedSampler[Batch]):
    """This process's share of an epoch, as a pure function of the seed and the epoch.

    A run that is resumed at epoch k therefore sees the batches that it would have seen. Lightning calls `set_epoch`
    and leaves a `DistributedSampler` alone where it would inject its own.

    Args:
        dataset: What is sampled.
        world_size: The number of processes.
        rank: This process's number.
        shuffle: Whether each epoch has an order of its own. Then the shares are of equal length (the first samples
            come twice where needed), because processes that train together must take the same number of steps.
            Without it, each sample is in exactly one share, so that an evaluation counts it once.
        seed: The global seed.
    """

    def __init__(self, dataset: Dataset[Batch], world_size: int, rank: int, shuffle: bool, seed: int) -> None:
        super().__init__(dataset, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)
        if not shuffle:
            self.total_size = len(dataset)  # type: ignore[arg-type]  # torch's Dataset declares no length
            self.num_samples = len(range(rank, self.total_size, world_size))

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]  # torch declares the items, and yields indices
        order = np.arange(len(self.dataset))  # type: ignore[arg-type]
        if self.shuffle:
            order = random_generator("order", self.seed, self.epoch).permutation(order)
        order = np.resize(order, self.total_size)  # begins again at the end
        return iter(order[self.rank :: self.num_replicas].tolist())


class MNISTDataModule(pl.LightningDataModule):
    """MNIST, FashionMNIST or KMNIST from memory: inputs float32 `(B, 1, 28, 28)` in [0, 1], targets int64 `(B,)`.

    Training data are shuffled anew in each epoch, from the global seed (`seed_everything`); the test set is never
    trained on. Under several processes each sees its own part.

    Args:
        data_dir: Folder of the files, in torchvision's layout; they are fetched if they are not there.
        dataset: Which data set.
        batch_size: Samples a step, in each process.
        eval_batch_size: Samples at once in validation, test and prediction, in each process. No result depends on it:
            without gradients there is room for more, and the fewer batches, the less each of them costs.
        val_fraction: Share of the training file that is held out for validation.
        split: `last` holds out the end of the training file, `random` a random part that depends on the global seed.
        train_samples: Train on this many samples only, the first of the training part.
        random_labels: Replace the training labels by uniformly random ones; validation and test keep theirs.
        predict_dir: Folder of PNG or JPEG images for `predict`, light on dark as in MNIST, of any size. The test set
            if not given.
        num_workers: Worker processes of the data loaders. The data are in memory: more than 0 only costs time.

    Raises:
        UsageError: An argument is out of range.
    """

    def __init__(
        self,
        data_dir: str = "data",
        dataset: DatasetName = "MNIST",
        batch_size: int = 128,
        eval_batch_size: int = 1024,
        val_fraction: float = 0.2,
        split: SplitName = "last",
        train_samples: int | None = None,
        random_labels: bool = False,
        predict_dir: str | None = None,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        if dataset not in CLASSES:
            raise UsageError(f"dataset={dataset} is not known: choose one of {', '.join(CLASSES)}")
        if split not in get_args(SplitName):
            raise UsageError(f"split={split} is not known: choose one of {', '.join(get_args(SplitName))}")
        if batch_size < 1:
            raise UsageError(f"batch_size={batch_size} is too small: give at least 1")
        if eval_batch_size < 1:
            raise UsageError(f"eval_batch_size={eval_batch_size} is too small: give at least 1")
        if not 0 < val_fraction < 1:
            raise UsageError(f"val_fraction={val_fraction} is out of range: give a share between 0 and 1, such as 0.2")
        if train_samples is not None and train_samples < 1:
            raise UsageError(f"train_samples={train_samples} is too small: give at least 1, or leave it out for all")
        if num_workers < 0:
            raise UsageError(f"num_workers={num_workers} is negative: give 0 or more")
        self.data_dir = Path(data_dir).expanduser()
        self.dataset = dataset
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.val_fraction = val_fraction
        self.split = split
        self.train_samples = train_samples
        self.random_labels = random_labels
        self.predict_dir = None if predict_dir is None else Path(predict_dir).expanduser()
        self.num_workers = num_workers
        self.classes = CLASSES[dataset]
        self.num_classes = len(self.classes)
        self.predict_names: list[str] = []
        self._files: dict[str, InMemoryDataset] = {}
        self._parts: dict[str, InMemoryDataset] = {}
        self.save_hyperparameters(logger=False)  # for the checkpoint; the run's own record goes to the logger

    def prepare_data(self) -> None:
        """Fetches and verifies the files; Lightning calls it in one process per node."""
        if self._files:
            return  # read already, and verified before that
        if self.predict_dir is not None and self.trainer is not None and self.trainer.predicting:
            return  # a folder of one's own needs no MNIST
        download.ensure(self.dataset, self.data_dir)

    def setup(self, stage: str | None = None) -> None:
        """Reads what a stage needs and splits it. A second call reads nothing again.

        Args:
            stage: `fit`, `validate`, `test` or `predict`; everything if not given.

        Raises:
            UsageError: The split, `train_samples`, `batch_size` or `predict_dir` does not suit the data.
        """
        if stage in ("fit", "validate", None):
            self._split(self._file("train"))
        if stage in ("test", None):
            self._parts["test"] = self._file("t10k")
        if stage in ("predict", None):
            if self.predict_dir is None:
                self._parts["predict"] = self._file("t10k")
                self.predict_names = [str(index) for index in range(len(self._parts["predict"]))]
            else:
                images, self.predict_names = read_images(self.predict_dir)
                self._parts["predict"] = InMemoryDataset(images.unsqueeze(1), torch.full((len(images),), NO_LABEL))

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Batch]:
        return self._loader("predict")

    def _file(self, part: str) -> InMemoryDataset:
        if part not in self._files:
            raw = self.data_dir / self.dataset / "raw"
            images = torch.from_numpy(download.read_idx(raw / f"{part}-images-idx3-ubyte"))
            labels = torch.from_numpy(download.read_idx(raw / f"{part}-labels-idx1-ubyte"))
            self._files[part] = InMemoryDataset(images.unsqueeze(1), labels.long())
        return self._files[part]

    def _split(self, file: InMemoryDataset) -> None:
        held_out = round(len(file) * self.val_fraction)
        available = len(file) - held_out
        if held_out == 0 or available == 0:
            raise UsageError(
                f"val_fraction={self.val_fraction} of {len(file)} samples leaves {available} to train on and "
                f"{held_out} to validate on: give a share that leaves some of both"
            )
        if self.train_samples is not None and self.train_samples > available:
            raise UsageError(f"train_samples={self.train_samples} exceeds the {available} there are: give fewer")
        count = self.train_samples or available
        if self.batch_size > count:
            raise UsageError(f"batch_size={self.batch_size} exceeds the {count} training samples: give a smaller one")
        images, labels = file.images, file.labels
        if self.split == "random":
            order = torch.from_numpy(random_generator("split", global_seed()).permutation(len(file)))
            images, labels = images[order], labels[order]
        train_labels = labels[:count]
        if self.random_labels:
            drawn = random_generator("labels", global_seed()).integers(self.num_classes, size=count)
            train_labels = torch.from_numpy(drawn)
        self._parts["train"] = InMemoryDataset(images[:count], train_labels)
        self._parts["val"] = InMemoryDataset(images[available:], labels[available:])

    def _loader(self, part: str) -> DataLoader[Batch]:
        # Lightning advises more workers, which only cost time where the data are in memory.
        warnings.filterwarnings("ignore", message=r"The '\w+_dataloader' does not have many workers")
        dataset = self._parts[part]
        trainer = self.trainer
        sampler = EpochSampler(
            dataset,
            world_size=1 if trainer is None else trainer.world_size,
            rank=0 if trainer is None else trainer.global_rank,
            shuffle=part == "train",
            seed=global_seed(),
        )
        return DataLoader(
            dataset,
            batch_size=self.batch_size if part == "train" else self.eval_batch_size,
            sampler=sampler,
            collate_fn=_as_it_is,  # `__getitems__` returns a whole batch
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )


def global_seed() -> int:
    """The one seed of a run: what Lightning's `seed_everything` was given, 0 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", "0"))


def random_generator(purpose: str, seed: int, epoch: int = 0) -> np.random.Generator:
    """A stream of its own for every purpose, seed and epoch; adding seed and epoch would give two of them the same."""
    return np.random.default_rng([*purpose.encode(), seed, epoch])


def read_images(folder: Path) -> tuple[Tensor, list[str]]:
    """Reads every PNG and JPEG of a folder as MNIST would have it: grey, 28 x 28.

    Args:
        folder: Its files in the order of their names; hidden files and folders in it are left out.

    Returns:
        Bytes of shape `(N, 28, 28)` and the N file names.

    Raises:
        UsageError: There is no such folder, it holds no image, or a file in it is not one.
    """
    if not folder.is_dir():
        raise UsageError(f"predict_dir={folder} is not a folder: give one that holds PNG or JPEG images")
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise UsageError(f"predict_dir={folder} is empty: give a folder that holds PNG or JPEG images")
    return torch.stack([_read_image(path) for path in paths]), [path.name for path in paths]


def _read_image(path: Path) -> Tensor:
    from PIL import Image, ImageOps

    try:
        with Image.open(path, formats=("PNG", "JPEG")) as opened:
            image: Image.Image = opened
            if image.mode == "I;16":  # Pillow would clip 16-bit grey, not scale it
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            image = ImageOps.exif_transpose(image)  # phones store which way is up beside the picture
            black = Image.new("RGBA", image.size, "black")  # behind what is transparent
            grey = Image.alpha_composite(black, image.convert("RGBA")).convert("L")
            return torch.from_numpy(np.array(grey.resize((28, 28))))
    except (OSError, SyntaxError) as error:  # what Pillow raises for files that are not images, or broken ones
        raise UsageError(f"predict_dir: {path} is not a PNG or JPEG image: remove it") from error


def _as_it_is(batch: Any) -> Any:
    return batch
