"""What TensorBoard shows beside the metrics of a run."""

import io
import re
import warnings
from collections.abc import Container, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from unstall.runs.files import write
from unstall.runs.folder import CONFIG, RunLogger, log_dir, tensorboard_of
from unstall.runs.glance import GLANCE, points_of, title_of
from unstall.runs.history import LEVELS, History
from unstall.runs.hyperparameters import HPARAMS, hyperparameters_of
from unstall.runs.metrics import logged_as, quantity_of, stage_of


class Curves(Callback):
    """What TensorBoard shows beside the metrics: curves within an epoch, their layout, hyper-parameters, the graph."""

    METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")

    def __init__(self) -> None:
        self._hyperparameters: dict[str, Any] | None = None
        self._charts: dict[str, Any] | None = None
        self._drawn: dict[str, Any] = {}
        self._stepped = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known before the first step."""
        self._hyperparameters = self._charts = None
        # The base config's `log_every_n_steps` may be more than a short epoch has: then once an epoch.
        self._interval = max(1, min(_log_every_n_steps(trainer), trainer.num_training_batches))
        hyperparameters = hyperparameters_of(trainer, pl_module)
        logger, folder = tensorboard_of(trainer), log_dir(trainer)
        if logger is None or folder is None or not trainer.is_global_zero:
            return
        logger.hparams.update(hyperparameters)
        write(folder / HPARAMS, yaml.safe_dump(hyperparameters, sort_keys=False))
        if (folder / CONFIG).is_file():
            logger.experiment.add_text("resolved_config", f"```yaml\n{(folder / CONFIG).read_text()}\n```")
        self._hyperparameters, self._charts = hyperparameters, {}

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Draw the network's graph from the first batch of a new run."""
        if batch_idx or trainer.global_step:
            return
        logger = tensorboard_of(trainer)
        if logger is None or not trainer.is_global_zero:
            return
        network = getattr(pl_module, "network", pl_module)
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        was_training = network.training
        network.eval()  # a traced forward must not move BatchNorm's averages
        try:
            # The tracer prints what it cannot follow.
            with torch.random.fork_rng(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")  # torch means to drop the tracer that TensorBoard still uses
                logger.experiment.add_graph(network, inputs[:1], use_strict_trace=False)
        except Exception:  # whatever the tracer cannot follow: a picture is missing, the training is not affected
            pass
        finally:
            network.train(was_training)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log the norm of the whole gradient, after any clipping, and the rate of the step."""
        if trainer.global_step % self._interval == 0:
            gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            rate = float(trainer.optimizers[0].param_groups[0]["lr"])
            _log(trainer, {"step/gradient_norm": float(norm), "learning_rate": rate}, trainer.global_step)
            self._stepped = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the loss of this batch, if its step is drawn."""
        if self._stepped and isinstance(outputs, dict) and "loss" in outputs:
            # Lightning hands out the loss divided by the batches that are accumulated.
            loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
            _log(trainer, {"step/train_loss": loss}, trainer.global_step - 1)
        self._stepped = False

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write to the disk what the epoch before has logged last; after the first, the layout, too."""
        self._lay_out(trainer)
        _flush(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the epoch's means, and write all to the disk, before the checkpoint that a killed run goes on from.

        Lightning logs them after it.
        """
        logger = tensorboard_of(trainer)
        if isinstance(logger, RunLogger) and pl_module.automatic_optimization and "step" not in trainer.logged_metrics:
            means = {name: value for name, value in trainer.logged_metrics.items() if stage_of(name) == "train"}
            # One that was not logged in this epoch is still there, the same object as before.
            new = {name: float(value) for name, value in means.items() if value is not self._drawn.get(name)}
            self._drawn = dict(means)
            logger.log_metrics(new, step=trainer.global_step - 1)
        _flush(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write to the disk what the last epoch has logged last."""
        self._lay_out(trainer, ended=True)
        _flush(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Write it also for a run that ends before that."""
        self._lay_out(trainer, ended=True)

    def _lay_out(self, trainer: pl.Trainer, ended: bool = False) -> None:
        logger = tensorboard_of(trainer)
        if logger is None or self._charts is None:
            return
        names = [name for name in trainer.logged_metrics if stage_of(name)]
        validated = any(stage_of(name) == "val" for name in names) or not sum(trainer.num_val_batches)
        if not ended and not (names and validated):
            return  # there are more to come, as with `check_val_every_n_epoch`
        compared = [name for metric in self.METRICS if (name := logged_as(metric, names))]

        from torch.utils.tensorboard.summary import hparams

        row = _last_row(trainer)
        drawn = logger.drawn if isinstance(logger, RunLogger) else points_of(row)
        over_epochs = [curve for curve in drawn if curve.startswith(f"{GLANCE}/")]
        charts = layout(names, over_epochs, row)
        if charts != self._charts:  # a curve may begin later, as of what takes some steps to measure
            logger.experiment.add_custom_scalars(charts)
            self._charts = charts
        if self._hyperparameters is None:
            return
        # The values of these metrics are the last points of their curves: none is written here.
        metrics = dict.fromkeys([*compared, *names] or self.METRICS, 0.0)
        for summary in hparams(self._hyperparameters, metrics):  # type: ignore[no-untyped-call]
            logger.experiment._get_file_writer().add_summary(summary)
        self._hyperparameters = None


def layout(
    names: Sequence[str], over_epochs: Sequence[str], references: Container[str] = ()
) -> dict[str, dict[str, list[Any]]]:
    """Return TensorBoard's custom scalars: a run at a glance, then training and validation on the same axes.

    Args:
        names: The metrics of training and validation that were logged.
        over_epochs: The curves at a glance that were drawn.
        references: Which of `LEVELS` are known.
    """
    over_steps: dict[str, list[Any]] = {}
    for quantity in "loss", "accuracy":
        curves = [name for stage in ("train", "val") if (name := logged_as(f"{stage}/{quantity}", names))]
        levels = [f"reference/{name}" for name in LEVELS if name in references and quantity_of(name) == quantity]
        if curves:
            over_steps[quantity] = _chart([*curves, *levels])
    glance = {title_of(curve): _chart([curve]) for curve in sorted(over_epochs)}
    charts = {"at a glance, over epochs": glance, "training and validation, over steps": over_steps}
    return {category: charts for category, charts in charts.items() if charts}


def _chart(curves: Sequence[str]) -> list[Any]:
    return ["Multiline", [f"{re.escape(name)}$" for name in curves]]  # what is given are expressions


def _last_row(trainer: pl.Trainer) -> Mapping[str, float]:
    callbacks = vars(trainer)["callbacks"]  # Lightning sets them without declaring them
    history = next((callback for callback in callbacks if isinstance(callback, History)), None)
    return history.rows[-1] if history is not None and history.rows else {}


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def _flush(trainer: pl.Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.flush()


def _log_every_n_steps(trainer: pl.Trainer) -> int:
    return int(trainer.__dict__["log_every_n_steps"])  # Lightning sets it without declaring it
