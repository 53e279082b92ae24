"""What `throughput.py` times, each in a process of its own: `python benchmarks/contenders.py ours 10`.

Keras is in `keras_contender.py`.
"""

import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.profilers import Profiler
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

import unstall
from lesson.datamodule import MNISTDataModule
from lesson.network import MLP
from lesson.optimizer import KerasRMSprop
from measuring import MNIST_FOLDER, median_seconds
from turns import BATCH, EVAL_BATCH, HIDDEN, TRAIN, VAL, gate

OURS = partial(KerasRMSprop, lr=1e-2)
TORCHS = partial(torch.optim.RMSprop, lr=1e-2, alpha=0.9, eps=1e-7)
"""With Keras's constants, as in the base config."""


class First(pl.Callback):
    """Comes before all other callbacks, wherever the command line puts it."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        callbacks = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets them without declaring them
        trainer.callbacks = [self, *(other for other in callbacks if other is not self)]  # type: ignore[attr-defined]


class Turns(First):
    """Waits for its turn before each epoch."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gate().turn()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        gate().end(float(trainer.callback_metrics["val/accuracy"]))


class FirstStep(First):
    """Says when the first step begins, and ends there."""

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        gate().send(first_step=time.time())
        os._exit(0)


PARTS = {
    "Diagnosis": "the diagnosis",
    "History": "TensorBoard and CSV",
    "Curves": "TensorBoard and CSV",
    "[Callback]": "progress bar, checkpoints, other hooks",
    "_next": "batches",
    "ing_step": "forward pass, loss, means",
    "validation_step": "forward pass, loss, means",
    ".backward": "backward pass",
    ".optimizer_step": "the optimizer",
}
"""Part of a step by what the name of a profiled action contains, the first that fits; all else is `OWN`."""
OWN = "the loop's own"


class Stopwatch(Profiler):
    """Where the seconds go, in Lightning's place for profilers."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self.running = [OWN]
        self.since = time.perf_counter()
        self.callbacks = [PARTS[name] for name in ("Diagnosis", "History", "[Callback]")]

    def start(self, action_name: str) -> None:
        fitting = (part for fragment, part in PARTS.items() if fragment in action_name)
        outer = self.running[-1]
        self.read()
        # Whatever a callback has done for itself is the callback's.
        self.running.append(outer if outer in self.callbacks else next(fitting, OWN))

    def stop(self, action_name: str) -> None:
        self.read()
        self.running.pop()

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """Count a logger's call as the callback's that writes tables."""

        def with_stopwatch(*given: Any, **named: Any) -> Any:
            with self.profile("[Callback]History, by way of a logger"):
                return call(*given, **named)

        return with_stopwatch

    def read(self) -> dict[str, float]:
        """Return the seconds of each part up to now."""
        now = time.perf_counter()
        self.seconds[self.running[-1]] = self.seconds.get(self.running[-1], 0.0) + now - self.since
        self.since = now
        return dict(self.seconds)


class Shares(First):
    """Sends what the stopwatch read over all epochs but the first: seconds an epoch, and microseconds a step.

    Of the steps it is what passes from the start of an epoch to its validation.
    """

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.watch: Stopwatch = trainer.profiler  # type: ignore[attr-defined]
            self.training: Counter[str] = Counter()
            for logger in trainer.loggers:
                for name in ("log_metrics", "save"):
                    setattr(logger, name, self.watch.timed(getattr(logger, name)))
            self.watch.seconds.clear()
        if trainer.current_epoch:
            self.began = self.watch.read()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch:
            self.training.update({part: now - self.began.get(part, 0.0) for part, now in self.watch.read().items()})

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        epochs = trainer.current_epoch - 1
        gate().send(
            shares={part: seconds / epochs for part, seconds in self.watch.seconds.items()},
            step=a_step(self.training, epochs),
        )


def a_step(seconds: Mapping[str, float], epochs: int) -> dict[str, float]:
    """Microseconds of a step, by part."""
    return {part: 1e6 * spent / epochs / (TRAIN // BATCH) for part, spent in seconds.items()}


def fit(*options: str, epochs: int) -> None:
    """`unstall fit` with the base config."""
    with tempfile.TemporaryDirectory() as folder:
        places = [f"--data.data_dir={MNIST_FOLDER}", f"--logs_dir={folder}", "--trainer.accelerator=cpu"]
        unstall.run(["fit", "-c", "configs/mnist.yaml", *places, f"--trainer.max_epochs={epochs}", *options])


def medium(epochs: int) -> None:
    """Ours, with the products' inputs rounded to bfloat16 where the CPU can do that."""
    torch.set_float32_matmul_precision("medium")
    fit("--trainer.callbacks+=contenders.Turns", epochs=epochs)


def bare(epochs: int, make_optimizer: Callable[..., torch.optim.Optimizer] = OURS) -> None:
    """The same arithmetic without a framework: the same tensors, batches by index, the same means."""
    torch.manual_seed(0)
    data = MNISTDataModule(data_dir=str(MNIST_FOLDER))
    data.setup("fit")
    train, val = data.train_dataloader().dataset, data.val_dataloader().dataset
    network = MLP([784, HIDDEN, 10])
    optimizer = make_optimizer(network.parameters())
    accuracy = 0.0
    for _ in range(epochs):
        gate().turn()
        train_bare(network, optimizer, train, unstall.NoProfiler())
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
        with torch.no_grad():
            for chosen in torch.arange(VAL).split(EVAL_BATCH):  # type: ignore[no-untyped-call]
                labels = val.labels.index_select(0, chosen)  # type: ignore[attr-defined]
                logits = network(val.images.index_select(0, chosen) / 255)  # type: ignore[attr-defined]
                loss_sum += F.cross_entropy(logits, labels) * len(labels)
                hits += (logits.argmax(dim=1) == labels).sum()
        accuracy = float(hits) / VAL
    gate().end(accuracy)


def train_bare(network: nn.Module, optimizer: torch.optim.Optimizer, train: Any, profiler: Profiler) -> None:
    """An epoch without a framework."""
    loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
    for chosen in torch.randperm(TRAIN).split(BATCH):  # type: ignore[no-untyped-call]
        with profiler.profile("dataloader_next"):
            labels = train.labels.index_select(0, chosen)
            images = train.images.index_select(0, chosen) / 255
        with profiler.profile("training_step"):
            logits = network(images)
            loss = F.cross_entropy(logits, labels)
        with profiler.profile(".optimizer_step"):
            optimizer.zero_grad()
        with profiler.profile(".backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with profiler.profile(".optimizer_step"):
            optimizer.step()
        with profiler.profile("training_step"):
            loss_sum += loss.detach() * len(labels)
            hits += (logits.argmax(dim=1) == labels).sum()


def bare_shares(epochs: int) -> None:
    """Microseconds of a step of the bare loop, by part, over all epochs but the first."""
    torch.manual_seed(0)
    data = MNISTDataModule(data_dir=str(MNIST_FOLDER))
    data.setup("fit")
    network = MLP([784, HIDDEN, 10])
    optimizer, watch, train = OURS(network.parameters()), Stopwatch(), data.train_dataloader().dataset
    for epoch in range(epochs):
        if epoch == 1:
            watch.read()
            watch.seconds.clear()
        train_bare(network, optimizer, train, watch)
    gate().send(step=a_step(watch.read(), epochs - 1))


class Tutorial(pl.LightningModule):
    """What tutorials show, with this lesson's network and optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Flatten(), nn.Linear(784, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 10))

    def step(self, batch: tuple[Tensor, Tensor], stage: str) -> Tensor:
        logits = self.network(batch[0])
        loss = F.cross_entropy(logits, batch[1])
        accuracy = (logits.argmax(1) == batch[1]).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return TORCHS(self.parameters())


def torchvision(epochs: int) -> None:
    """Lightning with torchvision's data set and transform."""
    from torchvision.datasets import MNIST  # takes seconds, which are not ours
    from torchvision.transforms import ToTensor

    warnings.simplefilter("ignore")
    images = MNIST(str(MNIST_FOLDER), train=True, transform=ToTensor())
    train = DataLoader(Subset(images, range(TRAIN)), BATCH, shuffle=True)
    val = DataLoader(Subset(images, range(TRAIN, TRAIN + VAL)), EVAL_BATCH)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_epochs=epochs,
            default_root_dir=folder,
            accelerator="cpu",
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Turns()],
        )
        trainer.fit(Tutorial(), train, val)


def ceiling(epochs: int) -> None:
    """The machine's rate for the largest product of a step: numbers, no turns."""
    left, right = torch.randn(BATCH, 784), torch.randn(784, HIDDEN)
    seconds = median_seconds(lambda: torch.mm(left, right), 300)
    gate().send(gflops=2e-9 * BATCH * 784 * HIDDEN / seconds)


def racing(epochs: int) -> None:
    """Seconds of K rates in one race over those of K races of one rate, 100 steps each."""
    from lesson.module import LitClassifier  # with the command line's parser, which the bare loops do without

    data = MNISTDataModule(data_dir=str(MNIST_FOLDER))
    data.setup("fit")
    batches = list(islice(data.train_dataloader(), 100))
    module = LitClassifier(MLP([784, HIDDEN, 10]), OURS)
    variants = [unstall.Variant(learning_rate=10 ** (-4 + rank / 2)) for rank in range(8)]
    unstall.race(module, variants[:1], batches)
    rows = []
    for count in (1, 2, 4, 8):
        ratios = []
        for _ in range(3):
            began = time.perf_counter()
            unstall.race(module, variants[:count], batches)
            middle = time.perf_counter()
            for variant in variants[:count]:
                unstall.race(module, [variant], batches)
            ratios.append((middle - began, time.perf_counter() - middle))
        seconds, ratio = median(a for a, _ in ratios), median(a / b for a, b in ratios)
        rows.append({"rates": count, "seconds": seconds, "ratio": ratio})
    gate().send(race=rows)


OFF = [f"--trainer.{part}=false" for part in ("logger", "enable_checkpointing", "enable_progress_bar")]
RUNS: dict[str, Callable[..., None]] = {
    "ours": partial(fit, "--trainer.callbacks+=contenders.Turns"),
    "no_callbacks": partial(fit, "--trainer.callbacks=contenders.Turns", *OFF),
    "medium": medium,
    "bare": bare,
    "bare_torch": partial(bare, make_optimizer=TORCHS),
    "torchvision": torchvision,
    "first_step": partial(fit, "--trainer.callbacks+=contenders.FirstStep"),
    "shares": partial(fit, "--trainer.callbacks+=contenders.Shares", "--trainer.profiler=contenders.Stopwatch"),
    "empty_shares": partial(
        fit, "--trainer.callbacks=contenders.Shares", "--trainer.profiler=contenders.Stopwatch", *OFF
    ),
    "bare_shares": bare_shares,
    "ceiling": ceiling,
    "race": racing,
}

if __name__ == "__main__":
    gate()
    name, epochs, *options = sys.argv[1:]
    if name != "torchvision":  # tutorials leave denormal numbers alone
        torch.set_flush_denormal(True)
    RUNS[name](*options, epochs=int(epochs))
