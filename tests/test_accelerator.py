"""On whatever accelerator is there: the lesson, both stalls, going on, the finder and the diagnosis. Else skipped.

`make test-accelerator` runs these alone. What holds without one is in `test_devices.py`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import unstall
from unstall.cli.entry import main
from unstall.runs.history import read_metrics

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator is there"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You defined a `validation_step` but have no `val_dataloader`"),
]
ON_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is there")
CONFIGS = Path(__file__).parents[1] / "configs"
OFF = ["--trainer.enable_progress_bar=false"]


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def fit(mnist: Path, *words: str, experiment: str = "run") -> Path:
    """Fit the lesson; return the run's folder."""
    before = set(Path("logs").glob(f"{experiment}/*"))
    main(["fit", *words, f"--data.data_dir={mnist}", f"--experiment={experiment}", *OFF])
    (run,) = set(Path("logs").glob(f"{experiment}/*")) - before
    return run


def last(run: Path, name: str) -> float:
    return next(float(row[name]) for row in reversed(read_metrics(run / "metrics.csv")) if row.get(name) is not None)


class Lit(pl.LightningModule):
    """A classifier of ten blobs that knows nothing of this package."""

    def __init__(self, rate: float = 0.1, optimizer: str = "SGD") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
        self.rate, self.optimizer = rate, optimizer

    def forward(self, inputs: Tensor) -> Tensor:
        return cast(Tensor, self.network(inputs))

    def training_step(self, batch: Sequence[Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Sequence[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return cast(torch.optim.Optimizer, getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.rate))


def blobs(samples: int = 4000) -> tuple[DataLoader[Any], DataLoader[Any]]:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 20, generator=generator)
    labels = torch.randint(10, (samples + 1000,), generator=generator)
    points = centres[labels] + torch.randn(samples + 1000, 20, generator=generator)
    parts = TensorDataset(points[:samples], labels[:samples]), TensorDataset(points[samples:], labels[samples:])
    return DataLoader(parts[0], 50, shuffle=True), DataLoader(parts[1], 500)


def test_the_lesson_trains(mnist_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(mnist_dir, "--trainer.max_epochs=5")
    assert 0.95 <= last(run, "val/accuracy") <= 0.99
    assert json.loads((run / "diagnosis.json").read_text())["cause"] in ("healthy", "overfitting")
    capsys.readouterr()
    main(["test", f"--ckpt_path={run}", "--format=json"])
    assert json.loads(capsys.readouterr().out)["metrics"]["test/accuracy"] > 0.95


@pytest.mark.parametrize("stall", ["lr_too_high", "lr_too_low"])
def test_both_stalls_are_named_and_mended(mnist_dir: Path, stall: str) -> None:
    run = fit(mnist_dir, "-c", str(CONFIGS / f"{stall}.yaml"), "--trainer.max_epochs=3", experiment=stall)
    assert last(run, "val/accuracy") <= 0.35
    main(["diagnose", str(run)])
    cause = json.loads((run / "diagnosis.json").read_text())["cause"]
    assert cause.endswith(stall.removeprefix("lr_").replace("_", " ")), cause
    mended = fit(mnist_dir, "-c", str(CONFIGS / f"{stall}.yaml"), "-c", str(run / "fix.yaml"), "--trainer.max_epochs=3")
    assert last(mended, "val/accuracy") >= 0.9


def test_the_finders_pick_trains(mnist_dir: Path) -> None:
    main(["lr_find", f"--data.data_dir={mnist_dir}", "--fit=true", "--trainer.max_epochs=3", *OFF])
    (run,) = Path("logs").glob("*/*/checkpoints")
    assert last(run.parent, "val/accuracy") >= 0.95


def test_going_on_is_as_never_having_stopped(mnist_dir: Path) -> None:
    whole = fit(mnist_dir, "--trainer.max_epochs=4", "--trainer.deterministic=true", experiment="whole")
    part = fit(mnist_dir, "--trainer.max_epochs=2", "--trainer.deterministic=true", experiment="part")
    main(["fit", f"--ckpt_path={part}", "--trainer.max_epochs=4", *OFF])
    first, second = (
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True, map_location="cpu") for run in (whole, part)
    )
    assert all(torch.equal(first["state_dict"][name], second["state_dict"][name]) for name in first["state_dict"])
    assert last(whole, "train/loss") == last(part, "train/loss")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_any_module_is_searched_and_diagnosed(tmp_path: Path, precision: Any) -> None:
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=5, precision=precision, **cast(Any, off))
    search = unstall.find_learning_rate(Lit(), blobs(), trainer)
    assert 3e-3 <= search.learning_rate <= 10
    before = torch.get_rng_state(), [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    report = unstall.diagnose(Lit(rate=1e-6), blobs(), trainer)
    after = torch.get_rng_state(), [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())]
    assert report.verdict.cause == unstall.Cause.TOO_LOW
    assert torch.equal(before[0], after[0])
    assert all(map(torch.equal, before[1], after[1]))
    assert report.fix is not None
    assert report.fix.after.loss < report.fix.before.loss / 2


def test_a_trial_is_what_a_fit_is(tmp_path: Path) -> None:
    """Lightning's own fit of the same batches is the reference."""
    seen: list[float] = []

    class Note(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            seen.append(float(outputs["loss"]))

    batches = list(blobs()[0])
    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, callbacks=[Note()], **cast(Any, off))
    (outcome,) = unstall.race(Lit(), [unstall.Variant()], batches, device=trainer.strategy.root_device)
    trainer.fit(Lit(), DataLoader(cast(Any, batches), batch_size=None))
    torch.testing.assert_close(outcome.losses, seen, rtol=1e-3, atol=1e-4)


class _NoWaiting(pl.Callback):
    """Has torch raise where the host waits for the device, from a step within the epoch to its last but one."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last, self.steps = first, last, 0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        within = self.first <= batch_idx < self.last
        self.steps += within
        torch.cuda.set_sync_debug_mode("error" if within else "default")


@contextmanager
def waiting_allowed_again() -> Iterator[None]:
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@ON_CUDA
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_no_step_makes_the_host_wait(mnist_dir: Path) -> None:
    """What is logged at intervals and the readings of the watch are left out: they ask for numbers."""
    from unstall.cli.commands import CLI

    words = ["fit", f"--data.data_dir={mnist_dir}", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1000"]
    callback = _NoWaiting(first=101, last=195)
    with waiting_allowed_again(), pytest.MonkeyPatch.context() as patch:
        made = CLI.instantiate_trainer

        def with_callback(self: Any, *arguments: Any, **named: Any) -> Any:
            trainer = made(self, *arguments, **named)
            trainer.callbacks.insert(0, callback)
            return trainer

        patch.setattr(CLI, "instantiate_trainer", with_callback)
        main([*words, *OFF])
    assert callback.steps == 94


@ON_CUDA
def test_data_that_fit_are_on_the_device(mnist_dir: Path) -> None:
    from lesson.datamodule import MNISTDataModule

    module = MNISTDataModule(str(mnist_dir))
    trainer = pl.Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    module.trainer = trainer
    module.setup("fit")
    there = next(iter(module.train_dataloader()))
    module.trainer = None
    here = next(iter(module.train_dataloader()))
    assert {part.device for part in there} == {trainer.strategy.root_device}
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one.cpu(), other)
    huge = unstall.InMemoryDataset(torch.empty(0), torch.empty(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (-1, 0))
        assert huge.on(trainer.strategy.root_device) is huge


# What torch's compiler does while it traces is not ours to mend.
@pytest.mark.filterwarnings("ignore")
def test_compiled_modules_are_trained_and_gone_on_with(tmp_path: Path) -> None:
    off = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = pl.Trainer(max_epochs=1, default_root_dir=tmp_path, callbacks=[unstall.Diagnosis()], **cast(Any, off))
    trainer.fit(cast(Any, torch.compile(Lit())), *blobs())
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    plain = Lit.load_from_checkpoint(tmp_path / "compiled.ckpt")
    points = next(iter(blobs()[1]))[0]
    assert F.cross_entropy(plain.eval().cpu()(points), next(iter(blobs()[1]))[1]) < 1
