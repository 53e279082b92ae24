"""What TensorBoard shows beside the metrics of a run."""

import io
import warnings
from contextlib import redirect_stdout
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger

from unstall.runs.files import write
from unstall.runs.folder import CONFIG, RunLogger, log_dir, tensorboard_of
from unstall.runs.history import _over_samples
from unstall.runs.hyperparameters import HPARAMS, hyperparameters_of
from unstall.runs.metrics import logged_as, stage_of


class Curves(Callback):
    """What TensorBoard shows beside the metrics: curves within an epoch, their layout, hyper-parameters, the graph."""

    METRICS = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")

    def __init__(self) -> None:
        self._hyperparameters: dict[str, Any] | None = None
        self._drawn: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what is known before the first step."""
        self._hyperparameters = None
        # The base config's `log_every_n_steps` may be more than a short epoch has: then once an epoch.
        self._interval = max(1, min(_log_every_n_steps(trainer), trainer.num_training_batches))
        hyperparameters = hyperparameters_of(trainer, pl_module)
        logger, folder = tensorboard_of(trainer), log_dir(trainer)
        if logger is None or folder is None or not trainer.is_global_zero:
            return
        logger.hparams.update(hyperparameters)
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

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write to the disk what the epoch before has logged last."""
        _flush(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the epoch's means, and write all to the disk, before the checkpoint that a killed run goes on from.

        Lightning logs them after it; after the first epoch, when the metrics have names, write what refers to them.
        """
        self._lay_out(trainer)
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
        _flush(trainer)

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


def _log(trainer: pl.Trainer, metrics: dict[str, float], step: int) -> None:
    for logger in trainer.loggers:
        logger.log_metrics(metrics, step=step)


def _flush(trainer: pl.Trainer) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            logger.experiment.flush()


def _log_every_n_steps(trainer: pl.Trainer) -> int:
    return int(trainer.__dict__["log_every_n_steps"])  # Lightning sets it without declaring it
