"""The right samples of the right file, split and labelled as asked for."""

import copy
import inspect
import pickle
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torchvision.datasets
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchvision.transforms.functional import to_tensor

from conftest import MakeMNIST
from lesson.datamodule import MNISTDataModule
from unstall import EpochSampler, InMemoryDataset, UsageError, read_images


def ready(data_dir: Path, stage: str | None = "fit", **arguments: Any) -> MNISTDataModule:
    data = MNISTDataModule(str(data_dir), **arguments)
    data.prepare_data()
    data.setup(stage)
    return data


def collect(loader: Any) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*loader, strict=True)
    return torch.cat(inputs), torch.cat(targets)


def original(data_dir: Path, train: bool) -> tuple[Tensor, Tensor]:
    """The same set through torchvision, one sample at a time."""
    samples = [(to_tensor(image), label) for image, label in torchvision.datasets.MNIST(data_dir, train=train)]
    return torch.stack([image for image, _ in samples]), torch.tensor([label for _, label in samples])


def sample_set(samples: Tensor) -> set[bytes]:
    """Generated images are noise: no two are the same."""
    return {sample.numpy().tobytes() for sample in samples}


# --- what the batches hold ---


def test_batches_hold_what_torchvision_gives(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir, None)
    images, labels = original(tiny_mnist_dir, train=True)
    inputs, targets = collect(data.val_dataloader())
    assert torch.equal(inputs, images[480:])
    assert torch.equal(targets, labels[480:])
    test_images, test_labels = original(tiny_mnist_dir, train=False)
    for loader in data.test_dataloader(), data.predict_dataloader():
        inputs, targets = collect(loader)
        assert torch.equal(inputs, test_images)
        assert torch.equal(targets, test_labels)
    inputs, targets = collect(data.train_dataloader())
    label_of = {image.numpy().tobytes(): int(label) for image, label in zip(images[:480], labels[:480], strict=True)}
    assert {image.numpy().tobytes(): int(label) for image, label in zip(inputs, targets, strict=True)} == label_of


def test_shapes_types_and_a_smaller_last_batch(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir, batch_size=100)
    batches = list(data.train_dataloader())
    assert [len(inputs) for inputs, _ in batches] == [100, 100, 100, 100, 80]
    assert len(data.train_dataloader()) == 5
    inputs, targets = batches[0]
    assert inputs.shape == (100, 1, 28, 28)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert inputs.min() >= 0
    assert inputs.max() == 1


def test_one_sample_is_a_row_of_the_batch(tiny_mnist_dir: Path) -> None:
    dataset = ready(tiny_mnist_dir).train_dataloader().dataset
    assert isinstance(dataset, InMemoryDataset)
    inputs, targets = dataset.__getitems__([3, 1])
    image, label = dataset[1]
    assert image.shape == (1, 28, 28)
    assert torch.equal(image, inputs[1])
    assert label == targets[1]


def test_a_worker_process_delivers_the_same(tiny_mnist_dir: Path) -> None:
    alone, with_worker = (collect(ready(tiny_mnist_dir, num_workers=n).train_dataloader()) for n in (0, 1))
    assert torch.equal(alone[0], with_worker[0])
    assert torch.equal(alone[1], with_worker[1])


@pytest.mark.parametrize("dataset", ["MNIST", "FashionMNIST", "KMNIST"])
def test_classes_are_named(make_mnist: MakeMNIST, tmp_path: Path, dataset: Any) -> None:
    data = ready(make_mnist(tmp_path, dataset=dataset), dataset=dataset)
    assert data.num_classes == len(set(data.classes)) == 10
    theirs = getattr(torchvision.datasets, dataset).classes
    assert data.classes == [name.split(" - ")[0] for name in theirs]


# --- splits ---


@pytest.mark.parametrize("split", ["last", "random"])
def test_split_is_disjoint_and_complete(tiny_mnist_dir: Path, split: Any) -> None:
    data = ready(tiny_mnist_dir, split=split, val_fraction=0.25)
    train, _ = collect(data.train_dataloader())
    val, _ = collect(data.val_dataloader())
    assert (len(train), len(val)) == (450, 150)
    assert len(sample_set(train) | sample_set(val)) == 600
    images, _ = original(tiny_mnist_dir, train=True)
    assert (sample_set(val) == sample_set(images[450:])) == (split == "last")


def test_random_split_follows_the_seed(tiny_mnist_dir: Path) -> None:
    held_out = []
    for seed in (1, 2, 1):
        pl.seed_everything(seed, verbose=False)
        held_out.append(sample_set(collect(ready(tiny_mnist_dir, split="random").val_dataloader())[0]))
    assert held_out[0] == held_out[2]
    assert held_out[0] != held_out[1]


def test_evaluation_has_a_batch_size_of_its_own(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir, None, batch_size=8, eval_batch_size=50)
    assert len(next(iter(data.train_dataloader()))[0]) == 8
    for loader in (data.val_dataloader(), data.test_dataloader(), data.predict_dataloader()):
        assert len(next(iter(loader))[0]) == 50


def test_real_split_is_the_notebooks(mnist_dir: Path) -> None:
    data = ready(mnist_dir)
    assert (len(data.train_dataloader()), len(data.val_dataloader())) == (375, 12)
    _, targets = collect(data.val_dataloader())
    assert torch.equal(targets, torchvision.datasets.MNIST(mnist_dir, train=True).targets[48_000:])


def test_train_samples_are_the_first(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir, train_samples=130)
    images, _ = original(tiny_mnist_dir, train=True)
    assert sample_set(collect(data.train_dataloader())[0]) == sample_set(images[:130])
    assert len(collect(data.val_dataloader())[0]) == 120


def test_random_labels_touch_nothing_but_training_labels(tiny_mnist_dir: Path) -> None:
    def targets(seed: int, random_labels: bool) -> tuple[Tensor, Tensor, Tensor]:
        pl.seed_everything(seed, verbose=False)
        data = ready(tiny_mnist_dir, None, random_labels=random_labels)
        train = data.train_dataloader().dataset
        assert isinstance(train, InMemoryDataset)
        return train.labels, collect(data.val_dataloader())[1], collect(data.test_dataloader())[1]

    plain, drawn, again, other = targets(0, False), targets(0, True), targets(0, True), targets(1, True)
    assert torch.equal(drawn[0], again[0])
    assert not torch.equal(drawn[0], other[0])
    assert set(drawn[0].tolist()) == set(range(10))
    # uniform labels agree with the true ones in one of ten cases: 48 of 480, standard deviation 6.6
    assert 20 < int((drawn[0] == plain[0]).sum()) < 80
    for of_plain, of_drawn in zip(plain[1:], drawn[1:], strict=True):
        assert torch.equal(of_plain, of_drawn)


def test_test_file_is_not_even_read_for_training(make_mnist: MakeMNIST, tmp_path: Path) -> None:
    data = MNISTDataModule(str(make_mnist(tmp_path)))
    for file in (tmp_path / "MNIST" / "raw").glob("t10k*"):
        file.unlink()
    data.setup("fit")
    assert len(collect(data.train_dataloader())[0]) == 480


def test_setup_again_reads_nothing(make_mnist: MakeMNIST, tmp_path: Path) -> None:
    data = ready(make_mnist(tmp_path), None)
    before = collect(data.val_dataloader())[0]
    for file in (tmp_path / "MNIST" / "raw").iterdir():
        file.unlink()
    for stage in "fit", "validate", "test", "predict":
        data.setup(stage)
    assert torch.equal(collect(data.val_dataloader())[0], before)


def test_copies_deliver_the_same(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir)
    expected = collect(data.train_dataloader())[0]
    for twin in copy.deepcopy(data), pickle.loads(pickle.dumps(data)):
        assert torch.equal(collect(twin.train_dataloader())[0], expected)
        assert twin.hparams == data.hparams


# --- order ---


def order(length: int, seed: int, epoch: int) -> list[int]:
    dataset: Any = TensorDataset(torch.empty(length))
    sampler = EpochSampler(dataset, world_size=1, rank=0, shuffle=True, seed=seed)
    sampler.set_epoch(epoch)
    return list(sampler)


class Recorder(pl.LightningModule):
    """Remembers the batches that Lightning feeds it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(784, 10)
        self.seen: dict[int, list[Tensor]] = {}

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        inputs, targets = batch
        self.seen.setdefault(self.current_epoch, []).append(inputs)
        return nn.functional.cross_entropy(self.layer(inputs.flatten(1)), targets)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("samples", float(len(batch[0])), reduce_fx="sum")

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return batch[0]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)


def trainer(folder: Path, epochs: int = 1, **arguments: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **arguments,
    )


def test_lightning_sees_a_new_order_each_epoch_and_a_resumed_run_the_same(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    pl.seed_everything(7, verbose=False)
    whole = Recorder()
    trainer(tmp_path, 4).fit(whole, datamodule=MNISTDataModule(str(tiny_mnist_dir)))
    images, _ = original(tiny_mnist_dir, train=True)
    for epoch in range(4):
        expected = torch.split(images[order(480, 7, epoch)], 128)
        assert all(torch.equal(*pair) for pair in zip(whole.seen[epoch], expected, strict=True))

    killed, resumed = Recorder(), Recorder()
    first = trainer(tmp_path, 2)
    first.fit(killed, datamodule=MNISTDataModule(str(tiny_mnist_dir)))
    first.save_checkpoint(tmp_path / "last.ckpt")
    second = MNISTDataModule(str(tiny_mnist_dir))
    trainer(tmp_path, 4).fit(resumed, datamodule=second, ckpt_path=str(tmp_path / "last.ckpt"))
    assert list(resumed.seen) == [2, 3]
    for epoch in resumed.seen:
        assert torch.equal(torch.cat(resumed.seen[epoch]), torch.cat(whole.seen[epoch]))


def test_lightning_validates_on_every_sample_once(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    (metrics,) = trainer(tmp_path).validate(Recorder(), datamodule=MNISTDataModule(str(tiny_mnist_dir)), verbose=False)
    assert metrics == {"samples": 120}


def test_overfitting_some_batches_repeats_them(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    model = Recorder()
    with pytest.warns(UserWarning, match="requested to overfit"):
        trainer(tmp_path, 2, overfit_batches=2).fit(model, datamodule=MNISTDataModule(str(tiny_mnist_dir)))
    assert torch.equal(torch.cat(model.seen[0]), torch.cat(model.seen[1]))
    assert sum(map(len, model.seen[0])) == 256


# --- predict ---


def test_predicting_the_test_set(tiny_mnist_dir: Path, tmp_path: Path) -> None:
    data = MNISTDataModule(str(tiny_mnist_dir), batch_size=32)
    predictions: Any = trainer(tmp_path).predict(Recorder(), datamodule=data)
    assert torch.equal(torch.cat(predictions), original(tiny_mnist_dir, train=False)[0])
    assert data.predict_names == [str(index) for index in range(100)]


def test_predicting_a_folder_needs_no_mnist(tmp_path: Path) -> None:
    image_dir = tmp_path / "images"
    image_dir.mkdir()
    for value in range(8):
        Image.new("L", (56, 56), 30 * value).save(image_dir / f"{value}.png")
    data = MNISTDataModule(str(tmp_path / "nothing"), predict_dir=str(image_dir), eval_batch_size=3)
    predictions: Any = trainer(tmp_path).predict(Recorder(), datamodule=data)
    assert [len(batch) for batch in predictions] == [3, 3, 2]
    assert torch.equal(torch.cat(predictions), (read_images(image_dir)[0] / 255).unsqueeze(1))
    assert [int(255 * sample.max() + 0.5) for batch in predictions for sample in batch] == list(range(0, 240, 30))
    assert data.predict_names == [f"{value}.png" for value in range(8)]
    assert not (tmp_path / "nothing").exists()


# --- arguments ---


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("dataset", "EMNIST"),
        ("split", "first"),
        ("batch_size", 0),
        ("eval_batch_size", 0),
        ("val_fraction", 0.0),
        ("val_fraction", 1.0),
        ("val_fraction", float("nan")),
        ("train_samples", 0),
        ("num_workers", -1),
    ],
)
def test_bad_arguments_are_refused_at_once(argument: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{argument}={value} .*: "):
        MNISTDataModule(**{argument: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 481}, "batch_size=481 exceeds the 480 training samples"),
        ({"batch_size": 101, "train_samples": 100}, "batch_size=101 exceeds the 100 training samples"),
        ({"train_samples": 481}, "train_samples=481 exceeds the 480"),
        ({"val_fraction": 0.0001}, "leaves 600 to train on and 0 to validate on"),
        ({"val_fraction": 0.9999}, "leaves 0 to train on and 600 to validate on"),
    ],
)
def test_arguments_that_do_not_suit_the_data_are_refused_before_training(
    tiny_mnist_dir: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ready(tiny_mnist_dir, **arguments)


def test_as_many_samples_as_there_are_is_allowed(tiny_mnist_dir: Path) -> None:
    assert len(ready(tiny_mnist_dir, train_samples=480, batch_size=480).train_dataloader()) == 1


def test_hyperparameters_are_plain_values(tiny_mnist_dir: Path) -> None:
    data = ready(tiny_mnist_dir, None)
    assert data.hparams["val_fraction"] == 0.2
    assert all(isinstance(value, bool | int | float | str | None) for value in data.hparams.values())
    assert set(data.hparams) == set(inspect.signature(MNISTDataModule).parameters)
