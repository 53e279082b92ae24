"""What `test` and `predict` leave behind: pictures of what went wrong, and a table of predictions."""

import csv
import io
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import BasePredictionWriter, Callback
from torch import Tensor

from unstall.runs import pictures as figures
from unstall.runs.files import write
from unstall.runs.folder import datamodule_of, log_dir, tensorboard_of


class Mistakes(Callback):
    """At the end of testing: the confusion matrix, and the samples that the network got wrong with most confidence.

    Args:
        count: How many of the worst mistakes to show.
    """

    def __init__(self, count: int = 25) -> None:
        self.count = count

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start counting."""
        self.confusion: Tensor | None = None
        self.worst: list[tuple[float, Tensor, int, int]] = []

    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count one batch, if the test step returned its logits ``(batch, classes)``."""
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            return
        (inputs, labels), classes = batch, outputs.shape[1]
        predicted = outputs.argmax(dim=1)
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)
        self.confusion = counts if self.confusion is None else self.confusion + counts
        losses = F.cross_entropy(outputs, labels, reduction="none")
        for index in (predicted != labels).nonzero().flatten().tolist():
            self.worst.append((float(losses[index]), inputs[index].cpu(), int(labels[index]), int(predicted[index])))
        self.worst = sorted(self.worst, key=lambda mistake: -mistake[0])[: self.count]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw both into TensorBoard and, as PNG, into the run's folder."""
        if self.confusion is None:
            return
        gathered = pl_module.all_gather(self.confusion)
        assert isinstance(gathered, Tensor)
        counts = gathered.reshape(-1, *self.confusion.shape).sum(0).cpu()
        folder = log_dir(trainer)
        if not trainer.is_global_zero or folder is None:
            return
        classes = getattr(datamodule_of(trainer), "classes", None) or [str(index) for index in range(len(counts))]
        pictures = {"confusion_matrix": figures.confusion_matrix(counts, classes)}
        if self.worst and self.worst[0][1].ndim == 3 and len(self.worst[0][1]) in (1, 3):
            images = torch.stack([image for _, image, _, _ in self.worst])
            captions = [f"{classes[label]}, taken for {classes[guess]}" for _, _, label, guess in self.worst]
            pictures["worst_mistakes"] = figures.mistakes(images, captions)
        logger = tensorboard_of(trainer)
        for name, figure in pictures.items():
            if logger is not None:
                logger.experiment.add_figure(f"test/{name}", figure, close=False)
            write(folder / f"{name}.png", figures.png(figure))


class Predictions(BasePredictionWriter):
    """Writes ``predictions.csv``: file or index, label, and the probability of each class."""

    def __init__(self) -> None:
        super().__init__(write_interval="epoch")

    def write_on_epoch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, predictions: Any, batch_indices: Any
    ) -> None:
        """Write this rank's predictions, each a tensor of probabilities ``(batch, classes)``."""
        probabilities = torch.cat(list(predictions)).float().cpu()
        classes = getattr(datamodule_of(trainer), "classes", None) or [str(k) for k in range(probabilities.shape[1])]
        names = getattr(datamodule_of(trainer), "predict_names", None) or [str(k) for k in range(len(probabilities))]
        # Evaluation samplers deal the samples out in turn: rank r has r, r + world, r + 2 world, ...
        names = names[trainer.global_rank :: trainer.world_size]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["item", "label", *(f"probability_{name}" for name in classes)])
        for name, row in zip(names, probabilities, strict=True):
            writer.writerow([name, classes[int(row.argmax())], *(f"{value:.6f}" for value in row.tolist())])
        folder = log_dir(trainer) or Path(trainer.default_root_dir)
        rank = f"-{trainer.global_rank}" if trainer.world_size > 1 else ""
        write(folder / f"predictions{rank}.csv", text.getvalue())
