"""How cost grows: with the width, the layers, the batch, the samples, the rates, the forks and the steps.

    python benchmarks/growth.py          # a few minutes; writes the table of docs/speed.md
    python benchmarks/growth.py --dry    # prints it

Whatever is doubled, its cost should no more than double. Measured is the process's own CPU time, on one thread, which
other programs on the machine hardly change: the sizes take turns, and the median over the turns counts.
"""

import argparse
import io
import itertools
import resource
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from measuring import ROOT, machine, replace_tables, table
from unstall import Diagnosis, Variant, fork, quiet, race, screening_steps

Batch = tuple[Tensor, Tensor]
INPUTS, CLASSES = 64, 10


class Lit(pl.LightningModule):
    """A network of equal layers."""

    def __init__(self, width: int = 128, layers: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        hidden = [part for _ in range(layers - 1) for part in (nn.Linear(width, width), nn.ReLU())]
        self.network = nn.Sequential(nn.Linear(INPUTS, width), nn.ReLU(), *hidden, nn.Linear(width, CLASSES))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the cross-entropy."""
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class OnDisk(Dataset[Batch]):
    """Samples that are read from a file one by one, and never all in memory."""

    def __init__(self, file: Path, count: int) -> None:
        self.samples = np.memmap(file, np.float32, "r", shape=(count, INPUTS))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Batch:
        inputs = torch.from_numpy(self.samples[index].copy())
        return inputs, inputs[:CLASSES].argmax()


def batches(count: int, size: int = 32) -> list[Batch]:
    """Return random batches."""
    torch.manual_seed(0)
    return [(inputs := torch.randn(size, INPUTS), inputs[:, :CLASSES].argmax(1)) for _ in range(count)]


def fit(module: pl.LightningModule, data: Dataset[Any], epochs: int = 1, size: int = 32, clip: float = 0.0) -> None:
    """Train with the diagnosis at hand."""
    with quiet(), redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[Diagnosis()],
            gradient_clip_val=clip or None,
            default_root_dir=scratch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, DataLoader(data, size))


def samples(count: int) -> TensorDataset:
    """Return random samples in memory."""
    ((inputs, labels),) = batches(1, count)
    return TensorDataset(inputs, labels)


def diagnosis(size: int) -> None:
    """Diagnose a rate that is far too low, on batches of a size."""
    count = 4 * screening_steps(size)
    module = Lit()
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), lr=1e-6)  # type: ignore[method-assign]
    fork(module, batches(count, size), batches(1, 500))


def peak() -> float:
    """Return the most memory that the process has held so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cases(folder: Path) -> dict[str, tuple[tuple[int, int, int], Callable[[int], object]]]:
    """Return what is doubled: three sizes, and what is done at each."""

    def on_disk(count: int) -> None:
        file = folder / f"{count}.bin"
        if not file.exists():
            np.random.default_rng(0).standard_normal((count, INPUTS), np.float32).tofile(file)
        fit(Lit(), OnDisk(file, count), size=256)

    return {
        "width: 100 steps": ((512, 1024, 2048), lambda width: race(Lit(width), [Variant()], batches(100))),
        "layers: 50 steps": ((16, 32, 64), lambda layers: race(Lit(64, layers), [Variant()], batches(50))),
        "samples of a batch: 50 steps": ((512, 1024, 2048), lambda size: race(Lit(), [Variant()], batches(50, size))),
        "samples: an epoch with the diagnosis": ((16_000, 32_000, 64_000), lambda count: fit(Lit(), samples(count))),
        "samples on disk: the same, batches of 256": ((16_000, 32_000, 64_000), on_disk),
        "epochs of 320 samples, clipped": ((50, 100, 200), lambda epochs: fit(Lit(), samples(320), epochs, clip=1e-3)),
        "rates in a race: 200 steps each": (
            (2, 4, 8),
            lambda count: race(Lit(), [Variant(1e-3 * (1 + i)) for i in range(count)], batches(200)),
        ),
        "samples of a batch: `diagnose`": ((32, 128, 512), diagnosis),
    }


def measure(sizes: tuple[int, int, int], call: Callable[[int], object], turns: int) -> list[float]:
    """Return the CPU seconds at each size."""
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for _ in range(turns):
        for size in sizes:
            began = time.process_time()
            call(size)
            seconds[size].append(time.process_time() - began)
    return [median(seconds[size]) for size in sizes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=3, help="of each size")
    parser.add_argument("--only", default="", help="what is doubled has this in its name")
    parser.add_argument("--dry", action="store_true", help="print the table, write nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows, memory = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (sizes, call) in cases(Path(folder)).items():
            if arguments.only in name:
                before = peak()
                seconds = measure(sizes, call, arguments.turns)
                memory[name] = peak() - before
                times = [f"{later / earlier:.2f}" for earlier, later in itertools.pairwise(seconds)]
                rows.append(
                    [name, " / ".join(map(str, sizes)), " / ".join(f"{s:.2f}" for s in seconds), " / ".join(times)]
                )
                print(*rows[-1], flush=True)
    lines = [
        f"{machine()}; CPU seconds on one thread, medians of {arguments.turns} turns.",
        "",
        *table("| what grows, and what is done | sizes | CPU seconds | from one to the next |", rows),
    ]
    if (more := memory.get("samples on disk: the same, batches of 256")) is not None:
        lines += ["", f"While samples were read from files, the process grew by {more:.0f} MB."]
    print("\n".join(lines))
    if not arguments.dry:
        replace_tables(ROOT / "docs" / "speed.md", "growth.py", "growth", lines)


if __name__ == "__main__":
    main()
