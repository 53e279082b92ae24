"""Stalls as beginners and practitioners report them, small networks only, as they came; data/last.yaml has facts.

Each as it stalled, and repaired, by someone who did not know the rules of the diagnosis.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from later import Numbers, Posted
from reported import Batch, Samples, Sorted
from reported import Images as Images

# What they train: every class is right but for what its docstring says, and that only if it is not `fixed`.


class FCNRegressor(Numbers):
    """The last layer returns (N, 1), and the targets are (N)."""

    def build(self, fixed: bool) -> None:
        self.conv1, self.bn1 = nn.Conv1d(2, 16, 7, padding="same"), nn.BatchNorm1d(16)
        self.conv2, self.bn2 = nn.Conv1d(16, 32, 5, padding="same"), nn.BatchNorm1d(32)
        self.conv3, self.bn3 = nn.Conv1d(32, 16, 3, padding="same"), nn.BatchNorm1d(16)
        self.gap, self.fc = nn.AdaptiveAvgPool1d(1), nn.Linear(16, 1)

    def forward(self, X: Tensor) -> Tensor:  # noqa: N803
        out = F.relu(self.bn1(self.conv1(X)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = F.relu(self.bn3(self.conv3(out)))
        y_pred: Tensor = self.fc(self.gap(out).squeeze(-1))
        return y_pred.squeeze(-1) if self.fixed else y_pred

    def measure(self, y_pred: Tensor, outputs: Tensor) -> dict[str, Tensor]:
        return {"r2": 1 - F.mse_loss(y_pred.flatten(), outputs) / outputs.var()}


class BasicBlock(nn.Module):
    """Two convolutions, and what was there before."""

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(in_planes, planes, 3, 2, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential(nn.Conv2d(in_planes, planes, 1, 2, bias=False), nn.BatchNorm2d(planes))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(Posted):
    """Nothing wrong with it but the order in which it sees the images."""

    def build(self, fixed: bool) -> None:
        self.stem = nn.Sequential(nn.Unflatten(1, (1, 28)), nn.Conv2d(1, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8))
        self.layer1, self.layer2 = BasicBlock(8, 16), BasicBlock(16, 32)
        self.linear = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer2(self.layer1(F.relu(self.stem(x))))
        logits: Tensor = self.linear(out.mean((2, 3)))
        return logits

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9, weight_decay=1e-4, nesterov=True)


class NeuralNetwork(Posted):
    """A ReLU after the last layer, too."""

    def build(self, fixed: bool) -> None:
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 256),
            nn.ReLU(),
            nn.Linear(256, 256),
            nn.ReLU(),
            nn.Linear(256, 10),
        )
        if not fixed:
            self.linear_relu_stack.append(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear_relu_stack(self.flatten(x))
        return logits

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class DeviationNetwork(Posted):
    """Scores of anomalies; nothing wrong with it but the features that it is given."""

    confidence_margin = 5.0

    def build(self, fixed: bool) -> None:
        self.feature, self.score = nn.Linear(60, 64), nn.Linear(64, 1)
        self.register_buffer("ref", torch.randn(5000))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.score(F.relu(self.feature(x)))
        return scores.flatten()

    def loss(self, y_pred: Tensor, y_true: Tensor) -> Tensor:
        ref = self.get_buffer("ref")
        dev = (y_pred - ref.mean()) / ref.std()
        inlier_loss = dev.abs()
        outlier_loss = (self.confidence_margin - dev).clamp(min=0.0).abs()
        return ((1 - y_true) * inlier_loss + y_true * outlier_loss).mean()

    def measure(self, y_pred: Tensor, y_true: Tensor) -> dict[str, Tensor]:
        return {"accuracy": ((y_pred > 0.5 * self.confidence_margin) == (y_true > 0.5)).float().mean()}


class Xor(Posted):
    """No activation between the two layers."""

    def build(self, fixed: bool) -> None:
        hidden_dim = 8
        layers = [nn.Linear(2, hidden_dim), *([nn.ReLU()] if fixed else []), nn.Linear(hidden_dim, 1), nn.Sigmoid()]
        self.model, self.criterion = nn.Sequential(*layers), nn.MSELoss()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out

    def loss(self, out: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = self.criterion(out, y)
        return loss

    def measure(self, out: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"accuracy": (out.round() == y).float().mean()}

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Network(Numbers):
    """Nothing wrong with it but the numbers that it is given."""

    def build(self, fixed: bool) -> None:
        self.fc1 = nn.Linear(in_features=1, out_features=50, bias=True)
        self.fc2 = nn.Linear(in_features=50, out_features=1, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        out: Tensor = self.fc2(x)
        return out


class Deep3D(Numbers):
    """The other eye's view of a picture; nothing wrong with it but the numbers that it is given."""

    def build(self, fixed: bool) -> None:
        self.down = nn.Sequential(nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1))

    def forward(self, left: Tensor) -> Tensor:
        right: Tensor = self.up(self.down(left))
        return right

    def loss(self, out: Tensor, right: Tensor) -> Tensor:
        return F.l1_loss(out, right)


class FactorizationMachine(Posted):
    """A sigmoid at the end, before the binary cross-entropy of logits."""

    def build(self, fixed: bool) -> None:
        self.embed_user, self.embed_item = nn.Embedding(200, 16), nn.Embedding(120, 16)
        self.u_bias, self.i_bias = nn.Embedding(200, 1), nn.Embedding(120, 1)
        for embedding in (self.embed_user, self.embed_item):
            nn.init.normal_(embedding.weight, std=0.1)
        for bias in (self.u_bias, self.i_bias):
            nn.init.zeros_(bias.weight)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        pred = (self.embed_user(user) * self.embed_item(item)).sum(dim=-1, keepdim=True)
        pred = (pred + self.u_bias(user) + self.i_bias(item)).view(-1)
        out: Tensor = pred if self.fixed else pred.sigmoid()
        return out

    def shared_step(self, batch: Batch, stage: str) -> Tensor:
        (user, item), label = batch[0].unbind(1), batch[1]
        prediction = self(user, item)
        loss: Tensor = nn.BCEWithLogitsLoss()(prediction, label)
        likes = prediction > (0.0 if self.fixed else 0.5)
        hits, misses = likes[label > 0].float().mean(), likes[label < 1].float().mean()
        self.log_dict({f"{stage}_loss": loss, f"{stage}_acc": (1 + hits - misses) / 2}, on_step=False, on_epoch=True)
        return loss


class BaseNetwork(Posted):
    """Sigmoids after all of four hidden layers."""

    def build(self, fixed: bool) -> None:
        layers: list[nn.Module] = []
        layer_sizes = [784, 128, 64, 64, 32]
        for layer_index in range(1, len(layer_sizes)):
            layers += [nn.Linear(layer_sizes[layer_index - 1], layer_sizes[layer_index])]
            layers += [nn.ReLU() if fixed else nn.Sigmoid()]
        layers += [nn.Linear(layer_sizes[-1], 10)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        x = x.view(x.size(0), -1)
        out: Tensor = self.layers((x - 0.1307) / 0.3081)
        return out

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class SimVP(Numbers):
    """A schedule of one cycle that counts steps, and is told the epoch."""

    def build(self, fixed: bool) -> None:
        self.enc = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.SiLU())
        self.hid = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.GroupNorm(2, 16), nn.SiLU())
        self.dec = nn.Conv2d(16, 2, 1)

    def forward(self, batch_x: Tensor) -> Tensor:
        hidden = self.enc(batch_x)
        pred_y: Tensor = self.dec(hidden + self.hid(hidden))
        return pred_y

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = OneCycleLR(optimizer, max_lr=self.lr, total_steps=steps, final_div_factor=1e4)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def lr_scheduler_step(self, scheduler: Any, *args: Any, **kwargs: Any) -> None:
        if self.fixed:
            scheduler.step()
        else:
            scheduler.step(epoch=self.current_epoch)


# What they train on, in the same way.


class TwoSensors(Samples):
    """Two series `(N, 2, 40)`, and how fast the first one swings where the second is loud."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(51)
        time, size = torch.arange(40.0), 2400
        speed = 0.2 + torch.rand(size, 1, generator=drawn)
        loud = 0.5 + torch.rand(size, 1, generator=drawn)
        first = torch.sin(speed * time + 6.28 * torch.rand(size, 1, generator=drawn))
        second = loud * torch.randn(size, 40, generator=drawn)
        x = torch.stack([first + 0.1 * torch.randn(size, 40, generator=drawn), second], dim=1)
        y = (speed * loud).flatten()
        y = (y - y.mean()) / y.std()
        return (x[:2000], y[:2000]), (x[2000:], y[2000:])


class Folders(Sorted):
    """Folder by folder, because the loader does not shuffle unless it is told to."""

    samples = 3000


class Reviewers(Samples):
    """Counts of sixty words `(N, 60)` in what reviewers wrote, some of whom are paid for it (N)."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(54)
        paid = (torch.rand(3000, generator=drawn) < 0.5).float()
        habits = 0.12 * torch.randn(2, 60, generator=drawn)[paid.long()] + 0.3 * torch.randn(3000, 60, generator=drawn)
        length = torch.exp(7 + 1.2 * torch.randn(3000, 1, generator=drawn))
        common = torch.exp(1.5 * torch.randn(60, generator=drawn))
        x = torch.poisson(length * common * torch.exp(habits), generator=drawn)
        if self.fixed:
            x = x / x.sum(1, keepdim=True).clamp(min=1)
            x = (x - x.mean(0)) / x.std(0)
        return (x[:2500], paid[:2500]), (x[2500:], paid[2500:])


class NoisyXor(Samples):
    """Two bits with a little noise `(N, 2)`, and whether just one of them is set `(N, 1)`."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(55)
        bits = torch.randint(0, 2, (2400, 2), generator=drawn)
        y = (bits[:, :1] ^ bits[:, 1:]).float()
        x = bits + 0.1 * torch.randn(2400, 2, generator=drawn)
        return (x[:2000], y[:2000]), (x[2000:], y[2000:])


class Cubes(Samples):
    """The whole numbers below 4000 `(N, 1)` and their cubes, in random order."""

    def parts(self) -> tuple[Batch, Batch]:
        x = 1.0 + torch.randperm(3999, generator=torch.Generator().manual_seed(56))[:, None]
        y = x**3
        if self.fixed:
            x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
        return (x[:3400], y[:3400]), (x[3400:], y[3400:])


class Stereo(Samples):
    """Pictures `(N, 1, 16, 16)` of the left eye and of the right; both have been divided by 255 before."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(57)
        scenes = F.interpolate(torch.rand(1500, 1, 7, 8, generator=drawn), size=(16, 20), mode="bicubic").clamp(0, 1)
        left, right = scenes[..., :16], scenes[..., 3:19]
        if not self.fixed:
            left, right = left / 255, right / 255
        return (left[:1200], right[:1200]), (left[1200:], right[1200:])


class Clicks(Samples):
    """Pairs of a user and an item `(N, 2)`, one in five of which is a click."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(58)
        users, items = torch.randn(200, 3, generator=drawn), torch.randn(120, 3, generator=drawn)
        pairs = torch.cartesian_prod(torch.arange(200), torch.arange(120))
        pairs = pairs[torch.randperm(len(pairs), generator=drawn)][:12_000]
        liking = (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) + 0.5 * torch.randn(12_000, generator=drawn)
        labels = (liking > liking.quantile(0.8)).float()
        return (pairs[:10_000], labels[:10_000]), (pairs[10_000:], labels[10_000:])


class MovingDiscs(Samples):
    """Four frames `(N, 4, 16, 16)` of a disc on its way, and the next two."""

    def parts(self) -> tuple[Batch, Batch]:
        drawn = torch.Generator().manual_seed(60)
        starts, angles = 5 + 6 * torch.rand(900, 2, generator=drawn), 2 * math.pi * torch.rand(900, generator=drawn)
        way = 0.7 * torch.stack([angles.cos(), angles.sin()], dim=1)
        centres = starts[:, None] + way[:, None] * torch.arange(6)[:, None]
        places = torch.arange(16)
        rows, columns = centres[..., :1, None], centres[..., 1:, None]
        films = torch.exp(-((places[:, None] - rows) ** 2 + (places - columns) ** 2) / 6)
        return (films[:750, :4], films[:750, 4:]), (films[750:, :4], films[750:, 4:])
