"""More stalls that people reported in public, looked for after the rules were made: as they stalled, and repaired.

data/fresh.yaml says which module goes with which data, where each was reported, and which were seen while the rules
were mended; stalls.py runs them.
"""

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from reported import Batch, ByMomentum, Classifier, Images, Regression, Samples, digits
from reported import FewerImages as FewerImages

WORDS, LENGTH = 50, 100


# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class Reader(Classifier):
    """The last state of an LSTM that has read ninety steps of padding after the last word."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.Embedding(WORDS, 16), nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        embedding, lstm, head = self.net
        states, _ = lstm(embedding(x))
        ends = (x != 0).sum(1) - 1 if self.fixed else torch.full((len(x),), x.shape[1] - 1)
        out: Tensor = head(states[torch.arange(len(x)), ends])
        return out


class Variational(Regression):
    """The reconstruction's mean over pixels, and the divergence's sum over the code."""

    def layers(self) -> nn.Sequential:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 32))
        decoder = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 784), nn.Sigmoid())
        return nn.Sequential(encoder, decoder)

    def _step(self, batch: Batch, stage: str) -> Tensor:
        pixels, (encoder, decoder) = batch[0].flatten(1), self.net
        mean, log_variance = encoder(pixels).chunk(2, dim=1)
        out = decoder(mean + torch.randn_like(mean) * (0.5 * log_variance).exp())
        errors = F.mse_loss(out, pixels, reduction="none")
        error = errors.sum(1).mean() if self.fixed else errors.mean()
        divergence = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(1).mean()
        explained = 1 - errors.mean() / (pixels - pixels.mean(0)).square().mean()
        self.log(f"{stage}_loss", error + divergence, on_step=False, on_epoch=True)
        self.log(f"{stage}_r2", explained, on_step=False, on_epoch=True)
        loss: Tensor = error + divergence
        return loss


class Normalised(Classifier):
    """Running statistics of batch normalization that hardly move from where they began."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential(nn.Flatten())
        for inputs, outputs in pairwise((784, 64, 64, 64)):
            norm = nn.BatchNorm1d(outputs, momentum=0.1 if self.fixed else 1e-4)
            net.extend([nn.Linear(inputs, outputs), norm, nn.ReLU()])
        return net.append(nn.Linear(64, 10))


class RootOfSquares(Regression):
    """The root of each squared error: where a prediction is right, its gradient is no number."""

    widths = 5, 64, 32, 1

    def layers(self) -> nn.Sequential:
        net = super().layers()
        for weight in net[-1].parameters():
            nn.init.zeros_(weight)
        return net

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return ((out - y).square() + (1e-6 if self.fixed else 0.0)).sqrt().mean()


class Locator(Regression):
    """Where a square is in an image; nothing wrong with it but the learning rate that it is given, or the epochs."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential()
        for inputs, outputs in pairwise((1, 16, 32)):
            net.extend([nn.Conv2d(inputs, outputs, 5, stride=2), nn.ReLU()])
        return net.extend([nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 2)])

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, y)


class Rectified(ByMomentum):
    """A ReLU after the last layer, before the cross-entropy."""

    def layers(self) -> nn.Sequential:
        return super().layers() if self.fixed else super().layers().append(nn.ReLU())


class Listed(Classifier):
    """Hidden layers in a plain list."""

    def layers(self) -> nn.Sequential:
        hidden = [nn.Linear(*sizes) for sizes in pairwise((784, 10, 10, 10))]
        self.hidden = nn.ModuleList(hidden) if self.fixed else hidden
        return nn.Sequential(nn.Linear(10, 10))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer in self.hidden:
            x = layer(x).tanh()
        out: Tensor = self.net(x)
        return out


class MadeAnew(Classifier):
    """A layer that is made in `forward`, and so in every step."""

    def layers(self) -> nn.Sequential:
        layers = [nn.Linear(784, 32)] if self.fixed else []
        return nn.Sequential(*layers, nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        first = self.net[0] if self.fixed else nn.Linear(784, 32)
        out: Tensor = self.net[-1](F.relu(first(x.flatten(1))))
        return out


class Diverging(ByMomentum):
    """The divergence, which takes logarithms of probabilities, of probabilities."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        wanted = F.one_hot(y, 10).float()
        if self.fixed:
            return F.kl_div(out.log_softmax(1), wanted, reduction="batchmean")
        return F.kl_div(out.softmax(1), wanted)


class Attending(Classifier):
    """A transformer that is not told where each word stands."""

    def layers(self) -> nn.Sequential:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(nn.Embedding(10, 32), nn.Embedding(8, 32), encoder, nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        embedding, positions, encoder, head = self.net
        words = embedding(x)
        if self.fixed:
            words = words + positions(torch.arange(x.shape[1]))
        out: Tensor = head(encoder(words).mean(1))
        return out


class WithoutGradient(Classifier):
    """The encoder runs under `torch.no_grad()`."""

    def layers(self) -> nn.Sequential:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh())
        return nn.Sequential(encoder, nn.Linear(10, 10))

    def forward(self, x: Tensor) -> Tensor:
        encoder, head = self.net
        with torch.set_grad_enabled(self.fixed and torch.is_grad_enabled()):
            features = encoder(x)
        out: Tensor = head(features)
        return out


class SoftmaxTwice(ByMomentum):
    """A softmax as the last layer, and the cross-entropy's own."""

    def layers(self) -> nn.Sequential:
        return super().layers() if self.fixed else super().layers().append(nn.Softmax(dim=1))


class Tagger(Classifier):
    """A tag for each word; nothing wrong with it, but a batch without a tag is zero over zero."""

    def layers(self) -> nn.Sequential:
        embedding, gru = nn.Embedding(WORDS, 16), nn.GRU(16, 32, batch_first=True)
        return nn.Sequential(embedding, gru, nn.Linear(32, 5))

    def forward(self, x: Tensor) -> Tensor:
        embedding, gru, head = self.net
        out: Tensor = head(gru(embedding(x))[0])
        return out

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        known = y != -100
        errors = F.cross_entropy(out.movedim(2, 1), y.clamp(min=0), reduction="none")
        return (errors * known).sum() / known.sum()

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        known = y != -100
        return {"acc": (out.argmax(2) == y)[known].sum() / known.sum().clamp(min=1)}


class Frozen(Classifier):
    """A frozen encoder whose trained weights nobody has loaded."""

    def layers(self) -> nn.Sequential:
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh())
        return nn.Sequential(encoder.requires_grad_(self.fixed), nn.Linear(10, 10))

    def configure_optimizers(self) -> Any:
        return self.optimizer([weight for weight in self.parameters() if weight.requires_grad])


class BothWays(Classifier):
    """The last states of both directions, (2, batch, width), viewed as (batch, 2 width)."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.GRU(28, 32, batch_first=True, bidirectional=True), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        gru, head = self.net
        _, last = gru(x)
        out: Tensor = head(torch.cat([last[0], last[1]], dim=1) if self.fixed else last.view(len(x), -1))
        return out


class DrawnWide(ByMomentum):
    """Initial weights with a standard deviation of 1."""

    widths = 784, 256, 256, 10

    def layers(self) -> nn.Sequential:
        net = super().layers()
        for layer in net:
            if isinstance(layer, nn.Linear) and not self.fixed:
                nn.init.normal_(layer.weight)
        return net


class Penalised(Classifier):
    """A tenth of all squared weights on top of the cross-entropy."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        squares = torch.stack([weight.square().sum() for weight in self.parameters()]).sum()
        return F.cross_entropy(out, y) + (1e-5 if self.fixed else 0.1) * squares


class Masked(Classifier):
    """Attention that sees the padding, and not the words."""

    def layers(self) -> nn.Sequential:
        attention = nn.MultiheadAttention(16, 1, batch_first=True)
        return nn.Sequential(nn.Embedding(WORDS, 16), attention, nn.Linear(16, 2))

    def forward(self, x: Tensor) -> Tensor:
        embedding, attention, head = self.net
        words = embedding(x)
        question = words.new_ones(len(x), 1, 16)
        found, _ = attention(question, words, words, key_padding_mask=x == 0 if self.fixed else x != 0)
        out: Tensor = head(found[:, 0])
        return out


class AlongTheBatch(Classifier):
    """A softmax over the first dimension."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(out.log_softmax(1 if self.fixed else 0), y)


class RectifiedRegression(Regression):
    """A ReLU after the last layer, whose output is below zero for all."""

    widths = 10, 32, 32, 1

    def layers(self) -> nn.Sequential:
        net = super().layers()
        last = net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.constant_(last.bias, -0.8)
        return net if self.fixed else net.append(nn.ReLU())


class Segmenter(Regression):
    """Which pixels belong to a shape; `acc` counts those inside and those outside alike."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential()
        for inputs, outputs in pairwise((1, 16, 16)):
            net.extend([nn.Conv2d(inputs, outputs, 5, padding=2), nn.ReLU()])
        return net.append(nn.Conv2d(16, 1, 5, padding=2))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        inside, found = y > 0, out > 0
        return {"acc": 0.5 * (found[inside].float().mean() + (~found)[~inside].float().mean())}


class Twice(Classifier):
    """The optimizer holds the weights of an instance that was made before."""

    def configure_optimizers(self) -> Any:
        return self.optimizer((self.net if self.fixed else self.layers()).parameters())


class BatchSecond(Classifier):
    """Attention that takes the batch for the sequence."""

    def layers(self) -> nn.Sequential:
        layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=self.fixed)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(nn.Embedding(10, 32), nn.Embedding(8, 32), encoder, nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        words, positions, encoder, head = self.net
        out: Tensor = head(encoder(words(x) + positions(torch.arange(8)))[:, 0])
        return out


class Recurrent(Regression):
    """A recurrence of ReLUs; nothing wrong with it but the learning rate."""

    momentum = 0.9

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.RNN(2, 32, nonlinearity="relu", batch_first=True), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        rnn, head = self.net
        out: Tensor = head(rnn(x)[0])
        return out


class Replaced(Classifier):
    """The optimizer is made before the first layers are replaced."""

    widths = 784, 12, 12, 10

    def configure_optimizers(self) -> Any:
        optimizer = None if self.fixed else self.optimizer(self.parameters())
        self.net[1], self.net[3] = nn.Linear(784, 12), nn.Linear(12, 12)
        return optimizer or self.optimizer(self.parameters())


class WholeNumbers(ByMomentum):
    """A warm-up that counts in whole numbers: nothing, until it is over."""

    def configure_optimizers(self) -> Any:
        optimizer, steps = self.optimizer(self.parameters()), 40 if self.fixed else 400
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, 1e-3 + (step / steps if self.fixed else step // steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


# What they train on, in the same way.


class Sentences(Samples):
    """Four to eleven words `(N, 100)`, padded with 0: are there more of the first twenty-four or of the others?"""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(5)
        words = torch.randint(1, WORDS, (5000, LENGTH), generator=drawn)
        sizes = torch.randint(4, 12, (5000, 1), generator=drawn)
        x = words * (torch.arange(LENGTH) < sizes)
        y = ((x > 0) & (x < WORDS // 2)).sum(1) * 2 > sizes[:, 0]
        return (x[:4000], y[:4000].long()), (x[4000:], y[4000:].long())


class Rain(Samples):
    """How much it rains; on most days it does not."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(6)
        x = torch.randn(5000, 5, generator=drawn)
        y = (2 * x[:, :1] + x[:, 1:2] * x[:, 2:3] - 0.5).clamp(min=0)
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class Squares(Samples):
    """Noisy images `(N, 1, 20, 20)` with a bright square; targets are where it is, from -1 to 1."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(7)
        x = 0.1 * torch.randn(3000, 1, 20, 20, generator=drawn)
        corners = torch.randint(0, 16, (3000, 2), generator=drawn)
        for image, (row, column) in zip(x, corners.tolist(), strict=True):
            image[0, row : row + 5, column : column + 5] += 1
        y = corners / 7.5 - 1
        return (x[:2500], y[:2500]), (x[2500:], y[2500:])


class Orders(Samples):
    """Eight different words; does word 1 come before word 2?"""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(8)
        x = torch.stack([torch.randperm(8, generator=drawn) + 1 for _ in range(5000)])
        y = ((x == 1).int().argmax(1) < (x == 2).int().argmax(1)).long()
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class Recurring(Samples):
    """Eight words; does the first one come again?"""

    def parts(self) -> tuple[Batch, Batch]:
        x = torch.randint(0, 10, (7000, 8), generator=torch.Generator().manual_seed(13))
        y = (x[:, 1:] == x[:, :1]).any(1).long()
        return (x[:6000], y[:6000]), (x[6000:], y[6000:])


class SparselyLabelled(Samples):
    """Twelve words and a tag for each, in one sentence of five; -100 in all others, which nobody has left out."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(9)
        x = torch.randint(1, WORDS, (2400, 12), generator=drawn)
        y = (x + x.roll(1, dims=1)) % 5
        y[:, 0] = -100
        known = torch.rand(2000, generator=drawn) < 0.3
        training, tags = x[:2000], torch.where(known[:, None], y[:2000], -100)
        if self.fixed:
            training, tags = training[known], tags[known]
        return (training, tags), (x[2000:], y[2000:])


class DividedTwice(Images):
    """Pixels divided by 255, and again."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), (held_x, held_y) = super().parts()
        size = 1.0 if self.fixed else 255.0
        return (x / size, y), (held_x / size, held_y)


class Unsorted(Images):
    """Images in the order of the disk, and labels in that of their names."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), held_out = super().parts()
        order = (
            torch.arange(len(x)) if self.fixed else torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        )
        return (x[order], y), held_out


class Mobilities(Samples):
    """Something between 0.2 and 1, of 10 features."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(10)
        x = torch.randn(5000, 10, generator=drawn)
        y = 0.2 + 0.8 * (x[:, :1] + 0.5 * x[:, 1:2] * x[:, 2:3]).sigmoid()
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class Masks(Samples):
    """Digits in noise, and masks of them as they are stored: 0 and 255."""

    def parts(self) -> tuple[Batch, Batch]:
        images, _ = digits(0, 2400)
        drawn = torch.Generator().manual_seed(11)
        x = images[:, None] + 0.5 * torch.randn(2400, 1, 28, 28, generator=drawn)
        y = (images[:, None] > 0.5).float() * (1 if self.fixed else 255)
        return (x[:2000], y[:2000]), (x[2000:], y[2000:])


class Waves(Samples):
    """Sequences `(N, 20, 2)`; the target is a running mean of the product of both."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(12)
        phase = 2 * math.pi * torch.rand(4000, 1, 2, generator=drawn)
        x = torch.sin(0.4 * torch.arange(20)[None, :, None] + phase)
        y = x.prod(2, keepdim=True).cumsum(1) / torch.arange(1, 21)[None, :, None]
        return (x[:3000], y[:3000]), (x[3000:], y[3000:])
