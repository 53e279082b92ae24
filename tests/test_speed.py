"""What a step costs, in counts, which do not flake. For seconds see benchmarks/throughput.py."""

import json
import subprocess
import sys
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lesson.datamodule import MNISTDataModule
from lesson.network import MLP
from lesson.optimizer import KerasRMSprop
from unstall import NoProfiler
from unstall.cli.commands import CLI

BATCH, FROM, STEPS = 4, 10, 100
INPUTS = BATCH * 784


class Count(TorchDispatchMode):
    """Counts operator calls, also those of the backward pass, and new tensors as large as a batch of inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.large = self.hooks = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls[func._schema.name.removeprefix("aten::")] += 1
        fresh = not func._schema.is_mutable and not func.is_view
        self.large += sum(t.numel() >= INPUTS for t in (result,) if fresh and isinstance(t, Tensor))
        return result


class Hooks(NoProfiler):
    """Counts what Lightning asks its profiler about: each hook of each callback that it calls."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        self.calls[action_name.partition("]")[0]] += 1
        return super().profile(action_name)


class Window(pl.Callback):
    """Counts over so many whole steps of the second epoch."""

    def __init__(self) -> None:
        self.count, self.hooks = Count(), Hooks()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.current_epoch == 1 and batch_idx == FROM:
            self.hooks.calls.clear()
            self.count.__enter__()
        if trainer.current_epoch == 1 and batch_idx == FROM + STEPS:
            self.count.__exit__(None, None, None)
            self.count.hooks = self.hooks.calls["[Callback"]


@pytest.fixture(scope="module")
def ours(tiny_mnist_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Count:
    """`unstall fit` with all of the base config's callbacks and loggers."""
    window = Window()

    class Watched(CLI):
        def before_fit(self) -> None:
            self.trainer.callbacks.append(window)  # type: ignore[attr-defined]
            self.trainer.profiler = window.hooks  # type: ignore[attr-defined]

    options = ["--trainer.max_epochs=2", "--trainer.accelerator=cpu", f"--data.batch_size={BATCH}"]
    places = [f"--data.data_dir={tiny_mnist_dir}", f"--logs_dir={tmp_path_factory.mktemp('logs')}"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
            patch.setenv(name, "0")  # what `seed_everything` writes is undone
        Watched(["fit", *options, *places])
    return window.count


@pytest.fixture(scope="module")
def bare(tiny_mnist_dir: Path) -> Count:
    """The same steps, losses and accuracies in a plain loop."""
    data = MNISTDataModule(data_dir=str(tiny_mnist_dir), batch_size=BATCH)
    data.setup("fit")
    network = MLP([784, 512, 10])
    optimizer = KerasRMSprop(network.parameters(), lr=1e-2)
    loss_sum, hits = torch.zeros(()), torch.zeros((), dtype=torch.long)
    batches = iter(data.train_dataloader())
    next(batches)
    count = Count()
    with count:
        for _ in range(STEPS):
            inputs, labels = next(batches)
            logits = network(inputs)
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum.add_(loss.detach() * BATCH)
            hits.add_((logits.argmax(1) == labels).sum())
    return count


def test_few_operator_calls_beyond_those_of_a_plain_loop(ours: Count, bare: Count) -> None:
    more = (ours.calls.total() - bare.calls.total()) / STEPS
    print(
        f"{bare.calls.total() / STEPS} operator calls a step in a plain loop, and {more} more", ours.calls - bare.calls
    )
    assert more < 20


def test_no_callback_is_called_in_a_step_for_nothing(ours: Count) -> None:
    per_step = ours.hooks / STEPS - 6  # this test's own callback has them all
    print(f"{per_step} hooks of callbacks a step")
    assert per_step < 20


def test_no_host_synchronisation_per_step(ours: Count) -> None:
    # The readings of the diagnosis (every 100 steps) and the curves within an epoch (every 50) synchronise.
    assert ours.calls["_local_scalar_dense"] / STEPS < 0.5


def test_no_copy_of_the_inputs_beyond_those_of_a_plain_loop(ours: Count, bare: Count) -> None:
    per_step = (ours.large - bare.large) / STEPS
    print(f"{bare.large / STEPS} large tensors a step in a plain loop, {per_step} more")
    assert per_step < 0.5  # the diagnosis looks at the weights every 20 steps


@pytest.mark.slow
def test_help_imports_nothing_that_it_does_not_need() -> None:
    code = (
        "import contextlib, io, json, sys, torch, torchvision, pytorch_lightning\n"
        "before = set(sys.modules)\n"
        "from unstall.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit): main(['fit', '--help'])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    new = set(json.loads(done.stdout)) - set(sys.stdlib_module_names)
    heavy = {"tensorboard", "tensorflow", "pandas", "scipy", "sklearn", "IPython", "keras", "jax"}
    assert not new & heavy
    of_the_command_line = {"unstall", "jsonargparse", "docstring_parser", "typeshed_client", "attr", "attrs"}
    ours_or_lightnings = {
        "torch",
        "torchvision",
        "pytorch_lightning",
        "lightning_fabric",
        "torchmetrics",
        "rich",
        "yaml",
    }
    named_by_a_config = {"lesson", "lightning_utilities", "matplotlib", "PIL", "numpy"}
    assert new <= of_the_command_line | ours_or_lightnings | named_by_a_config
