"""Stalls that people reported in public, rebuilt as small modules: each as it stalled, and repaired (`fixed`).

data/reported.yaml says which module goes with which data, and where each was reported; stalls.py runs them.
"""

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR, StepLR
from torch.utils.data import DataLoader, TensorDataset

from program_data import read_mnist, scikit_learn

Batch = tuple[Tensor, Tensor]


# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class Network(pl.LightningModule):
    """Dense layers with ReLU, and Adam; with a momentum, SGD.

    Args:
        lr: Learning rate.
        fixed: As it was repaired.
    """

    widths: Sequence[int]
    momentum: float | None = None

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.fixed = lr, fixed
        self.net = self.layers()

    def layers(self) -> nn.Sequential:
        net = nn.Sequential(nn.Flatten())
        for inputs, outputs in pairwise(self.widths):
            net.extend([nn.Linear(inputs, outputs), nn.ReLU()])
        return net[:-1]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        raise NotImplementedError

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        out = self(x)
        loss = self.loss(out, y)
        for name, value in {"loss": loss, **self.score(out.detach(), y)}.items():
            self.log(f"{stage}_{name}", value, on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())

    def optimizer(self, weights: Any, weight_decay: float = 0.0) -> Optimizer:
        if self.momentum is None:
            return Adam(weights, lr=self.lr, weight_decay=weight_decay)
        return SGD(weights, lr=self.lr, momentum=self.momentum, weight_decay=weight_decay)


class Regression(Network):
    """The mean squared error of one output; `r2` is the share of the variance that it explains."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"r2": 1 - (out.flatten() - y.flatten()).square().mean() / y.var()}


class Classifier(Network):
    """Cross-entropy of logits."""

    widths: Sequence[int] = (784, 64, 32, 10)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": (out.argmax(1) == y).float().mean()}


class ByMomentum(Classifier):
    """The same with SGD."""

    momentum = 0.9


class OfATable(ByMomentum):
    """The same for 30 features and 2 classes."""

    widths = 30, 32, 16, 2


class Broadcast(Regression):
    """Predictions (N, 1), targets (N): the difference is (N, N), and the mean is all that can be learned."""

    widths = 10, 64, 64, 1

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(1) if self.fixed else out


class SigmoidAtTheEnd(Regression):
    """A sigmoid as the last layer, and targets of 0 to 40."""

    widths = 3, 64, 64, 1

    def layers(self) -> nn.Sequential:
        net = super().layers()
        return net if self.fixed else net.append(nn.Sigmoid())


class OfPrices(Regression):
    """Nothing wrong with it."""

    widths = 8, 64, 32, 1


class OneInThirty(Classifier):
    """No weights for classes of which one is rare; `recall` is the share of its samples that are found."""

    widths = 20, 32, 2

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.register_buffer("weights", torch.tensor([1.0, 30.0 if fixed else 1.0]))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y, weight=self.get_buffer("weights"))

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        found = (out.argmax(1) == 1) & (y == 1)
        return {**super().score(out, y), "recall": found.sum() / (y == 1).sum().clamp(min=1)}


class HeadOnly(Classifier):
    """Only the last layer is given to the optimizer."""

    def layers(self) -> nn.Sequential:
        encoder: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in pairwise((784, 12, 12, 12)):
            encoder += [nn.Linear(inputs, outputs), nn.Tanh()]
        return nn.Sequential(*encoder, nn.Linear(12, 10))

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters() if self.fixed else self.net[-1].parameters())


class Decayed(ByMomentum):
    """A weight decay of 0.5."""

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters(), weight_decay=5e-4 if self.fixed else 0.5)


class SteppedPerBatch(Classifier):
    """A schedule meant for epochs is stepped after every batch."""

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.parameters())
        scheduler = StepLR(optimizer, step_size=2, gamma=0.1)
        interval = "epoch" if self.fixed else "step"
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": interval}}


class WarmingUp(ByMomentum):
    """A warm-up of 20,000 steps in a run of 400."""

    def configure_optimizers(self) -> Any:
        optimizer, steps = self.optimizer(self.parameters()), 40 if self.fixed else 20_000
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class Slow(Classifier):
    """SGD with a rate a hundred times too low."""

    momentum = 0.0

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(300 * lr if fixed else lr, fixed)


class LogOfZero(Classifier):
    """Pixels up to 255, and the logarithm of a softmax without care for zero."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * 255)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        if self.fixed:
            return F.cross_entropy(out, y)
        return -(F.one_hot(y, 10) * out.softmax(1).log()).sum(1).mean()


class Mixed(Classifier):
    """A GRU that wants (time, batch, features), and a reshape in the place of a permutation."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.GRU(28, 32), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        gru, head = self.net
        sequences, _ = gru(x.permute(1, 0, 2) if self.fixed else x.reshape(28, len(x), 28))
        out: Tensor = head(sequences[-1])
        return out


class Dropped(Classifier):
    """Dropout of 0.9 after every one of three narrow layers."""

    widths = 784, 48, 48, 48, 10

    def layers(self) -> nn.Sequential:
        net = nn.Sequential()
        for layer in super().layers():
            net.append(layer)
            if isinstance(layer, nn.ReLU):
                net.append(nn.Dropout(0.1 if self.fixed else 0.9))
        return net


class OneSigmoid(Classifier):
    """One output and binary cross-entropy, with labels 0 to 9: the loss goes to minus infinity."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10 if self.fixed else 1))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        if self.fixed:
            return F.cross_entropy(out, y)
        return F.binary_cross_entropy_with_logits(out.squeeze(1), y.float())

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return super().score(out, y) if self.fixed else {"acc": (out.squeeze(1).sigmoid().round() == y).float().mean()}


class Softmaxed(Network):
    """A softmax over a single output: it is 1 for every input."""

    widths = 30, 32, 1

    def layers(self) -> nn.Sequential:
        return super().layers().append(nn.Sigmoid() if self.fixed else nn.Softmax(dim=1))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": (out.round() == y).float().mean()}


class WrongSign(Classifier):
    """The minus before the log-probability is missing: the likelihood is minimised."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        log_p = F.log_softmax(out, 1).gather(1, y[:, None])
        return -log_p.mean() if self.fixed else log_p.mean()


class SquaredSoftmax(ByMomentum):
    """The mean squared error of softmax outputs."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        if self.fixed:
            return F.cross_entropy(out, y)
        return F.mse_loss(out.softmax(1), F.one_hot(y, 10).float())


# What they train on, in the same way.


class Samples(pl.LightningDataModule):
    """Inputs and targets in memory, shuffled in each epoch.

    Args:
        batch_size: Samples a step.
        fixed: As it was repaired.
    """

    shuffled = True

    def __init__(self, batch_size: int = 64, fixed: bool = True) -> None:
        super().__init__()
        self.batch_size, self.fixed = batch_size, fixed

    def parts(self) -> tuple[Batch, Batch]:
        """Return what to train and what to validate on."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        self.training, self.validation = (TensorDataset(*part) for part in self.parts())

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.training, self.batch_size, shuffle=self.shuffled)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.validation, 500)


class Images(Samples):
    """MNIST: images (B, 28, 28) in [0, 1], labels (B)."""

    samples = 6000

    def parts(self) -> tuple[Batch, Batch]:
        return digits(0, self.samples), digits(50_000, 52_000)


class FewerImages(Images):
    """Fewer still."""

    samples = 4000


class CastToIntegers(Images):
    """Images scaled to 0-1 are stored in an array of integers: all of them are black."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), (held_x, held_y) = super().parts()
        kind = torch.float32 if self.fixed else torch.int64
        return ((x * 0.99).to(kind).float(), y), ((held_x * 0.99).to(kind).float(), held_y)


class Sorted(Images):
    """Sorted by class, as a loader reads them: folder by folder; and nobody shuffles them."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), held_out = super().parts()
        self.shuffled, order = self.fixed, y.argsort()
        return (x[order], y[order]), held_out


class StoppedEarly(Images):
    """A single epoch of so few samples that it is simply stopped too early."""

    def parts(self) -> tuple[Batch, Batch]:
        return digits(0, 20_000 if self.fixed else 2_000), super().parts()[1]


class Friedman(Samples):
    """Friedman's first function of 10 features in [-1, 1], standardised; targets (B)."""

    def parts(self) -> tuple[Batch, Batch]:
        x, y = scikit_learn("make_friedman1")(5000, noise=0.5, random_state=0)
        y = (y - y.mean()) / y.std()
        return _divided(torch.tensor(x).float() * 2 - 1, torch.tensor(y).float(), 4000)


class Weather(Samples):
    """Temperatures of a day, from the hour, the month and the clouds."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(2)
        x = torch.rand(5000, 3, generator=drawn)
        y = 18 + 10 * torch.sin(6.28 * x[:, 0]) + 8 * torch.cos(6.28 * x[:, 1]) * (1 - x[:, 2])
        return _divided(x, (y + torch.randn(5000, generator=drawn))[:, None], 4000)


class Prices(Samples):
    """House prices around 250,000, fed to the network as they are."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(3)
        x = torch.randn(5000, 8, generator=drawn)
        price = 250_000 * torch.exp(0.3 * x[:, 0] + 0.2 * x[:, 1] * x[:, 2] - 0.2 * x[:, 3].abs())
        y = (price + 10_000 * torch.randn(5000, generator=drawn))[:, None]
        return _divided(x, (y - y[:4000].mean()) / y[:4000].std() if self.fixed else y, 4000)


class Rare(Samples):
    """20 features; one sample in thirty is positive."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(4)
        y = (torch.rand(8000, generator=drawn) < 1 / 30).long()
        x = torch.randn(8000, 20, generator=drawn)
        x[:, :4] += 0.6 * y[:, None]
        return _divided(x, y, 6000)


class Tumours(Samples):
    """Breast cancer: 30 features, standardised, and targets (B, 1) of 0 and 1."""

    def parts(self) -> tuple[Batch, Batch]:
        x, y, _ = tumours()
        return _divided(x, y[:, None].float(), 400)


class WithHoles(Samples):
    """The same with labels (B), and a few cells of the table are empty."""

    def parts(self) -> tuple[Batch, Batch]:
        x, y, drawn = tumours()
        x[torch.randint(0, 400, (6,), generator=drawn), torch.randint(0, 30, (6,), generator=drawn)] = math.nan
        return _divided(x.nan_to_num() if self.fixed else x, y, 400)


def tumours() -> tuple[Tensor, Tensor, torch.Generator]:
    """Breast cancer in random order, and the generator that drew it."""
    x, y = (torch.tensor(values) for values in scikit_learn("load_breast_cancer")(return_X_y=True))
    drawn = torch.Generator().manual_seed(0)
    order = torch.randperm(len(y), generator=drawn)
    x, y = x.float()[order], y[order]
    return (x - x[:400].mean(0)) / x[:400].std(0), y, drawn


@functools.lru_cache(maxsize=4)
def digits(start: int, stop: int) -> Batch:
    """Images `(N, 28, 28)` in [0, 1] and labels `(N)` of MNIST's training set."""
    images, labels = read_mnist("train")
    return torch.tensor(images[start:stop]).float() / 255, torch.tensor(labels[start:stop]).long()


def _divided(x: Tensor, y: Tensor, cut: int) -> tuple[Batch, Batch]:
    return (x[:cut], y[:cut]), (x[cut:], y[cut:])
