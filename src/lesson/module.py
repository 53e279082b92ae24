"""The LightningModule: any network, any optimizer, any schedule, with the steps and metrics of a classifier."""

import math
import warnings

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from unstall import Mean, UsageError

Batch = tuple[Tensor, Tensor]


class LitClassifier(pl.LightningModule):
    """Trains a network that maps inputs ``(batch, ...)`` to logits ``(batch, classes)`` with cross-entropy.

    Args:
        network: Any ``nn.Module`` that returns logits, by class path.
        optimizer: Any ``torch.optim`` class by name, with its arguments; its ``lr`` is *the* learning rate.
        lr_scheduler: Any scheduler of ``torch.optim.lr_scheduler``, stepped once an epoch; none leaves the rate
            constant.

    Raises:
        UsageError: if the optimizer refuses its arguments, such as a negative learning rate.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
    ) -> None:
        super().__init__()
        # The command line's parsed values (class paths and numbers) are kept, not the objects: a checkpoint must
        # load with `weights_only=True`. The callbacks write the flat table that TensorBoard shows.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attribute 'network' is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        for name in [name for name, value in self.hparams.items() if callable(value)]:  # built in Python, not parsed
            del self.hparams[name]
        self.network = network
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        names = [f"{stage}/{name}" for stage in ("train", "val", "test") for name in ("loss", "accuracy")]
        self.means = nn.ModuleDict({name: Mean() for name in names})
        self._check_optimizer()

    def forward(self, inputs: Tensor) -> Tensor:
        """Map inputs ``(batch, ...)`` to logits ``(batch, classes)``."""
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy (nats) of one batch of inputs and integer labels ``(batch,)``."""
        return self._step("train", batch, batch_idx)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and accuracy over exactly the validation set; return the loss."""
        return self._step("val", batch, batch_idx)[0]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and accuracy over the test set; return the logits ``(batch, classes)`` for the callbacks."""
        return self._step("test", batch, batch_idx)[1]

    def predict_step(self, batch: Batch | Tensor, batch_idx: int) -> Tensor:
        """Return class probabilities ``(batch, classes)``; labels, if the batch has any, are not looked at."""
        inputs = batch if isinstance(batch, Tensor) else batch[0]
        return self.forward(inputs).softmax(dim=1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Build the injected optimizer, and the injected schedule on top of it."""
        optimizer = self.optimizer(self.parameters())
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": scheduler.monitor}}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def check_batch(self, batch: Batch) -> None:
        """Try one batch, without training, so that a mismatch of network and data is found before any work starts.

        Raises:
            UsageError: if the labels are none, the network refuses the inputs, or has fewer outputs than they need.
        """
        inputs, labels = batch
        if labels.is_floating_point() or labels.ndim != 1 or int(labels.min()) < 0:
            lowest = f"down to {labels.min()}" if labels.ndim == 1 else f"of shape {tuple(labels.shape)}"
            raise UsageError(f"data: its labels are {labels.dtype}, {lowest}: give whole numbers from 0, one a sample")
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                logits = self(inputs[:2])
        except RuntimeError as error:
            given = math.prod(inputs.shape[1:])
            raise UsageError(
                f"model.network={_describe(self.network)} does not take inputs of shape "
                f"{tuple(inputs.shape[1:])}, {given} numbers each ({str(error).splitlines()[0]}): "
                f"match its input to the data (for an MLP: widths that begin with {given})"
            ) from None
        finally:
            self.train(was_training)
        needed = int(labels.max()) + 1
        if logits.ndim != 2 or logits.shape[1] < needed:
            raise UsageError(
                f"model.network={_describe(self.network)} returns logits of shape {tuple(logits.shape)[1:]}, "
                f"and the labels go up to {needed - 1}: give it at least {needed} outputs"
            )

    def _step(self, stage: str, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        inputs, labels = batch
        logits = self(inputs)
        loss = F.cross_entropy(logits, labels)
        hits = (logits.argmax(dim=1) == labels).sum()
        self._note(f"{stage}/loss", loss.detach() * len(labels), len(labels), batch_idx)
        self._note(f"{stage}/accuracy", hits, len(labels), batch_idx)
        return loss, logits

    def _note(self, name: str, total: Tensor, samples: int, batch_idx: int) -> None:
        # Lightning reads the mean when the epoch ends. Handed every batch's value, it walks and copies its results for
        # each (`docs/speed.md`).
        mean = self.means[name]
        assert isinstance(mean, Mean)
        if batch_idx == 0 or not mean.update_called:
            mean.reset()
            self.log(name, mean, on_step=False, on_epoch=True, metric_attribute=f"means.{name}")
        mean.update(total, samples)

    def _check_optimizer(self) -> None:
        try:
            optimizer = self.optimizer(self.parameters())
        except (ValueError, TypeError) as error:
            raise UsageError(f"model.optimizer: {error}") from None
        for group in optimizer.param_groups:
            if not math.isfinite(group["lr"]):
                raise UsageError(f"model.optimizer.lr={group['lr']}: give a finite learning rate, such as 1e-2")


def _describe(network: nn.Module) -> str:
    widths = [layer.in_features for layer in network.modules() if isinstance(layer, nn.Linear)]
    return f"{type(network).__name__}({widths[0]} inputs)" if widths else type(network).__name__
