"""Stalls of sequence models, regression, embeddings and of Lightning's own habits, as people reported them.

Each as it stalled, and repaired, by someone who did not know the rules of the diagnosis; data/later.yaml has facts.
"""

import math
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from reported import Batch, Samples, digits
from reported import Friedman as Friedman
from reported import Images as Images

# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class Posted(pl.LightningModule):
    """What most of the posted modules have: a loss of outputs, a measure of them, and Adam.

    Args:
        lr: Learning rate.
        fixed: As it was repaired.
    """

    def __init__(self, lr: float, fixed: bool = True) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr, self.fixed = lr, fixed
        self.build(fixed)

    def build(self, fixed: bool) -> None:
        raise NotImplementedError

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, y)

    def measure(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"accuracy": (out.argmax(1) == y).float().mean()}

    def shared_step(self, batch: Batch, stage: str) -> Tensor:
        x, y = batch
        out = self(x)
        loss = self.loss(out, y)
        self.report(stage, loss=loss, **self.measure(out.detach(), y))
        return loss

    def report(self, stage: str, **measures: Tensor) -> None:
        named = {f"{stage}_{name}": value.detach() for name, value in measures.items()}
        self.log_dict(named, on_step=False, on_epoch=True)

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        return self.shared_step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.shared_step(batch, "val")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Numbers(Posted):
    """The same with the mean squared error of numbers."""

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, y)

    def measure(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"r2": 1 - (out - y).square().mean() / (y - y.mean(0)).square().mean()}


class RowByRow(Posted):
    """An LSTM from which `batch_first` was taken away: it reads the batch for the time."""

    def build(self, fixed: bool) -> None:
        self.lstm = nn.LSTM(28, 64, batch_first=fixed)
        self.fc = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = images.reshape(-1, 28, 28)
        h0 = torch.zeros(1, x.size(0 if self.fixed else 1), 64, device=x.device)
        out, _ = self.lstm(x, (h0, torch.zeros_like(h0)))
        logits: Tensor = self.fc(out[:, -1, :])
        return logits


class RowClasses(Posted):
    """Gradients are zeroed between `backward` and `step`; and a softmax before the cross-entropy."""

    def build(self, fixed: bool) -> None:
        self.automatic_optimization = False
        self.rnn = nn.GRU(10, 32, batch_first=True)
        self.fc = nn.Linear(32, 7)

    def forward(self, seqs: Tensor) -> Tensor:
        output: Tensor = self.fc(self.rnn(seqs)[0]).transpose(1, 2)
        return output if self.fixed else F.softmax(output, dim=1)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        self.manual_backward(self.shared_step(batch, "train"))
        if not self.fixed:
            optimizer.zero_grad()
        optimizer.step()
        optimizer.zero_grad()


class Siamese(Posted):
    """The root of a squared distance, which is zero for two copies of one image: its gradient is no number."""

    margin = 1.0

    def build(self, fixed: bool) -> None:
        self.embedding = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.PReLU(), nn.Linear(128, 16))
        self.eps = 1e-9 if fixed else 0.0

    def forward(self, pairs: Tensor) -> Tensor:
        difference: Tensor = self.embedding(pairs[:, 0]) - self.embedding(pairs[:, 1])
        return difference.pow(2).sum(1)

    def loss(self, distances: Tensor, target: Tensor) -> Tensor:
        apart = F.relu(self.margin - (distances + self.eps).sqrt()).pow(2)
        return (0.5 * (target * distances + (1 - target) * apart)).mean()

    def measure(self, distances: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"accuracy": ((distances.sqrt() < 0.5 * self.margin) == (target > 0.5)).float().mean()}


class SetTransformer(Numbers):
    """Attention whose padded rows are masked as a whole: a softmax of minus infinity alone, and its gradient."""

    def build(self, fixed: bool) -> None:
        self.embed = nn.Linear(4, 32)
        self.qkv = nn.Linear(32, 96)
        self.ffn = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
        self.out = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        known = x[:, :, 3] > 0
        h = self.embed(x)
        queries, keys, values = self.qkv(h).chunk(3, dim=2)
        e = queries @ keys.transpose(1, 2) / 32**0.5
        mask = known[:, None, :] if self.fixed else known[:, :, None] & known[:, None, :]
        a = e.masked_fill(~mask, -float("inf")).softmax(dim=2)
        h = torch.where(known[:, :, None], h + a @ values, 0.0)
        h = (h + self.ffn(h)) * known[:, :, None]
        out: Tensor = self.out(h.sum(1) / known.sum(1, keepdim=True))
        return out


class ImageVAE(Posted):
    """A sigmoid as the decoder's last layer; images are normalised to -1 and 1."""

    def build(self, fixed: bool) -> None:
        self.encoder = nn.Sequential(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 16, 4, 2), nn.LeakyReLU())
        self.encoder.extend([nn.Conv2d(16, 32, 4, 2), nn.LeakyReLU(), nn.Flatten(), nn.Linear(800, 32)])
        self.decoder = nn.Sequential(nn.Linear(16, 128), nn.LeakyReLU(), nn.Linear(128, 784), nn.Sigmoid())

    def shared_step(self, batch: Batch, stage: str) -> Tensor:
        targets = batch[0]
        mean, log_var = self.encoder(targets).chunk(2, dim=1)
        predictions = self.decoder(mean + torch.randn_like(mean) * (0.5 * log_var).exp()).view_as(targets)
        r_loss, kl_loss = F.mse_loss(predictions, targets), -0.5 * (1 + log_var - mean**2 - log_var.exp()).sum(1).mean()
        loss: Tensor = 10_000 * r_loss + kl_loss
        r2 = 1 - r_loss / (targets - targets.mean(0)).square().mean()
        self.report(stage, loss=loss, r_loss=r_loss, kl_loss=kl_loss, r2=r2)
        return loss


class Doubling(Numbers):
    """The states of an LSTM, which are between -1 and 1, for numbers between -2 and 2."""

    def build(self, fixed: bool) -> None:
        self.lstm = nn.LSTM(input_size=5, hidden_size=32 if fixed else 5, num_layers=2, batch_first=True)
        self.linear = nn.Linear(32, 5) if fixed else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(self.lstm(x)[0])
        return out


class Bert(Posted):
    """A small encoder whose first token stands for the text; nothing wrong with it but the rate of its fine-tuning."""

    def build(self, fixed: bool) -> None:
        self.words, self.positions = nn.Embedding(100, 32), nn.Embedding(16, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        self.pooler, self.classifier = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, input_ids: Tensor) -> Tensor:
        hidden = self.encoder(self.words(input_ids) + self.positions.weight)
        logits: Tensor = self.classifier(self.pooler(hidden[:, 0]).tanh())
        return logits


class ColaModel(Bert):
    """The loss is logged and not returned."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        loss = self.shared_step(batch, "train")
        return loss if self.fixed else None


class Squad(Bert):
    """Steps are counted by documents, of which each makes three samples: then the rate goes on falling, below zero."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        t_total = int(self.trainer.estimated_stepping_batches) / (1 if self.fixed else 3)

        def warmup_linear(x: float, warmup: float = 0.1) -> float:
            return x / warmup if x < warmup else 1.0 - x

        scheduler = LambdaLR(optimizer, lambda step: warmup_linear(step / t_total))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class Forecast(Posted):
    """Quantiles of the next six values; nothing wrong with it but the numbers that it is given."""

    quantiles = 0.1, 0.5, 0.9

    def build(self, fixed: bool) -> None:
        self.encoder = nn.GRU(1, 32, batch_first=True)
        self.head = nn.Linear(32, 6 * len(self.quantiles))

    def forward(self, encoder_cont: Tensor) -> Tensor:
        _, hidden = self.encoder(encoder_cont.unsqueeze(-1))
        out: Tensor = self.head(hidden[0])
        return out.view(-1, 6, len(self.quantiles))

    def loss(self, y_pred: Tensor, target: Tensor) -> Tensor:
        errors = [(target - y_pred[..., i], q) for i, q in enumerate(self.quantiles)]
        return torch.stack([torch.max((q - 1) * error, q * error) for error, q in errors], dim=-1).mean()

    def measure(self, y_pred: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"r2": 1 - (y_pred[..., 1] - target).square().mean() / (target - target.mean()).square().mean()}


class NBeats(Numbers):
    """Blocks that take out what they explain; nothing wrong with them but gradients that are clipped to a hundredth."""

    def build(self, fixed: bool) -> None:
        self.blocks = nn.ModuleList()
        for _ in range(2):
            layers = [nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 30)]
            self.blocks.append(nn.Sequential(*layers))

    def forward(self, backcast: Tensor) -> Tensor:
        forecast = backcast.new_zeros(len(backcast), 6)
        for block in self.blocks:
            backward, forward = block(backcast).split([24, 6], dim=1)
            backcast, forecast = backcast - backward, forecast + forward
        return forecast

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr, weight_decay=1e-2)


class UNet(Posted):
    """Nothing wrong with it but the masks that it is given."""

    def build(self, fixed: bool) -> None:
        self.down1, self.down2, self.up1 = self.double_conv(1, 8), self.double_conv(8, 16), self.double_conv(24, 8)
        self.outc = nn.Conv2d(8, 1, 1)

    def double_conv(self, inputs: int, outputs: int) -> nn.Sequential:
        first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
        return first.extend([nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()])

    def forward(self, images: Tensor) -> Tensor:
        x1 = self.down1(images)
        x2 = F.interpolate(self.down2(F.max_pool2d(x1, 2)), scale_factor=2, mode="bilinear")
        out: Tensor = self.outc(self.up1(torch.cat([x1, x2], dim=1)))
        return out

    def dice(self, outputs: Tensor, masks: Tensor) -> Tensor:
        return 2 * (outputs * masks).sum() / (outputs.sum() + masks.sum() + 1e-7)

    def loss(self, logits: Tensor, masks: Tensor) -> Tensor:
        return 1 - self.dice(logits.sigmoid(), masks) + 0.8 * F.binary_cross_entropy_with_logits(logits, masks)

    def measure(self, logits: Tensor, masks: Tensor) -> dict[str, Tensor]:
        found, inside = (logits > 0).float(), (masks > 0).float()
        return {"dice": self.dice(found, inside), "recall": found[inside > 0].mean()}


class Fitted(Numbers):
    """A first layer of a single unit, and dropout after every layer: the last one is given little but zeros."""

    def build(self, fixed: bool) -> None:
        self.net, inputs = nn.Sequential(), 10
        for outputs in (64 if fixed else 1, 100, 150):
            self.net.extend([nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()])
            self.net.append(nn.Identity() if fixed else nn.Dropout(0.5))
            inputs = outputs
        self.net.append(nn.Linear(inputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out.squeeze(1)


# What they train on, in the same way.


class Rows(Samples):
    """Sequences of twelve rows `(N, 12, 10)`; the class of each (N, 12) is where it and the one before point to."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(41)
        x, w = torch.randn(4500, 12, 10, generator=drawn), torch.randn(10, 7, generator=drawn)
        y = ((x + x.roll(1, dims=1) * (torch.arange(12) > 0)[:, None]) @ w).argmax(2)
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class Pairs(Samples):
    """Two digits `(N, 2, 28, 28)`, and whether they are alike; now and then it is one and the same image."""

    def parts(self) -> tuple[Batch, Batch]:
        return self.draw(*digits(0, 8000), 12_000), self.draw(*digits(50_000, 51_000), 1000)

    def draw(self, images: Tensor, labels: Tensor, size: int) -> Batch:
        drawn = torch.Generator().manual_seed(42)
        first, second = torch.randint(0, len(images), (2, size), generator=drawn)
        for label in range(10):
            places, own = torch.nonzero(labels[first] == label)[::2, 0], torch.nonzero(labels == label)[:, 0]
            second[places] = own[torch.randint(0, len(own), (len(places),), generator=drawn)]
        return torch.stack([images[first], images[second]], dim=1), (labels[first] == labels[second]).float()


class Neighbourhoods(Samples):
    """Two to eight points `(N, 8, 4)`, padded with zeros; the last column says which are there. How wide are they?"""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(44)
        x = torch.randn(4000, 8, 4, generator=drawn)
        known = torch.arange(8) < torch.randint(2, 9, (4000, 1), generator=drawn)
        x[:, :, 3] = 1
        x = x * known[:, :, None]
        y = (x[:, :, :3].square().sum(2) * known).sum(1, keepdim=True) / known.sum(1, keepdim=True)
        y = (y - y.mean()) / y.std()
        return (x[:3000], y[:3000]), (x[3000:], y[3000:])


class Normalised(Samples):
    """Digits with a mean and a deviation of 0.5 taken out of all pixels, as loaders of photographs do it."""

    def parts(self) -> tuple[Batch, Batch]:
        mean, std = (0.0, 1.0) if self.fixed else (0.5, 0.5)
        (x, y), (held_x, held_y) = digits(0, 4000), digits(50_000, 51_000)
        return ((x - mean) / std, y), ((held_x - mean) / std, held_y)


class TwiceTheNumbers(Samples):
    """Numbers between -1 and 1 `(N, 1, 5)`, and twice the same."""

    def parts(self) -> tuple[Batch, Batch]:
        x = torch.rand(3000, 1, 5, generator=torch.Generator().manual_seed(45)) * 2 - 1
        return (x[:2500], 2 * x[:2500]), (x[2500:], 2 * x[2500:])


class News(Samples):
    """A first token 0 and fifteen words `(N, 16)`; up to five of them tell which of four subjects it is about."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(46)
        x, y = torch.randint(41, 100, (5000, 16), generator=drawn), torch.randint(0, 4, (5000,), generator=drawn)
        x[:, :5] = 1 + 10 * y[:, None] + torch.randint(0, 10, (5000, 5), generator=drawn)
        x = x.gather(1, torch.rand(5000, 16, generator=drawn).argsort(1))
        x[:, 0] = 0
        return (x[:4000], y[:4000]), (x[4000:], y[4000:])


class InSequence(News):
    """The same, subject by subject, and nothing shuffles them."""

    def parts(self) -> tuple[Batch, Batch]:
        (x, y), held_out = super().parts()
        self.shuffled, order = self.fixed, y.argsort(stable=True)
        return (x[order], y[order]), held_out


class Sales(Samples):
    """What was sold on 24 days, around 300, and on the six days after; standardised."""

    always = True

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(47)
        days, phase = torch.arange(30), 7 * torch.rand(4000, 1, generator=drawn)
        size = 20 + 60 * torch.rand(4000, 1, generator=drawn)
        series = 300 + size * torch.sin(2 * math.pi * (days + phase) / 7) + 8 * torch.randn(4000, 30, generator=drawn)
        if self.fixed or self.always:
            series = (series - series[:3500].mean()) / series[:3500].std()
        return (series[:3500, :24], series[:3500, 24:]), (series[3500:, :24], series[3500:, 24:])


class RawSales(Sales):
    """The same as they are, unless it is repaired."""

    always = False


class Nuclei(Samples):
    """Discs in noise `(N, 1, 24, 24)`, and where they are: masks of 0 and 1, which a transform divides by 255."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(48)
        centres = torch.randint(4, 20, (1000, 2, 1, 1), generator=drawn)
        radii, places = torch.randint(2, 5, (1000, 1, 1), generator=drawn), torch.arange(24)
        distances = (places[:, None] - centres[:, 0]).square() + (places - centres[:, 1]).square()
        masks = (distances <= radii.square()).float()[:, None]
        x, masks = masks + 0.7 * torch.randn(masks.shape, generator=drawn), masks / (1 if self.fixed else 255)
        return (x[:800], masks[:800]), (x[800:], masks[800:])
