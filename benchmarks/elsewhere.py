"""Stalls that people reported on Stack Overflow, Stack Exchange, blogs and forums in several languages.

They were looked for and rebuilt by someone who did not know the rules of the diagnosis: as they stalled, and repaired.
data/elsewhere.yaml says which module goes with which data, and where each was reported; stalls.py runs them.
"""

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reported import Batch, FewerImages, Samples
from reported import Friedman as Friedman
from reported import Images as Images

# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class Asked(pl.LightningModule):
    """What every asker's module has: `criterion` is their loss, `net` their network where it is a mere sequence.

    Args:
        lr: Learning rate.
        fixed: As it was repaired.
    """

    net: nn.Sequential
    threshold = 0.0
    criterion: Any = nn.CrossEntropyLoss()

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.fixed = lr, fixed

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The share of classes that are right: of several, or of two, with the targets 0 and 1."""
        right = (out > self.threshold) == (y > 0.5) if y.is_floating_point() else out.argmax(dim=1) == y
        return {"accuracy": right.float().mean()}

    def step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        out = self(x)
        loss: Tensor = self.criterion(out, y)
        for name, value in {"loss": loss, **self.score(out.detach(), y)}.items():
            self.log(f"{stage}_{name}", value.detach(), on_step=False, on_epoch=True)
        return loss

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.step(batch, "val")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class AskedForNumbers(Asked):
    """The same with the mean squared error of numbers."""

    criterion = nn.MSELoss()

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"r2": 1 - (out.flatten() - y.flatten()).square().mean() / y.var()}


class AskedForLabels(Asked):
    """The same with labels, of which a sample may have several; `recall` is the share of them that are found."""

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        hits = ((out > 0) & (y > 0.5)).sum()
        return {"f1": 2 * hits / ((out > 0).sum() + y.sum()).clamp(min=1), "recall": hits / y.sum().clamp(min=1)}


class TwoSigmoids(Asked):
    """A layer of sigmoids and one sigmoid; nothing wrong with it but the features that it is given."""

    criterion, threshold = nn.BCELoss(), 0.5

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Linear(16, 1), nn.Sigmoid())


class FromZero(TwoSigmoids):
    """All weights begin at zero, and so all units of a layer stay alike."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        for weight in self.parameters():
            if weight.ndim == 1 or not fixed:
                nn.init.constant_(weight, 0.0)


class LikeKeras(AskedForNumbers):
    """Predictions (N, 1), as Keras wants them, and targets (N)."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.fc1 = nn.Linear(10, 100)
        self.fc2 = nn.Linear(100, 100)
        self.output_layer = nn.Linear(100, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        x = self.output_layer(x)
        return x.flatten() if self.fixed else x


class RunAgain(Asked):
    """The cell with the model was run again after that with the optimizer."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = self.tiny_vgg()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=lr)
        if not fixed:
            self.net = self.tiny_vgg()

    def tiny_vgg(self) -> nn.Sequential:
        net = nn.Sequential(nn.Unflatten(1, (1, 28)))
        for channels in (1, 10):
            net.extend([nn.Conv2d(channels, 10, 3, stride=2, padding=1), nn.ReLU()])
            net.extend([nn.Conv2d(10, 10, 3, padding=1), nn.ReLU()])
        return net.extend([nn.Flatten(), nn.Linear(490, 10)])

    def configure_optimizers(self) -> Any:
        return self.optimizer


class FloatLabels(AskedForNumbers):
    """A transformer for a number; where a sequence is padded, its vectors are zero, and the root of their variance."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.emb = nn.Embedding(20, 32, padding_idx=0)
        self.pos = nn.Parameter(0.1 * torch.randn(12, 32))
        self.attn = nn.MultiheadAttention(32, 2, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.out = nn.Linear(32, 1)

    def norm(self, x: Tensor) -> Tensor:
        x = x - x.mean(-1, keepdim=True)
        std = (x.square().mean(-1, keepdim=True) + (1e-6 if self.fixed else 0.0)).sqrt()
        return x / (std + 1e-6)

    def forward(self, tokens: Tensor) -> Tensor:
        known = tokens != 0
        h = (self.emb(tokens) + self.pos) * known.unsqueeze(-1)
        n = self.norm(h)
        h = h + self.attn(n, n, n, key_padding_mask=~known, need_weights=False)[0]
        h = h + self.ff(self.norm(h))
        out: Tensor = self.out((h * known.unsqueeze(-1)).sum(1) / known.sum(1, keepdim=True))
        return out.squeeze(-1)


class Watched(Asked):
    """Features are detached so that they can be drawn later, and the head is given what was detached."""

    criterion = nn.BCEWithLogitsLoss()

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        convolutions = [nn.Conv2d(1, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU()]
        self.feat = nn.Sequential(*convolutions, nn.Conv2d(32, 32, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Linear(128, 1)

    def forward(self, x: Tensor) -> Tensor:
        f: Tensor = self.feat(x.unsqueeze(1))
        if not self.fixed:
            f = f.detach()
        self.f_log = f
        out: Tensor = self.fc(f / (f.norm(dim=1, keepdim=True) + 1e-6))
        return out.squeeze(-1)


class Portfolio(AskedForNumbers):
    """Sixteen numbers of shares, whose values shall have given ratios; nothing wrong with it but the rate."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.shares = nn.Parameter(1 + 49 * torch.rand(16))

    def forward(self, prices: Tensor) -> Tensor:
        mv = torch.multiply(self.shares.clamp(0.0), prices)
        return torch.div(mv, mv.sum(dim=1, keepdim=True))


class Screening(AskedForLabels):
    """Rare labels, of which each is weighted by positives / negatives, and not the other way round."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5))
        share = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2])
        self.register_buffer("pos_weight", (1 - share) / share if fixed else share / (1 - share))

    def criterion(self, out: Tensor, labels: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, labels, pos_weight=self.get_buffer("pos_weight"))


class ManyLabels(AskedForLabels):
    """Sixty labels, of which a text has one or two; the loss weighs what it has no more than what it has not."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.EmbeddingBag(500, 64, mode="mean"), nn.Dropout(0.1), nn.Linear(64, 60))

    def criterion(self, out: Tensor, labels: Tensor) -> Tensor:
        weight = torch.where(labels > 0, 30.0, 1.0) if self.fixed else None
        return F.binary_cross_entropy(torch.sigmoid(out), labels, weight=weight)


class GeneralisedMean(Asked):
    """The cube root of a mean of cubes, which may be below zero: no number from the first step on."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        first = nn.Sequential(nn.Conv1d(1, 16, 7, stride=2, padding=3), nn.BatchNorm1d(16), nn.ReLU())
        self.net = first.append(nn.Conv1d(16, 32, 5, stride=2, padding=2))
        self.fc = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x_i, p = super().forward(x), 3.0
        if self.fixed:
            x_i = x_i.clamp(min=0)
        out: Tensor = self.fc((torch.mean(x_i**p, dim=-1) + 1e-12) ** (1 / p))
        return out


class Policy(Asked):
    """The logarithm of every probability, of which those far off are zero; states as they are, up to hundreds."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4), nn.Softmax(dim=-1))

    def criterion(self, prob: Tensor, action: Tensor) -> Tensor:
        log_prob = torch.log(prob.clamp(min=1e-8) if self.fixed else prob)
        return -(F.one_hot(action, 4) * log_prob).sum(dim=1).mean()


class WholePredictions(AskedForNumbers):
    """Counts are whole numbers, and so predictions are rounded down before the loss."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out if self.fixed else torch.floor(out)


class Statistics(Asked):
    """Batch normalization with the momentum that the other framework calls 0.9999: statistics hardly follow."""

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.net = nn.Sequential(nn.Unflatten(1, (1, 28)))
        for inputs, outputs, stride in ((1, 8, 2), (8, 16, 2), (16, 32, 2), (32, 32, 1), (32, 32, 1)):
            norm = nn.BatchNorm2d(outputs, momentum=0.1 if fixed else 1e-4)
            self.net.extend([nn.Conv2d(inputs, outputs, 3, stride, padding=1), norm, nn.ReLU(inplace=True)])
        self.net.extend([nn.Flatten(), nn.Linear(512, 10)])


class Continued(AskedForNumbers):
    """A matrix of wide random weights that continues a curve, by SGD; the rate and the numbers are not meant for it."""

    criterion = nn.MSELoss(reduction="sum")

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__(lr, fixed)
        self.weights = nn.Parameter(torch.normal(0.0, 0.1 if fixed else 3.0, (80, 20)))
        self.bias = nn.Parameter(torch.normal(0.0, 0.1 if fixed else 3.0, (1, 1)))

    def forward(self, params: Tensor) -> Tensor:
        return params @ self.weights + self.bias

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


# What they train on, in the same way.


class Scores(Samples):
    """Two scores around 92 as they are `(N, 2)`; targets (N, 1) say whether they are close to the middle."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(21)
        x = 92 + 12 * torch.randn(3000, 2, generator=drawn)
        y = ((x - 92).square().sum(1, keepdim=True) < 200).float()
        if self.fixed:
            x = (x - x[:2000].mean(0)) / x[:2000].std(0)
        return (x[:2000], y[:2000]), (x[2000:], y[2000:])


class Readings(Samples):
    """Twelve tokens `(N, 12)`, now and then padded with 0; the target (N) is a mean of what they stand for."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(23)
        tokens = torch.randint(1, 20, (3600, 12), generator=drawn)
        short = (torch.rand(3600, generator=drawn) < 0.004) & (torch.arange(3600) >= 200)
        tokens[short, 8:] = 0
        values = torch.randn(20, generator=drawn)[tokens] * (tokens != 0)
        y = values.sum(1) / (tokens != 0).sum(1)
        y = (y - y.mean()) / y.std()
        return (tokens[:3000], y[:3000]), (tokens[3000:], y[3000:])


class Parity(FewerImages):
    """Images, and whether a digit is odd, as (N) of 0 and 1."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), (held_x, held_y) = super().parts()
        return (x, (y % 2).float()), (held_x, (held_y % 2).float())


class Prices(Samples):
    """The same prices of sixteen shares in each row; the last is cash, of which there shall be hardly any."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(24)
        prices = torch.cat([1 + 99 * torch.rand(15, generator=drawn), torch.ones(1)])
        wanted = torch.tensor([0.999 / 15] * 15 + [0.001])
        rows = prices.repeat(640, 1), wanted.repeat(640, 1)
        return rows, (rows[0][:64], rows[1][:64])


class Findings(Samples):
    """Thirty features and five labels `(N, 5)`, of which the commonest is one in five, the rarest one in a hundred."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(26)
        x, w = torch.randn(6000, 30, generator=drawn), torch.randn(30, 5, generator=drawn)
        score = x @ w / 30**0.5 + 0.5 * torch.randn(6000, 5, generator=drawn)
        shares = torch.tensor([0.01, 0.02, 0.05, 0.1, 0.2])
        bounds = torch.stack([score[:, i].quantile(1 - share) for i, share in enumerate(shares)])
        y = (score > bounds).float()
        return (x[:5000], y[:5000]), (x[5000:], y[5000:])


class Texts(Samples):
    """Forty words `(N, 40)` and sixty labels `(N, 60)`; a text speaks of six subjects and is labelled by one or two."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(27)
        words = torch.randint(300, 500, (5000, 40), generator=drawn)
        subjects = torch.rand(5000, 60, generator=drawn).argsort(1)[:, :6]
        words[:, :24] = (subjects[:, :, None] * 5 + torch.randint(0, 5, (5000, 6, 4), generator=drawn)).flatten(1)
        second = subjects[:, 1].where(torch.rand(5000, generator=drawn) < 0.5, subjects[:, 0])
        y = F.one_hot(subjects[:, 0], 60).maximum(F.one_hot(second, 60)).float()
        words[:, 24:27] = subjects[:, :1] * 5 + torch.randint(0, 5, (5000, 3), generator=drawn)
        words = words.gather(1, torch.rand(5000, 40, generator=drawn).argsort(1))
        return (words[:4000], y[:4000]), (words[4000:], y[4000:])


class Tones(Samples):
    """Noisy waves `(N, 1, 64)` of one of four frequencies."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(28)
        y = torch.randint(0, 4, (3000,), generator=drawn)
        phase = 6.28 * torch.rand(3000, 1, generator=drawn)
        x = torch.sin(torch.arange(64) * 0.15 * (y[:, None] + 2) + phase) + 0.5 * torch.randn(3000, 64, generator=drawn)
        return (x[:2500, None], y[:2500]), (x[2500:, None], y[2500:])


class States(Samples):
    """Eight quantities up to hundreds, and the action of an expert."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(29)
        x, w = 100 * torch.randn(4000, 8, generator=drawn), torch.randn(8, 4, generator=drawn)
        y = (x @ w).argmax(dim=1)
        return (x[:3000], y[:3000]), (x[3000:], y[3000:])


class Counts(Samples):
    """Whole numbers (N, 1), by six features."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(30)
        x = torch.randn(4000, 6, generator=drawn)
        y = (6 + 3 * x[:, :1] + 2 * x[:, 1:2] * x[:, 2:3] + x[:, 3:4]).clamp(min=0).round()
        return (x[:3000], y[:3000]), (x[3000:], y[3000:])


class Cubics(Samples):
    """The first eighty points of a cubic `(N, 80)`, and the next twenty; from -10 to 10, they come to thousands."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(31)
        powers = torch.linspace(-10, 10, 100) ** torch.tensor([[3.0], [2.0], [1.0]])
        y = (0.5 + torch.rand(1000, 3, generator=drawn)) @ powers
        if self.fixed:
            y = y / y[:800].std()
        return (y[:800, :80], y[:800, 80:]), (y[800:, :80], y[800:, 80:])


class Moons(Samples):
    """Two half circles `(N, 2)` that reach into each other, and which of them it is (N, 1)."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(32)
        angle, y = 3.14 * torch.rand(1600, generator=drawn), torch.rand(1600, 1, generator=drawn).round()
        outer = torch.stack([angle.cos(), angle.sin()], dim=1)
        x = torch.where(y == 0, outer, torch.tensor([1.0, 0.5]) - outer) + 0.1 * torch.randn(1600, 2, generator=drawn)
        return (x[:1200], y[:1200]), (x[1200:], y[1200:])
