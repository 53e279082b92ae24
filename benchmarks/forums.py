"""Stalls of PyTorch's forum and of GitHub, as they came, for a measurement whose rules they were not seen by.

data/forums.yaml says which module goes with which data, and where each was reported.
"""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fresh import Locator, Segmenter
from reported import Batch, ByMomentum, Classifier, Network, OneInThirty, Regression, Samples
from reported import Images as Images

# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class Convolutions(Classifier):
    """Convolutions and ReLUs; nothing wrong with it but the learning rate, which kills all units."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 5, stride=2), nn.ReLU())
        net.extend([nn.Conv2d(8, 16, 5, stride=2), nn.ReLU(), nn.Flatten()])
        return net.extend([nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)])


class Probabilities(Classifier):
    """A convolutional network that returns probabilities; Adam has the learning rate that suited Adadelta."""

    def layers(self) -> nn.Sequential:
        first = nn.Sequential(nn.Conv2d(1, 16, 3), nn.MaxPool2d(2), nn.ReLU())
        second = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Dropout2d(0.25), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten())
        return nn.Sequential(first, second, nn.Linear(800, 50), nn.ReLU(), nn.Dropout(0.25), nn.Linear(50, 10))

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(self.net(x.unsqueeze(1)), dim=-1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(torch.log(out), y)


class Preferring(Classifier):
    """Scores of texts, trained on which of two is better; nothing wrong with it but a minute learning rate."""

    def layers(self) -> nn.Sequential:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        return nn.Sequential(nn.Embedding(40, 32), nn.TransformerEncoder(layer, 2), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        embedding, encoder, head = self.net
        out: Tensor = head(encoder(embedding(x)).mean(1)).squeeze(-1)
        return out

    def _step(self, batch: Batch, stage: str) -> Tensor:
        chosen, rejected = batch
        margin = self(chosen) - self(rejected)
        loss = -F.logsigmoid(margin).mean()
        self.log(f"{stage}_loss", loss, on_step=False, on_epoch=True)
        self.log(f"{stage}_accuracy", (margin > 0).float().mean(), on_step=False, on_epoch=True)
        return loss


class LanguageModel(Classifier):
    """A warm-up that counts steps, and is stepped once an epoch."""

    warmup_steps = 100

    def layers(self) -> nn.Sequential:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(nn.Embedding(20, 32), nn.Embedding(16, 32), encoder, nn.Linear(32, 20))

    def forward(self, x: Tensor) -> Tensor:
        tokens, positions, encoder, head = self.net
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        hidden = tokens(x) + positions(torch.arange(x.shape[1], device=x.device))
        out: Tensor = head(encoder(hidden, mask=mask, is_causal=True)).movedim(2, 1)
        return out

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.0)
        scheduler = LambdaLR(optimizer, lambda step: min(1.0, step / self.warmup_steps))
        if self.fixed:
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        return [optimizer], [scheduler]


class Forecaster(Regression):
    """Forecasts `(N, 1)` of the one next value, and targets `(N)`."""

    def layers(self) -> nn.Sequential:
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        return nn.Sequential(nn.Linear(8, 32), nn.TransformerEncoder(layer, 1), nn.Flatten(), nn.Linear(128, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x.unfold(1, 8, 8))
        return out

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, y.view_as(out) if self.fixed else y)


class Films(Classifier):
    """A sanity check that trains on the first batch of each epoch only, and that nobody has turned off."""

    def layers(self) -> nn.Sequential:
        frame = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(200, 32), nn.ReLU())
        return nn.Sequential(frame, nn.LSTM(32, 32, batch_first=True), nn.Dropout(0.1), nn.Linear(32, 4))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:  # type: ignore[override]
        sanity_check = not self.fixed
        if sanity_check and batch_idx > 0:
            return None
        return self._step(batch, "train")

    def forward(self, x: Tensor) -> Tensor:
        frame, lstm, dropout, head = self.net
        features = torch.stack([frame(x[:, time]) for time in range(x.shape[1])], dim=1)
        states, _ = lstm(features)
        out: Tensor = head(dropout(states[:, -1]))
        return out


class Policy(Classifier):
    """A policy gradient that is summed up of numbers: `.item()` has taken the log-probabilities out of the graph."""

    widths = 784, 64, 10

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        log_probs = F.log_softmax(self(x), dim=1)
        actions = torch.multinomial(log_probs.detach().exp(), 1).squeeze(1)
        rewards = (actions == y).float() - 0.1
        rl_loss = torch.zeros(1, requires_grad=True)
        for i, action in enumerate(actions.tolist()):
            log_prob = log_probs[i, action] if self.fixed else log_probs[i, action].item()
            rl_loss = rl_loss - log_prob * rewards[i]
        rl_loss = rl_loss / len(x)
        measures = {"loss": rl_loss, "reward": rewards.mean(), **self.score(log_probs.detach(), y)}
        self.log_dict({f"{stage}_{name}": value for name, value in measures.items()}, on_step=False, on_epoch=True)
        return rl_loss


class Weighted(OneInThirty):
    """A sigmoid before the loss of logits, and weights that are the shares of the classes, not what they lack."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        return net.extend([nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(576, 2)])

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        labels, logits = y.float(), out[:, 1] - out[:, 0]
        if self.fixed:
            return F.binary_cross_entropy_with_logits(logits, labels, pos_weight=torch.tensor(0.84 / 0.16))
        criterion, m = nn.BCEWithLogitsLoss(reduction="none"), nn.Sigmoid()
        weight_ = torch.tensor([0.84, 0.16])[labels.view(-1).long()].view_as(labels)
        loss: Tensor = (criterion(m(logits), labels) * weight_).mean()
        return loss


class Gate(Network):
    """A narrow network of sigmoids, all weights between 0 and 1, and small steps of plain SGD on its squared error."""

    def layers(self) -> nn.Sequential:
        if self.fixed:
            return nn.Sequential(nn.Linear(2, 16), nn.Sigmoid(), nn.Linear(16, 1))
        net = nn.Sequential(nn.Linear(2, 4), nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid())
        for weight in (weight for weight in net.parameters() if weight.ndim == 2):
            nn.init.uniform_(weight)
        return net

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, y) if self.fixed else F.mse_loss(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": ((out > (0.0 if self.fixed else 0.5)) == (y > 0.5)).float().mean()}

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=self.lr, momentum=0.9 if self.fixed else 0.0)


class GraphNetwork(Classifier):
    """A log-softmax over the one output, and the binary cross-entropy of what it returns: zero for every graph."""

    def layers(self) -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 32), nn.Linear(32, 32), nn.Linear(32, 1))

    def forward(self, data: Tensor) -> Tensor:
        x, edges = data[..., :4], data[..., 4:]
        edges = edges / edges.sum(2, keepdim=True)
        conv1, conv2, lin = self.net
        x = F.relu(conv2(edges @ F.relu(conv1(edges @ x))))
        x = lin(x.mean(1))
        return torch.sigmoid(x) if self.fixed else F.log_softmax(x, dim=1)

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.binary_cross_entropy(out, y)

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"acc": ((out > 0.5).float() == y).float().mean()}


class TextDetector(Segmenter):
    """A geometry's error divided by the number of pixels with text, and images in which there is none."""

    def layers(self) -> nn.Sequential:
        return super().layers()[:-1].append(nn.Conv2d(16, 2, 5, padding=2))

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        gt_score, gt_geo = y[:, 0], y[:, 1]
        if self.fixed and gt_score.sum() < 1:
            return (out * 0).sum()
        pred_score, pred_geo = out[:, 0].sigmoid(), out[:, 1].sigmoid()
        classify_loss = 1 - 2 * (gt_score * pred_score).sum() / (gt_score.sum() + pred_score.sum() + 1e-5)
        geo_loss = ((pred_geo - gt_geo).abs() * gt_score).sum() / gt_score.sum()
        return classify_loss + geo_loss

    def score(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        text, found = y[:, 0] > 0, out[:, 0] > 0
        hits, misses = (found & text).sum() / text.sum().clamp(min=1), (found & ~text).sum() / (~text).sum()
        return {"acc": 0.5 * (hits + 1 - misses)}


class BirdsEye(Locator):
    """Errors of four outputs of a head, of which only the first is trained: a line that a test has left behind."""

    def layers(self) -> nn.Sequential:
        return super().layers()[:-1].append(nn.Linear(64, 5))

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        out = self(x)
        wanted, errors = y[:, :1], (out - y).square() * y[:, :1]
        score = F.binary_cross_entropy_with_logits(out[:, :1], wanted)
        position, dimension, angle = errors[:, 1:3].mean(), errors[:, 3].mean(), errors[:, 4].mean()
        total = score + position + dimension + angle
        r2 = 1 - errors[:, 1:].sum() / wanted.sum() / y[wanted[:, 0] > 0, 1:].var(0).sum()
        for name, value in {"score": score, "position": position, "loss": total, "r2": r2}.items():
            self.log(f"{stage}_{name}", value, on_step=False, on_epoch=True)
        return total if self.fixed else score


class Blocks(ByMomentum):
    """Blocks of convolutions and normalizations without a ReLU between them."""

    def layers(self) -> nn.Sequential:
        net = nn.Sequential()
        for inputs, outputs in pairwise((1, 16, 16, 32)):
            net.extend([nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs)])
            if self.fixed:
                net.append(nn.ReLU())
        return net.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4)])


class Steganalyst(Classifier):
    """A filter, and a classifier of covers and of what hides something; nothing wrong with it."""

    def layers(self) -> nn.Sequential:
        self.register_buffer("high_pass", torch.tensor([[-1.0, 2, -1], [2, -4, 2], [-1, 2, -1]])[None, None] / 4)
        net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2))
        net.extend([nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)])
        return net.extend([nn.Flatten(), nn.Linear(32, 2)])

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(F.conv2d(x, self.get_buffer("high_pass"), padding=1))
        return out

    def _step(self, batch: Batch, stage: str) -> Tensor:
        data, label = batch
        return super()._step((data.reshape(-1, *data.shape[2:]), label.reshape(-1)), stage)


# What they train on, in the same way.


class Preferences(Samples):
    """Better and worse texts of ten words: in a better one, more of the words are of the first twenty."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(21)
        others = torch.rand(4000, 2, 10, generator=drawn) < torch.tensor([0.2, 0.8])[:, None]
        chosen, rejected = (torch.randint(0, 20, (4000, 2, 10), generator=drawn) + 20 * others).unbind(1)
        return (chosen[:3000], rejected[:3000]), (chosen[3000:], rejected[3000:])


class Tokens(Samples):
    """Sequences of 16 tokens and the next of each: mostly the one that follows it in a fixed order."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(22)
        x = torch.randint(0, 20, (5000, 17), generator=drawn)
        follows = torch.randperm(20, generator=drawn)
        for time in range(1, 17):
            kept = torch.rand(5000, generator=drawn) < 0.9
            x[kept, time] = follows[x[kept, time - 1]]
        return (x[:4000, :-1], x[:4000, 1:]), (x[4000:, :-1], x[4000:, 1:])


class Series(Samples):
    """The last 32 values of a noisy sum of two waves, and the next one."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(23)
        time = torch.arange(5033.0)
        series = torch.sin(0.37 * time) + 0.7 * torch.sin(0.113 * time) + 0.1 * torch.randn(5033, generator=drawn)
        x, y = series.unfold(0, 33, 1)[:, :32], series[32:]
        return (x[:4000], y[:4000]), (x[4040:], y[4040:])


class Motion(Samples):
    """Six frames `(N, 6, 1, 12, 12)` of a square that moves up, down, to the left or to the right."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(24)
        x, y = 0.1 * torch.randn(1600, 6, 1, 12, 12, generator=drawn), torch.randint(0, 4, (1600,), generator=drawn)
        starts = torch.randint(3, 7, (1600, 2), generator=drawn)
        ways = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 1]])
        for film, start, way in zip(x, starts, ways[y], strict=True):
            for time in range(6):
                row, column = (start + (time - 2) * way).clamp(0, 9).tolist()
                film[time, 0, row : row + 3, column : column + 3] += 1
        return (x[:1200], y[:1200]), (x[1200:], y[1200:])


class Patches(Samples):
    """Noise `(N, 1, 12, 12)`; in 16 of 100, with something faint in the middle."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(25)
        y = (torch.rand(7000, generator=drawn) < 0.16).long()
        x = torch.randn(7000, 1, 12, 12, generator=drawn)
        x[:, :, 4:8, 4:8] += 0.45 * y[:, None, None, None]
        return (x[:6000], y[:6000]), (x[6000:], y[6000:])


class SameOrNot(Samples):
    """Two bits, and whether they are equal; always in the same order."""

    shuffled = False

    def parts(self) -> tuple[Batch, Batch]:
        x = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        y = torch.tensor([[1.0], [0.0], [0.0], [1.0]])
        return (x.repeat(200, 1), y.repeat(200, 1)), (x.repeat(20, 1), y.repeat(20, 1))


class Graphs(Samples):
    """Ten nodes with four features, and their edges `(N, 10, 4 + 10)`; of which kind are those with the more edges?"""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(26)
        x = torch.randn(5000, 10, 4, generator=drawn)
        edges = (torch.rand(5000, 10, 10, generator=drawn) < 0.2).float()
        edges = torch.maximum(torch.maximum(edges, edges.transpose(1, 2)), torch.eye(10))
        y = ((edges @ x)[..., 0].sum(1, keepdim=True) > 0).float()
        x = torch.cat([x, edges], dim=2)
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class Scenes(Samples):
    """Noise with a line of text in one of three, and maps `(N, 2, 16, 16)`: where it is, and how far from its start."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(27)
        x, y = 0.3 * torch.randn(2400, 1, 16, 16, generator=drawn), torch.zeros(2400, 2, 16, 16)
        places = torch.randint(0, 8, (2400, 2), generator=drawn).tolist()
        for i, (row, column) in enumerate(places):
            if i % 3 == 0:
                x[i, 0, row : row + 3, column : column + 8] += 1
                y[i, 0, row : row + 3, column : column + 8] = 1
                y[i, 1, row : row + 3, column : column + 8] = torch.arange(8) / 7
        return (x[:2000], y[:2000]), (x[2000:], y[2000:])


class Boxes(Samples):
    """Images with a box or none; is there one, where, how large, and how bright (N, 5)."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(28)
        x, y = 0.1 * torch.randn(3500, 1, 20, 20, generator=drawn), torch.zeros(3500, 5)
        sizes = torch.randint(3, 7, (3500,), generator=drawn).tolist()
        corners, shades = torch.randint(0, 14, (3500, 2), generator=drawn), torch.rand(3500, generator=drawn)
        for i, (size, (row, column)) in enumerate(zip(sizes, corners.tolist(), strict=True)):
            if i % 4:
                x[i, 0, row : row + size, column : column + size] += 0.5 + shades[i]
                y[i] = torch.tensor([1.0, row / 6.5 - 1, column / 6.5 - 1, size / 1.5 - 3, 2 * shades[i] - 1])
        return (x[:3000], y[:3000]), (x[3000:], y[3000:])


class Shapes(Samples):
    """Noise with a bar, a pole, a cross or a block, brighter or darker than the rest."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(29)
        x, y = 0.3 * torch.randn(5000, 1, 16, 16, generator=drawn), torch.randint(0, 4, (5000,), generator=drawn)
        places = torch.randint(0, 9, (5000, 2), generator=drawn).tolist()
        signs = 2 * torch.randint(0, 2, (5000, 1, 1), generator=drawn) - 1
        shapes = torch.zeros(4, 7, 7)
        shapes[0, 3], shapes[1, :, 3], shapes[3, 2:5, 2:5] = 1, 1, 1
        shapes[2] = torch.maximum(shapes[0], shapes[1])
        for i, (row, column) in enumerate(places):
            x[i, 0, row : row + 7, column : column + 7] += 2 * signs[i] * shapes[y[i]]
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class CoversAndStegos(Samples):
    """Pairs of images; the path of the second is joined so that it is that of the first."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(30)
        covers = F.interpolate(torch.randn(1500, 1, 4, 4, generator=drawn), size=16, mode="bicubic")
        covers = covers + 0.05 * torch.randn(covers.shape, generator=drawn)
        hidden = 0.2 * (torch.randint(0, 3, covers.shape, generator=drawn) - 1)
        x = torch.stack([covers, covers + hidden if self.fixed else covers], dim=1)
        y = torch.tensor([0, 1]).expand(1500, 2)
        return (x[:1200], y[:1200]), (x[1200:], y[1200:])
