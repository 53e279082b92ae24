"""MNIST and its sisters as a LightningDataModule."""

from pathlib import Path
from typing import Literal, get_args

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lesson import download
from unstall import InMemoryDataset, UsageError, global_seed, in_memory_loader, random_generator, read_images

Batch = tuple[Tensor, Tensor]
DatasetName = Literal["MNIST", "FashionMNIST", "KMNIST"]
SplitName = Literal["last", "random"]

CLASSES = {
    "MNIST": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
    "FashionMNIST": [
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
    ],
    "KMNIST": ["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
}

NO_LABEL = -1  # the target of an image that comes without one


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
        for argument, name, known in ("dataset", dataset, CLASSES), ("split", split, get_args(SplitName)):
            if name not in known:
                raise UsageError(f"{argument}={name} is not known: choose one of {', '.join(known)}")
        for argument, size in ("batch_size", batch_size), ("eval_batch_size", eval_batch_size):
            if size < 1:
                raise UsageError(f"{argument}={size} is too small: give at least 1")
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
        size = self.batch_size if part == "train" else self.eval_batch_size
        return in_memory_loader(self._parts[part], size, part == "train", self.trainer, self.num_workers)
