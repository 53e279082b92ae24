"""What a run leaves behind while it trains: curves, tables, checkpoints."""

import csv
import io
import math
import os
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor

from unstall.metrics import logged_as, stage_of
from unstall.run import BEST, CONFIG, LAST, datamodule_of, log_dir, tensorboard_of, write

METRICS = "metrics.csv"
HPARAMS = "hparams.yaml"
PLACES = ("data_dir", "predict_dir", "num_workers")
"""Where things lie, not what is learned from them: no hyper-parameters, and free to differ in a resumed run."""


class History(Callback):
    """Keeps one row per epoch in ``metrics.csv``, and draws the same numbers over the samples seen in TensorBoard.

    Runs with different batch sizes take different numbers of steps for the same work; under ``samples_seen/`` their
    curves can be compared. ``prior_loss`` (the entropy of the training labels, nats) and ``chance_accuracy`` (the
    share of the commonest label) are what a network that looks at no input can reach.
    """

    def __init__(self) -> None:
        self.samples_seen = 0
        self.class_counts = torch.zeros(0, dtype=torch.long)
        self.rows: list[dict[str, float]] = []

    def state_dict(self) -> dict[str, Any]:
        """Plain values, so that the checkpoint loads with ``weights_only=True``."""
        return {"samples_seen": self.samples_seen, "class_counts": self.class_counts.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting where the checkpoint was written."""
        self.samples_seen = state_dict["samples_seen"]
        self.class_counts = torch.tensor(state_dict["class_counts"], dtype=torch.long)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take up the rows of a run that goes on, up to the epoch it goes on from."""
        file = log_dir(trainer) / METRICS
        self.rows = [row for row in read_metrics(file) if row["epoch"] < trainer.current_epoch]
        for row in self.rows:
            # TensorBoard forgets what lies beyond the step that a run resumes at, and here counts samples as steps.
            if row["samples_seen"] >= trainer.global_step:
                self._draw_over_samples(trainer, row)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples, and in the first epoch the classes."""
        targets = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
        if not isinstance(targets, Tensor) or not targets.ndim:
            return
        self.samples_seen += len(targets) * trainer.world_size
        if trainer.current_epoch == 0 and targets.ndim == 1 and not targets.is_floating_point():
            counts = torch.bincount(targets.detach(), minlength=len(self.class_counts))
            counts[: len(self.class_counts)] += self.class_counts.to(counts.device)
            self.class_counts = counts

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add the epoch's row and write the table beside the old one, then rename."""
        row: dict[str, float] = {
            "epoch": trainer.current_epoch,
            "step": trainer.global_step,
            "samples_seen": self.samples_seen,
            "seed": int(os.environ.get("PL_GLOBAL_SEED", 0)),
        }
        hyperparameters = hyperparameters_of(trainer, pl_module)
        row |= {name: hyperparameters[name] for name in ("batch_size", "learning_rate") if name in hyperparameters}
        total = int(self.class_counts.sum())
        if total:
            shares = self.class_counts[self.class_counts > 0].double() / total
            row["prior_loss"] = float(-(shares * shares.log()).sum())
            row["chance_accuracy"] = float(shares.max())
        row |= {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append(row)
        self._draw_over_samples(trainer, row)
        levels = {f"reference/{name}": row[name] for name in ("prior_loss", "chance_accuracy") if name in row}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics(levels, step=trainer.global_step - 1)
        folder = log_dir(trainer)
        if trainer.is_global_zero and trainer.loggers and not getattr(trainer, "fast_dev_run", False):
            write_metrics(folder / METRICS, self.rows)

    def _draw_over_samples(self, trainer: pl.Trainer, row: dict[str, float]) -> None:
        over_samples = {_over_samples(name): value for name, value in row.items() if stage_of(name)}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_metrics(over_samples, step=int(row["samples_seen"]))


class Curves(Callback):
    """What TensorBoard shows beside the metrics: curves within an epoch, their layout, hyper-parameters, the graph."""

    METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")

    _hyperparameters: dict[str, Any] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known before the first step."""
        self._hyperparameters = None
        # The base config's `log_every_n_steps` may be more than a short epoch has: then once an epoch.
        self._interval = max(1, min(_log_every_n_steps(trainer), trainer.num_training_batches))
        hyperparameters = hyperparameters_of(trainer, pl_module)
        logger = tensorboard_of(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        logger.hparams.update(hyperparameters)
        folder = Path(logger.log_dir)
        write(folder / HPARAMS, yaml.safe_dump(hyperparameters, sort_keys=False))
        if (folder / CONFIG).is_file():
            logger.experiment.add_text("config", f"```yaml\n{(folder / CONFIG).read_text()}\n```")
        self._hyperparameters = hyperparameters

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the network's graph from the first batch of a new run."""
        logger = tensorboard_of(trainer)
        if trainer.global_step or logger is None or not trainer.is_global_zero:
            return
        network = getattr(pl_module, "network", pl_module)
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        was_training = network.training
        network.eval()  # a traced forward must not move BatchNorm's averages
        try:
            with torch.random.fork_rng(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch means to drop the tracer that TensorBoard still uses
                logger.experiment.add_graph(network, inputs[:1], use_strict_trace=False)
        except Exception:  # whatever the tracer cannot follow: a picture is missing, the training is not affected
            pass
        finally:
            network.train(was_training)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the norm of the whole gradient, after any clipping."""
        if trainer.global_step % self._interval == 0:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            _log(trainer, {"step/gradient_norm": float(norm)}, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss of this batch and the rate of its step."""
        if (trainer.global_step - 1) % self._interval:
            return
        metrics = {"learning_rate": float(trainer.optimizers[0].param_groups[0]["lr"])} if trainer.optimizers else {}
        if isinstance(outputs, dict) and "loss" in outputs:
            metrics["step/train_loss"] = float(outputs["loss"])
        _log(trainer, metrics, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the first epoch, when the metrics have names, write what refers to them."""
        self._lay_out(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write it also for a run that ends before that."""
        self._lay_out(trainer)

    def _lay_out(self, trainer: pl.Trainer) -> None:
        logger = tensorboard_of(trainer)
        if logger is None or self._hyperparameters is None:
            return
        names = {metric: logged_as(metric, trainer.callback_metrics) for metric in self.METRICS}
        found = {metric: name for metric, name in names.items() if name} or dict(zip(names, names, strict=True))

        from torch.utils.tensorboard.summary import hparams

        logger.experiment.add_custom_scalars(layout(found))
        # The values of these metrics are the last points of their curves: none is written here.
        for summary in hparams(self._hyperparameters, dict.fromkeys(found.values(), 0.0)):  # type: ignore[no-untyped-call]
            logger.experiment._get_file_writer().add_summary(summary)
        self._hyperparameters = None


def layout(names: dict[str, str]) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom scalars: training and validation on the same axes.

    Args:
        names: What the module calls `train/loss`, `val/loss`, `train/accuracy` and `val/accuracy`, if it logs them.
    """
    over_steps: dict[str, list[Any]] = {}
    over_samples: dict[str, list[Any]] = {}
    for quantity, reference in ("loss", "prior_loss"), ("accuracy", "chance_accuracy"):
        curves = [names[metric] for metric in (f"train/{quantity}", f"val/{quantity}") if metric in names]
        if curves:
            over_steps[quantity] = ["Multiline", [*curves, f"reference/{reference}"]]
            over_samples[quantity] = ["Multiline", [_over_samples(name) for name in curves]]
    return {"training and validation": over_steps, "the same over samples seen": over_samples}


class Checkpoints(ModelCheckpoint):
    """Lightning's, for what a module calls its validation loss, and for runs that go on in another folder.

    `monitor: val/loss` also stands for `val_loss` and its like; a module that logs nothing of the kind is told so, and
    trained without. A run that goes on remembers its best loss also if its folder was moved or named differently.
    """

    _told = False

    @cached_property
    def state_key(self) -> str:
        """Which one it is, by its configuration; Lightning asks a dozen times a step, and would put it together."""
        return super().state_key

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint, if there is something to judge it by."""
        if self.monitor is not None and self.monitor not in trainer.callback_metrics:
            name = logged_as(self.monitor, trainer.callback_metrics)
            if name is None:
                if trainer.enable_validation and not self._told:
                    self._told = True
                    logged = ", ".join(trainer.callback_metrics) or "nothing"
                    pl_module.print(f"No {self.filename}.ckpt is kept: no {self.monitor} is logged, but {logged}.")
                return
            self.monitor = name
        super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best loss if its checkpoint lies here; Lightning compares the folders as they were typed."""
        there, here = str(state_dict["dirpath"]), str(self.dirpath)
        if Path(here, BEST.name).is_file():
            names = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")
            scores = state_dict["best_k_models"]
            state_dict = state_dict | {name: str(state_dict[name]).replace(there, here, 1) for name in names}
            state_dict["best_k_models"] = {path.replace(there, here, 1): scores[path] for path in scores}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            super().load_state_dict(state_dict)


class RandomState(Callback):
    """Draws an epoch's random numbers from the seed and the epoch: a resumed run has the dropout it would have had.

    Keeping torch's own state would not do: Lightning makes an epoch's data iterator, which draws a number, before the
    epoch where a run resumes and within it where a run goes through.
    """

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch anew in each process, at the first batch."""
        if batch_idx == 0:
            entropy = [int(os.environ.get("PL_GLOBAL_SEED", 0)), trainer.current_epoch, trainer.global_rank]
            torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1)[0]))


def hyperparameters_of(trainer: pl.Trainer, module: pl.LightningModule) -> dict[str, Any]:
    """The flat table for TensorBoard's HParams tab: plain scalars and strings, the same names for every model.

    ``learning_rate`` is the rate the run starts with, also under a schedule; ``batch_size`` is per process. The tab
    shows the first five names in alphabetical order: all others follow under ``setting/``.
    """
    table: dict[str, Any] = {}
    if trainer.optimizers:
        group = trainer.optimizers[0].param_groups[0]
        table["learning_rate"] = float(group.get("initial_lr", group["lr"]))
        table["optimizer"] = type(trainer.optimizers[0]).__name__
    of_data = getattr(datamodule_of(trainer), "hparams", {})
    table["batch_size"] = of_data.get("batch_size") or getattr(trainer.train_dataloader, "batch_size", None)
    table["seed"] = int(os.environ.get("PL_GLOBAL_SEED", 0))
    settings: dict[str, Any] = {}
    for name, value in {**of_data, **module.hparams}.items():
        if not name.startswith("_") and name not in ("optimizer", "batch_size", *PLACES):
            settings |= _flatten(name, value)
    table |= {name: settings.pop(name, None) for name in ("network", "init")}
    table["initializer"] = table.pop("init")
    table |= {f"setting/{name}": value for name, value in settings.items()}
    return {name: value for name, value in table.items() if value is not None}


def _flatten(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and "class_path" in value:
        flat = {name: str(value["class_path"]).rpartition(".")[2]}
        for key, inner in (value.get("init_args") or {}).items():
            flat |= _flatten(key, inner)
        return flat
    if isinstance(value, (list, tuple)):
        return {name: "-".join(map(str, value))}
    return {name: value if isinstance(value, (bool, int, float, str, type(None))) else str(value)}


def read_metrics(file: Path) -> list[dict[str, float]]:
    """Read a run's ``metrics.csv``: a row per epoch; none if there is no such file."""
    if not file.is_file():
        return []
    with file.open(newline="") as stream:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]
    return [{name: int(value) if value.isdigit() else float(value) for name, value in row.items()} for row in rows]


def write_metrics(file: Path, rows: list[dict[str, float]]) -> None:
    """Write rows with a common header, beside the old file, then rename."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write(file, text.getvalue())


def closing_words(
    rows: list[dict[str, float]], folder: Path, program: str, stalled: bool = False, testable: bool = True
) -> list[str]:
    """What came of a run and how to go on, a line each.

    Args:
        rows: The run's metrics, a row per epoch.
        folder: The run's folder.
        program: What to type to run this program.
        stalled: Whether the run's diagnosis says that it stalled.
        testable: Whether there is a test to go on with.
    """
    words = []
    loss, accuracy = (logged_as(metric, rows[-1] if rows else ()) for metric in ("val/loss", "val/accuracy"))
    if loss is not None:
        best = min(rows, key=lambda row: row[loss] if math.isfinite(row.get(loss, math.nan)) else math.inf)
        also = f", {accuracy} {best[accuracy]:.4f}" if accuracy in best else ""
        words.append(f"best epoch {best['epoch'] + 1:.0f} of {len(rows)}: {loss} {best[loss]:.4f}{also}")
    if stalled:
        words.append(f"what helps:  {program} diagnose {folder}")
        words.append(f"find a rate: {program} lr_find -c {folder / CONFIG} --fit=true")
    if testable:
        checkpoint = folder / (BEST if (folder / BEST).is_file() else LAST)
        words.append(f"to test it:  {program} test --ckpt_path={checkpoint}")
    return words


def _over_samples(name: str) -> str:
    return f"samples_seen/{name.replace('/', '_')}"


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def _log_every_n_steps(trainer: pl.Trainer) -> int:
    return int(trainer.__dict__["log_every_n_steps"])  # Lightning sets it without declaring it
