"""How long an epoch takes, beside what people would use instead, all in one run.

    python benchmarks/throughput.py --keras_python=/path/to/an/environment/with/keras

Every contender is a process of its own, so that no thread pool disturbs another's. All are started first and then
take turns, an epoch each, while the others wait: what slows the machine down slows all of them. MNIST, 784-512-10
with Keras's RMSprop (rate 1e-2), batch 128, 48,000 samples trained and 12,000 validated (1,024 at once) per epoch.
Ours draws its progress bar as in a terminal; the others' bars are off. A contender that is not installed is left out.

Writes benchmarks/throughput.json, docs/speed.png and the tables of docs/speed.md. Run it alone: about ten minutes.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "mnist.yaml"
TRAIN, VAL, BATCH, EVAL_BATCH, HIDDEN = 48_000, 12_000, 128, 1024, 512
MARKS = "<!-- tables: benchmarks/throughput.py -->", "<!-- end of tables -->"

CONTENDERS = {
    "ours": "`unstall fit`, everything on",
    "no_callbacks": "... without any callback or logger",
    "medium": "... with products in bfloat16 (`torch.set_float32_matmul_precision('medium')`)",
    "bare": "a bare PyTorch loop, the same tensors and optimizer",
    "bare_torch": "a bare loop with `torch.optim.RMSprop`",
    "torchvision": "Lightning, torchvision's `MNIST`, `ToTensor`, `DataLoader`",
    "keras_tensorflow": "Keras on TensorFlow",
    "keras_jax": "Keras on JAX",
}
NEEDS = {"keras_tensorflow": ("keras", "tensorflow"), "keras_jax": ("keras", "jax")}


class Gate:
    """A contender's side: waits for its turn before an epoch, and says how long the last one took."""

    def __init__(self) -> None:
        self.channel = os.fdopen(os.dup(1), "w")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        self.started: float | None = None

    def send(self, **message: Any) -> None:
        print(json.dumps(message), file=self.channel, flush=True)

    def turn(self) -> None:
        if self.started is not None:
            self.send(seconds=time.perf_counter() - self.started)
        else:
            self.send(ready=True)
        sys.stdin.readline()
        self.started = time.perf_counter()

    def end(self, accuracy: float) -> None:
        assert self.started is not None
        seconds = time.perf_counter() - self.started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts in kB
        self.send(seconds=seconds, accuracy=accuracy, peak_gb=peak)


def fit(gate: Gate, epochs: int, *options: str, without: tuple[str, ...] = (), only_first_step: bool = False) -> None:
    """`unstall fit` with the base config and a gate before each epoch."""
    import pytorch_lightning as pl
    import torch
    import yaml

    torch.set_flush_denormal(True)
    from unstall.cli import CLI

    class Turns(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if not only_first_step:
                gate.turn()

        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if only_first_step:
                gate.send(first_step=time.time())
                os._exit(0)

        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            gate.end(float(trainer.callback_metrics["val/accuracy"]))

    class Gated(CLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.insert(0, Turns())  # type: ignore[attr-defined]

    config = yaml.safe_load(CONFIG.read_text())
    callbacks = config["trainer"]["callbacks"]
    kept = [callback for callback in callbacks if callback["class_path"].rpartition(".")[2] not in without]
    config["trainer"]["callbacks"] = [] if without == ("*",) else kept
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(yaml.safe_dump(config))
        places = [f"--data.data_dir={ROOT / 'data'}", f"--logs_dir={folder}", "--trainer.accelerator=cpu"]
        Gated(["fit", f"--config={file}", *places, f"--trainer.max_epochs={epochs}", *options])


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
"""Part of a step by what the name of a profiled action contains, the first that fits; all else is Lightning's own."""


def shares(gate: Gate, epochs: int) -> None:
    """Where the seconds of ours go, by a stopwatch in Lightning's place for profilers: no turns, no first epoch."""
    import pytorch_lightning as pl
    from pytorch_lightning.profilers import Profiler

    from unstall.cli import CLI

    class Stopwatch(Profiler):
        def __init__(self) -> None:
            super().__init__()
            self.seconds: dict[str, float] = {}
            self.running = ["Lightning's own"]
            self.since = time.perf_counter()

        def start(self, action_name: str) -> None:
            fitting = (part for fragment, part in PARTS.items() if fragment in action_name)
            outer = self.running[-1]
            self._change()
            # Whatever a callback has done for itself is the callback's.
            self.running.append(outer if outer in callbacks else next(fitting, "Lightning's own"))

        def stop(self, action_name: str) -> None:
            self._change()
            self.running.pop()

        def _change(self) -> None:
            now = time.perf_counter()
            self.seconds[self.running[-1]] = self.seconds.get(self.running[-1], 0.0) + now - self.since
            self.since = now

    class Watched(CLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.insert(0, Begin())  # type: ignore[attr-defined]
            self.trainer.profiler = watch  # type: ignore[attr-defined]
            for logger in self.trainer.loggers:
                for name in ("log_metrics", "save"):
                    setattr(logger, name, timed(getattr(logger, name)))

    class Begin(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            if trainer.current_epoch == 1:
                watch.seconds.clear()

        def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            gate.send(shares={part: seconds / (epochs - 1) for part, seconds in watch.seconds.items()})

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def with_stopwatch(*given: Any, **named: Any) -> Any:
            with watch.profile("[Callback]History, by way of a logger"):
                return call(*given, **named)

        return with_stopwatch

    callbacks = [PARTS[name] for name in ("Diagnosis", "History", "[Callback]")]
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        places = [f"--data.data_dir={ROOT / 'data'}", f"--logs_dir={folder}", "--trainer.accelerator=cpu"]
        Watched(["fit", f"--config={CONFIG}", *places, f"--trainer.max_epochs={epochs}"])


def bare(gate: Gate, epochs: int, own_optimizer: bool = True) -> None:
    """The same arithmetic without a framework: the same tensors, batches by index, the same means."""
    import torch
    import torch.nn.functional as F

    torch.set_flush_denormal(True)
    from unstall.data import MNISTDataModule
    from unstall.network import MLP
    from unstall.optimizer import KerasRMSprop

    torch.manual_seed(0)
    data = MNISTDataModule(data_dir=str(ROOT / "data"))
    data.setup("fit")
    train, val = data.train_dataloader().dataset, data.val_dataloader().dataset
    network = MLP([784, HIDDEN, 10])
    optimizer: torch.optim.Optimizer = KerasRMSprop(network.parameters(), lr=1e-2)
    if not own_optimizer:
        optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-2, alpha=0.9, eps=1e-7)
    accuracy = 0.0
    for _ in range(epochs):
        gate.turn()
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
        for chosen in torch.randperm(TRAIN).split(BATCH):  # type: ignore[no-untyped-call]
            labels = train.labels.index_select(0, chosen)  # type: ignore[attr-defined]
            logits = network(train.images.index_select(0, chosen) / 255)  # type: ignore[attr-defined]
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach() * len(labels)
            hits += (logits.argmax(dim=1) == labels).sum()
        loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
        with torch.no_grad():
            for chosen in torch.arange(VAL).split(EVAL_BATCH):  # type: ignore[no-untyped-call]
                labels = val.labels.index_select(0, chosen)  # type: ignore[attr-defined]
                logits = network(val.images.index_select(0, chosen) / 255)  # type: ignore[attr-defined]
                loss_sum += F.cross_entropy(logits, labels) * len(labels)
                hits += (logits.argmax(dim=1) == labels).sum()
        accuracy = float(hits) / VAL
    gate.end(accuracy)


def torchvision(gate: Gate, epochs: int) -> None:
    """What tutorials show, with this lesson's network and optimizer."""
    import warnings

    warnings.simplefilter("ignore")
    import pytorch_lightning as pl
    import torch
    import torch.nn.functional as F
    from torch import Tensor, nn
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import MNIST
    from torchvision.transforms import ToTensor

    class Model(pl.LightningModule):
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
            return torch.optim.RMSprop(self.parameters(), lr=1e-2, alpha=0.9, eps=1e-7)

    class Turns(pl.Callback):
        def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            gate.turn()

        def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            gate.end(float(trainer.callback_metrics["val/accuracy"]))

    images = MNIST(str(ROOT / "data"), train=True, transform=ToTensor())
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
        trainer.fit(Model(), train, val)


def train_keras(gate: Gate, epochs: int, backend: str) -> None:
    """The original lesson. Reads the files by itself: its environment may have neither torch nor this package."""
    os.environ |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    from importlib import import_module

    import numpy as np

    keras: Any = import_module("keras")

    raw = ROOT / "data" / "MNIST" / "raw"
    pixels = np.frombuffer((raw / "train-images-idx3-ubyte").read_bytes(), np.uint8, offset=16)
    labels = np.frombuffer((raw / "train-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    images = pixels.reshape(-1, 784).astype("float32") / 255
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((784,)), layers.Dense(HIDDEN, activation="relu"), layers.Dense(10, activation="softmax")]
    )
    optimizer = keras.optimizers.RMSprop(learning_rate=1e-2)
    model.compile(optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            gate.turn()

        def on_train_end(self, logs: Any = None) -> None:
            gate.end(model.history.history["val_accuracy"][-1])

    model.fit(
        images,
        labels,
        batch_size=BATCH,
        epochs=epochs,
        validation_split=0.2,
        validation_batch_size=EVAL_BATCH,
        verbose=0,
        callbacks=[Turns()],
    )


def medium(gate: Gate, epochs: int) -> None:
    """Ours, with the products' inputs rounded to bfloat16 where the CPU can do that."""
    import torch

    torch.set_float32_matmul_precision("medium")
    fit(gate, epochs)


def ceiling(gate: Gate, epochs: int) -> None:
    """The machine's rate for the largest product of a step, and for the whole race below: numbers, no turns."""
    import torch

    left, right = torch.randn(BATCH, 784), torch.randn(784, HIDDEN)
    seconds = _median_seconds(lambda: torch.mm(left, right), 300)
    gate.send(gflops=2e-9 * BATCH * 784 * HIDDEN / seconds)


def racing(gate: Gate, epochs: int) -> None:
    """Seconds of K rates in one race over those of K races of one rate, 100 steps each."""
    import torch

    torch.set_flush_denormal(True)
    from functools import partial
    from itertools import islice

    from unstall.classifier import LitClassifier
    from unstall.data import MNISTDataModule
    from unstall.network import MLP
    from unstall.optimizer import KerasRMSprop
    from unstall.race import Variant, race

    data = MNISTDataModule(data_dir=str(ROOT / "data"))
    data.setup("fit")
    batches = list(islice(data.train_dataloader(), 100))
    module = LitClassifier(MLP([784, HIDDEN, 10]), partial(KerasRMSprop, lr=1e-2))
    variants = [Variant(learning_rate=10 ** (-4 + rank / 2)) for rank in range(8)]
    race(module, variants[:1], batches)
    rows = []
    for count in (1, 2, 4, 8):
        ratios = []
        for _ in range(3):
            began = time.perf_counter()
            race(module, variants[:count], batches)
            middle = time.perf_counter()
            for variant in variants[:count]:
                race(module, [variant], batches)
            ratios.append((middle - began, time.perf_counter() - middle))
        rows.append(
            {"rates": count, "seconds": median(r[0] for r in ratios), "ratio": median(a / b for a, b in ratios)}
        )
    gate.send(race=rows)


RUNS: dict[str, Callable[[Gate, int], None]] = {
    "ours": fit,
    "no_callbacks": lambda gate, epochs: fit(
        gate,
        epochs,
        "--trainer.logger=false",
        "--trainer.enable_checkpointing=false",
        "--trainer.enable_progress_bar=false",
        without=("*",),
    ),
    "medium": medium,
    "bare": bare,
    "bare_torch": lambda gate, epochs: bare(gate, epochs, own_optimizer=False),
    "torchvision": torchvision,
    "keras_tensorflow": lambda gate, epochs: train_keras(gate, epochs, "tensorflow"),
    "keras_jax": lambda gate, epochs: train_keras(gate, epochs, "jax"),
    "first_step": lambda gate, epochs: fit(gate, epochs, only_first_step=True),
    "shares": lambda gate, epochs: shares(gate, 6),
    "ceiling": ceiling,
    "race": racing,
}


def _median_seconds(call: Callable[[], Any], times: int) -> float:
    def timed() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return median(timed() for _ in range(times))


def installed(name: str, python: str) -> bool:
    """Whether an interpreter has what a contender needs."""
    code = f"from importlib.util import find_spec as f; raise SystemExit(any(f(m) is None for m in {NEEDS[name]!r}))"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


class Contender:
    """The referee's side of one process."""

    def __init__(self, name: str, epochs: int, python: str = sys.executable, options: tuple[str, ...] = ()) -> None:
        self.name = name
        environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": "100"}  # rich then draws as if on a terminal
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self.process = subprocess.Popen(
            [python, __file__, "--contender", name, "--epochs", str(epochs), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
            cwd=ROOT,
        )

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.errors.seek(0)
            raise SystemExit(f"{self.name} failed:\n{self.errors.read()[-2000:]}")
        message: dict[str, Any] = json.loads(line)
        return message

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        self.errors.close()


def take_turns(contenders: list[Contender], epochs: int) -> dict[str, dict[str, Any]]:
    """Each contender's seconds per epoch, epoch by epoch in turn."""
    results: dict[str, dict[str, Any]] = {contender.name: {"seconds": []} for contender in contenders}
    for contender in contenders:
        contender.receive()
    for epoch in range(epochs):
        print(f"epoch {epoch + 1} of {epochs}", end="\r", file=sys.stderr, flush=True)
        shift = epoch % len(contenders)  # whoever follows a slow one gets a warm or a cold cache: let that change
        for contender in contenders[shift:] + contenders[:shift]:
            contender.go()
            message = contender.receive()
            results[contender.name]["seconds"].append(message.pop("seconds"))
            results[contender.name] |= message
    for contender in contenders:
        contender.finish()
    return results


def ask(name: str) -> dict[str, Any]:
    """What a process that takes no turns has to say."""
    contender = Contender(name, 1)
    message = contender.receive()
    contender.finish()
    return message


def start_up(repeats: int) -> dict[str, list[float]]:
    """Seconds of the imports alone, of `fit --help`, and from the command to the first training step, in turn."""
    commands = {
        "imports": [sys.executable, "-c", "import torch, torchvision, pytorch_lightning"],
        "help": [sys.executable, "-m", "unstall", "fit", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*commands, "first_step")}
    for _ in range(repeats):
        for name, command in commands.items():
            began = time.time()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            seconds[name].append(time.time() - began)
        began = time.time()
        seconds["first_step"].append(ask("first_step")["first_step"] - began)
    return seconds


def curves() -> dict[str, list[tuple[int, float]]]:
    """Seconds of a warm epoch of ours over width, batch size and number of samples."""
    sweeps = {
        "width": ("--model.network.widths=[784,{},10]", (64, 256, 512, 1024, 2048)),
        "batch_size": ("--data.batch_size={}", (32, 64, 128, 512)),
        "train_samples": ("--data.train_samples={}", (6000, 12000, 24000, 48000)),
    }
    points: dict[str, list[tuple[int, float]]] = {}
    for name, (option, values) in sweeps.items():
        for value in values:
            contender = Contender("ours", 3, options=(f"--option={option.format(value)}",))
            seconds = take_turns([contender], 3)["ours"]["seconds"]
            points.setdefault(name, []).append((value, min(seconds[1:])))
    return points


def ratios(results: dict[str, dict[str, Any]], name: str, other: str) -> list[float]:
    """Epoch by epoch, the first apart."""
    mine, theirs = results[name]["seconds"][1:], results[other]["seconds"][1:]
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def spread(values: list[float], digits: int = 2) -> str:
    """Median and range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def tables(measured: dict[str, Any]) -> str:
    """The tables of docs/speed.md."""
    epochs, results = measured["epochs"], measured["contenders"]
    # Per sample and weight 2 operations forward and 2 for the weights' gradient; the last layer's inputs have one too.
    weights = 784 * HIDDEN + HIDDEN * 10
    operations = TRAIN * (4 * weights + 2 * HIDDEN * 10) + VAL * 2 * weights
    lines = [
        f"{measured['machine']}; {epochs} epochs each, in turn; median (range) of all but the first.",
        "",
        "| | epoch, s | over ours | first epoch, s | GFLOP/s | peak memory, GB | val/accuracy at the end |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in results.items():
        seconds = result["seconds"]
        over = "" if name == "ours" or "ours" not in results else spread(ratios(results, name, "ours"))
        lines.append(
            f"| {CONTENDERS[name]} | {spread(seconds[1:])} | {over} | {seconds[0]:.2f} "
            f"| {operations / median(seconds[1:]) / 1e9:.0f} | {result['peak_gb']:.2f} | {result['accuracy']:.4f} |"
        )
    lines += [f"| {CONTENDERS[name]} | not installed | | | | | |" for name in measured["left_out"]]
    lines += [
        "",
        f"The largest product of a step alone, {BATCH} x 784 by 784 x {HIDDEN}: {measured['gflops']:.0f} GFLOP/s.",
        "",
        "| bar | ratio | at most |",
        "|---|---|---|",
    ]
    for label, name, other, bar in (
        ("an epoch over the bare loop's", "ours", "bare", 1.25),
        ("over that with `torch.optim.RMSprop`", "ours", "bare_torch", None),
        ("over Lightning with torchvision's", "ours", "torchvision", 0.35),
        ("over Keras on TensorFlow", "ours", "keras_tensorflow", 1.0),
        ("over Keras on JAX (goal)", "ours", "keras_jax", 1.0),
        ("without any callback or logger over the bare loop's", "no_callbacks", "bare", None),
    ):
        if name in results and other in results:
            lines.append(f"| {label} | {spread(ratios(results, name, other))} | {bar or ''} |")
    parts = measured["shares"]
    for label, part, bar in (
        ("the diagnosis over everything else, by stopwatch", "the diagnosis", 1.03),
        ("TensorBoard and CSV over everything else, by stopwatch", "TensorBoard and CSV", 1.05),
    ):
        lines.append(f"| {label} | {sum(parts.values()) / (sum(parts.values()) - parts[part]):.3f} | {bar} |")
    if "ours" in results and epochs >= 10:
        seconds = results["ours"]["seconds"]
        drift = median(seconds[7:10]) / median(seconds[1:4])  # one epoch alone is as noisy as the machine
        lines.append(f"| epochs 8 to 10 over epochs 2 to 4, medians | {drift:.2f} | 1.05 |")
    began = measured["start_up"]
    for label, name, bar in (
        ("`unstall fit --help` over the imports alone", "help", 1.5),
        ("command to first training step over the imports alone", "first_step", 2.5),
    ):
        each = [a / b for a, b in zip(began[name], began["imports"], strict=True)]
        lines.append(f"| {label} ({median(began['imports']):.1f} s) | {spread(each)} | {bar} |")
    if "ours" in results:
        lines.append(f"| peak memory, GB | {results['ours']['peak_gb']:.2f} | 1.2 |")
    last = measured["race"][-1]
    lines.append(f"| {last['rates']} rates in a race over one after another | {last['ratio']:.2f} | 0.8 |")
    lines += ["", "| where an epoch's time goes, by stopwatch | s | share |", "|---|---|---|"]
    for part in sorted(parts, key=lambda part: -parts[part]):
        lines.append(f"| {part} | {parts[part]:.3f} | {100 * parts[part] / sum(parts.values()):.1f} % |")
    for name, points in measured.get("curves", {}).items():
        lines += ["", f"| {name} | " + " | ".join(str(value) for value, _ in points) + " |"]
        lines += ["|" + "---|" * (len(points) + 1), "| epoch, s | " + " | ".join(f"{s:.2f}" for _, s in points) + " |"]
    race = measured["race"]
    lines += ["", "| rates in a race | " + " | ".join(str(row["rates"]) for row in race) + " |"]
    lines += [
        "|" + "---|" * (len(race) + 1),
        "| 100 steps, s | " + " | ".join(f"{r['seconds']:.2f}" for r in race) + " |",
    ]
    return "\n".join(lines)


def draw(measured: dict[str, Any], file: Path) -> None:
    """Seconds per epoch as bars."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = measured["contenders"]
    names = [name for name in CONTENDERS if name in results and not name.startswith("no_")]
    later = [results[name]["seconds"][1:] for name in names]
    middle = [median(seconds) for seconds in later]
    errors = [
        [m - min(s) for m, s in zip(middle, later, strict=True)],
        [max(s) - m for m, s in zip(middle, later, strict=True)],
    ]
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(names) + 1), layout="constrained")
    labels = [CONTENDERS[name].replace("`", "").replace("... ", "ours, ").split(" (")[0] for name in names]
    colours = ["tab:blue" if name in ("ours", "medium") else "tab:grey" for name in names]
    axes.barh(labels, middle, xerr=errors, color=colours, height=0.6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds per epoch (median and range)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def machine() -> str:
    """The processor and the versions."""
    import torch

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    threads = torch.get_num_threads()
    return f"{os.cpu_count()}-core {platform.machine()} CPU ({model}), {threads} threads, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of each contender")
    parser.add_argument("--repeats", type=int, default=5, help="of the start-up times")
    parser.add_argument("--keras_python", default=sys.executable, help="interpreter of an environment that has Keras")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--curves", action="store_true", help="also over width, batch size and samples: 3 minutes more")
    parser.add_argument("--dry", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--contender", choices=RUNS, help=argparse.SUPPRESS)
    parser.add_argument("--option", action="append", default=[], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        run = RUNS[arguments.contender]
        if arguments.option:
            fit(Gate(), arguments.epochs, *arguments.option)
        else:
            run(Gate(), arguments.epochs)
        return

    left_out = [name for name in NEEDS if name in arguments.only and not installed(name, arguments.keras_python)]
    for name in left_out:
        print(f"left out, not installed: {CONTENDERS[name]}", file=sys.stderr)
    names = [name for name in arguments.only if name not in left_out]
    began = start_up(arguments.repeats)
    contenders = [
        Contender(name, arguments.epochs, arguments.keras_python if name in NEEDS else sys.executable) for name in names
    ]
    measured: dict[str, Any] = {
        "machine": machine(),
        "epochs": arguments.epochs,
        "left_out": left_out,
        "contenders": take_turns(contenders, arguments.epochs),
        "start_up": began,
        **ask("ceiling"),
        **ask("race"),
        **ask("shares"),
    }
    if arguments.curves:
        measured["curves"] = curves()
    text = tables(measured)
    print(text)
    if not arguments.dry:
        (ROOT / "benchmarks" / "throughput.json").write_text(json.dumps(measured, indent=1) + "\n")
        draw(measured, ROOT / "docs" / "speed.png")
        page = ROOT / "docs" / "speed.md"
        before, _, rest = page.read_text().partition(MARKS[0])
        page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.partition(MARKS[1])[2]}")


if __name__ == "__main__":
    main()
