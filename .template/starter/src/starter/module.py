"""The LightningModule: what a step computes, what is logged, which optimizer trains."""

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from starter.network import Network

Batch = tuple[Tensor, Tensor]


class Classifier(pl.LightningModule):
    """Trains the network with cross-entropy and Adam.

    Args:
        hidden: Units in each hidden layer.
        learning_rate: Adam's; `unstall lr_find` looks for it under this name.
    """

    def __init__(self, hidden: int = 64, learning_rate: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.network = Network(hidden)
        self.learning_rate = learning_rate

    def forward(self, inputs: Tensor) -> Tensor:
        """Map points `(batch, 2)` to logits `(batch, 2)`."""
        logits: Tensor = self.network(inputs)
        return logits

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the mean cross-entropy (nats) of a batch of points and their classes `(batch,)`."""
        return self._step("train", batch)[0]

    def validation_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and accuracy over the validation set; return the loss."""
        return self._step("val", batch)[0]

    def test_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Log loss and accuracy over the test set; return the logits for the callbacks."""
        return self._step("test", batch)[1]

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return class probabilities `(batch, 2)`."""
        return self(batch[0]).softmax(dim=1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimizer of torch has a place here."""
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def _step(self, stage: str, batch: Batch) -> tuple[Tensor, Tensor]:
        inputs, labels = batch
        logits = self(inputs)
        loss = F.cross_entropy(logits, labels)
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        self.log_dict({f"{stage}/loss": loss, f"{stage}/accuracy": accuracy}, on_step=False, on_epoch=True)
        return loss, logits
