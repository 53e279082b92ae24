"""The simple method to beat: a linear model of samples that a run has seen, fitted when the run is over."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from unstall.audit import Reference, tensors_in

NUMBERS = 2**23
"""How many are kept of a loader's first batches: 32 MiB, and less than a second to fit."""
ROWS = 4
"""Samples per column from which on a linear model is fitted: the error that least squares then adds to that of the best
linear model is a third of the noise, columns / (samples - columns) (Hastie et al., "Surprises in high-dimensional
ridgeless least squares interpolation", 2022)."""
OUTPUTS = 2 * 10**8
"""The same in samples times columns times outputs, for the time that a fit takes."""
PENALTY, ITERATIONS = 10.0, 20
"""Of the weights of standardised columns, in samples, and of L-BFGS. Between 1 and 30, and up to 60, the accuracy on
784 columns and ten classes moves by one point."""


class LinearBaseline(Callback):
    """Keeps the first batches of training and of validation, of which `reached` fits a linear model and measures it.

    It copies tensors that the run has loaded anyway, draws no random number and logs nothing. Batches of anything but
    inputs and targets, one tensor each, are left alone.
    """

    def __init__(self) -> None:
        self.training, self.held_out = Kept(), Kept()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget what another fit has seen."""
        self.training, self.held_out = Kept(), Kept()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Keep the batch."""
        self.training.add(batch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The next epoch has the same samples."""
        self.training.open = False

    def on_validation_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the batch of the first loader."""
        if not trainer.sanity_checking and dataloader_idx == 0:
            self.held_out.add(batch)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The next validation has the same samples."""
        if not trainer.sanity_checking:
            self.held_out.open = False

    def reached(self, reference: Reference | None) -> tuple[int, dict[str, float]] | None:
        """Return on how many samples a linear model was fitted, and its `loss` (the run's) and `accuracy`, held out.

        Args:
            reference: What the run's loss is.

        Returns:
            None where no linear model fits: another loss, weighted classes, too few samples for the columns.
        """
        if reference is None or reference.weights:
            return None
        try:
            seen, new = (kept.samples(reference) for kept in (self.training, self.held_out))
            found = None if seen is None or new is None else fitted(reference.kind, *seen, *new)
        except Exception:  # other targets in validation than in training, a device without such an operation
            return None
        return None if seen is None or found is None else (len(seen[0]), found)


class Kept:
    """Pairs of tensors from a loader's first batches, as long as there is room."""

    def __init__(self) -> None:
        self.pairs: list[list[Tensor]] = []
        self.open = True
        self._numbers = 0

    def add(self, batch: Any) -> None:
        """Keep a copy of a batch's two tensors; of a loader whose batches are others, or too large, nothing."""
        if not self.open:
            return
        pair = list(tensors_in(batch))
        rows = {len(part) if part.ndim and part.layout == torch.strided and not part.is_nested else 0 for part in pair}
        if len(pair) != 2 or len(rows) > 1 or rows == {0}:
            self.open, self.pairs = False, []
            return
        columns = max(part[0].numel() for part in pair)
        self._numbers += sum(part.numel() for part in pair)
        self.open = self._numbers <= NUMBERS and ROWS * columns**2 <= NUMBERS
        if self.open:
            self.pairs.append([part.detach().clone() for part in pair])

    def samples(self, reference: Reference) -> tuple[Tensor, Tensor] | None:
        """Return inputs `(samples, columns)` and targets, `(samples,)` of classes or else `(samples, outputs)`."""
        pairs = [(pair[1 - reference.part], reference.targets(pair)) for pair in self.pairs]
        inputs = torch.cat([inputs.flatten(1) for inputs, _ in pairs]) if pairs else torch.zeros(0, 1)
        targets = torch.cat([targets for _, targets in pairs if targets is not None]) if pairs else inputs
        numeric = inputs.is_floating_point() or inputs.dtype == torch.uint8  # whole numbers may be names of something
        if not numeric or not len(inputs) or len(targets) != len(inputs):
            return None
        if reference.kind != "classes":
            return inputs.float(), targets.reshape(len(targets), -1).float()
        return (inputs.float(), targets) if targets.ndim == 1 and bool((targets >= 0).all()) else None


def fitted(kind: str, inputs: Tensor, targets: Tensor, new: Tensor, wanted: Tensor) -> dict[str, float] | None:
    """Fit a linear model and return its `loss`, and of classes its `accuracy`, on new samples.

    Args:
        kind: As of `Reference`: the loss is the cross-entropy of `classes`, that of each `binary` column on its own, or
            the mean of `squares`.
        inputs: `(samples, columns)`.
        targets: `(samples,)` of classes, else `(samples, outputs)`.
        new: Inputs of other samples.
        wanted: Their targets.
    """
    if len(inputs) < ROWS:
        return None
    varied = inputs.std(0) > 0
    mean, spread = inputs[:, varied].mean(0), inputs[:, varied].std(0)
    outputs = int(max(targets.max(), wanted.max())) + 1 if kind == "classes" else targets.shape[1]
    rows, columns = len(inputs), int(varied.sum())
    if not columns or rows < ROWS * columns or rows * columns * outputs > OUTPUTS:
        return None
    seen, unseen = (
        torch.cat([(part[:, varied] - mean) / spread, part.new_ones(len(part), 1)], 1) for part in (inputs, new)
    )
    if kind == "squares":
        gram = seen.double().T @ seen.double() + 1e-6 * rows * torch.eye(columns + 1).to(seen.device)
        answers = unseen @ torch.linalg.solve(gram, seen.double().T @ targets.double()).float()
        found = {"loss": F.mse_loss(answers, wanted)}
    else:
        loss: Callable[[Tensor, Tensor], Tensor]
        loss = F.cross_entropy if kind == "classes" else F.binary_cross_entropy_with_logits
        answers = unseen @ _regressed(seen, targets, outputs, loss)
        right = answers.argmax(1) == wanted if kind == "classes" else (answers > 0) == (wanted > 0.5)
        found = {"loss": loss(answers, wanted), "accuracy": right.float().mean()}
    return {name: float(value) for name, value in found.items()} if bool(found["loss"].isfinite()) else None


def _regressed(inputs: Tensor, targets: Tensor, outputs: int, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return the weights `(columns, outputs)` of a logistic regression."""
    weights = torch.zeros(inputs.shape[1], outputs, device=inputs.device, requires_grad=True)
    search = torch.optim.LBFGS([weights], max_iter=ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> float:
        search.zero_grad()
        value = loss(inputs @ weights, targets) + PENALTY / len(inputs) / 2 * weights.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
    return weights.detach()
