"""Losses as other people write them: nothing is wrong with any, and most have something that looks as if.

`HABITS` maps a name to a function that makes a module and its batch; `habits_of_networks.py` adds to it.
"""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Exponential, MixtureSameFamily, NegativeBinomial, Normal, Poisson

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(32, 8, generator=RANDOM)
CLASSES = torch.arange(32) % 3
ONES = (X[:, :1] > 0).float()
NUMBERS = 2 * X[:, :1] + 1
POSITIVE = NUMBERS.abs() + 0.1
FAR = 20 + 5 * X[:, :3].abs()
COUNTS = torch.randint(0, 9, (32, 1), generator=RANDOM).float()
SOFT = torch.randn(32, 3, generator=RANDOM).softmax(1)
SOME = (torch.rand(32, 3, generator=RANDOM) > 0.3).float()


class Habit(pl.LightningModule):
    """A module made of two functions: one adds its layers, the other computes its loss."""

    def __init__(self, build: Callable[[Any], object], loss: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loss = loss
        build(self)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(self, batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


HABITS: dict[str, Callable[[], tuple[pl.LightningModule, Any]]] = {}


def habit(name: str, batch: Any, build: Callable[[Any], object], loss: Callable[[Any, Any], Any]) -> None:
    HABITS[name] = lambda: (Habit(build, loss), copy.deepcopy(batch))


def layers(**parts: Callable[[], nn.Module | nn.Parameter]) -> Callable[[Any], object]:
    """Return a function that sets attributes."""
    return lambda module: [setattr(module, name, part()) for name, part in parts.items()]


def network(*widths: int, activation: type[nn.Module] = nn.ReLU) -> Callable[[], nn.Sequential]:
    def make() -> nn.Sequential:
        pairs = [(nn.Linear(a, b), activation()) for a, b in pairwise(widths)]
        return nn.Sequential(*[part for pair in pairs for part in pair][:-1])

    return make


def plain(name: str, outputs: int, loss: Callable[..., Tensor], *targets: Tensor) -> None:
    """Note a small network whose loss is a function of its outputs and the rest of the batch."""
    habit(
        name,
        [X, *targets],
        layers(net=network(8, 16, outputs)),
        lambda module, batch: loss(module.net(batch[0]), *batch[1:]),
    )


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, 3).float()


# --- likelihoods of classes, by hand and otherwise


def probabilities(z: Tensor) -> Tensor:
    return z.exp() / z.exp().sum(1, keepdim=True)


def stable(z: Tensor) -> Tensor:
    return probabilities(z - z.max(1, keepdim=True).values)


def smoothed(z: Tensor, y: Tensor) -> Tensor:
    return torch.full_like(z, 0.05).scatter_(1, y[:, None], 0.9)


def evidence(z: Tensor) -> Tensor:
    return z.relu() + 1


def own(p: Tensor, y: Tensor) -> Tensor:
    return p.gather(1, y[:, None])


plain("softmax by hand", 3, lambda z, y: -own(probabilities(z), y).log().mean(), CLASSES)
plain("stable softmax by hand", 3, lambda z, y: -(one_hot(y) * stable(z).log()).sum(1).mean(), CLASSES)
plain("log_softmax by hand", 3, lambda z, y: F.nll_loss(z - z.logsumexp(1, keepdim=True), y), CLASSES)
plain("log_softmax by hand, gathered", 3, lambda z, y: -own(z - z.exp().sum(1, keepdim=True).log(), y).mean(), CLASSES)
plain("logsumexp", 3, lambda z, y: (z.logsumexp(1) - own(z, y)[:, 0]).mean(), CLASSES)
plain("minus before the choice", 3, lambda z, y: own(-z.log_softmax(1), y).mean(), CLASSES)
plain("minus before the sum", 3, lambda z, y: (one_hot(y) * -z.softmax(1).log()).sum(1).mean(), CLASSES)
plain("by index", 3, lambda z, y: -z.log_softmax(1)[range(len(y)), y].mean(), CLASSES)
plain("logarithms as logits", 3, lambda z, y: F.cross_entropy(z.softmax(1).log(), y), CLASSES)
plain("temperature", 3, lambda z, y: F.cross_entropy(z / 0.07, y), CLASSES)
plain("scaled in place", 3, lambda z, y: F.cross_entropy(z.mul_(2), y), CLASSES)
plain("label smoothing", 3, lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1), CLASSES)
plain("label smoothing by hand", 3, lambda z, y: -(smoothed(z, y) * z.log_softmax(1)).sum(1).mean(), CLASSES)
plain("label smoothing by kl_div", 3, lambda z, y: F.kl_div(z.log_softmax(1), smoothed(z, y), reduction="sum"), CLASSES)
plain("soft labels", 3, F.cross_entropy, SOFT)
plain("soft labels by hand", 3, lambda z, q: -(q * z.log_softmax(1)).sum(1).mean(), SOFT)
plain("soft labels by kl_div", 3, lambda z, q: F.kl_div(z.log_softmax(1), q, reduction="batchmean"), SOFT)
plain(
    "kl_div of logarithms",
    3,
    lambda z, q: F.kl_div(z.log_softmax(1), q, reduction="batchmean", log_target=True),
    SOFT.log(),
)
plain("reverse kl", 3, lambda z, q: (z.softmax(1) * (z.log_softmax(1) - q.log())).sum(1).mean(), SOFT)
plain("class weights", 3, lambda z, y: F.cross_entropy(z, y, torch.tensor([1.0, 2.0, 3.0])), CLASSES)
plain("ignored labels", 3, F.cross_entropy, CLASSES.where(torch.arange(32) % 4 > 0, -100))
plain("focal loss", 3, lambda z, y: -((1 - own(z.softmax(1), y)) ** 2 * own(z.log_softmax(1), y)).mean(), CLASSES)
plain("generalised cross-entropy", 3, lambda z, y: ((1 - own(z.softmax(1), y) ** 0.7) / 0.7).mean(), CLASSES)
plain(
    "evidence",
    3,
    lambda z, y: (one_hot(y) * (evidence(z).sum(1, True).log() - evidence(z).log())).sum(1).mean(),
    CLASSES,
)
plain(
    "evidence over its sum",
    3,
    lambda z, y: -(one_hot(y) * (evidence(z) / evidence(z).sum(1, True)).log()).sum(1).mean(),
    CLASSES,
)
plain("categorical distribution", 3, lambda z, y: -Categorical(logits=z).log_prob(y).mean(), CLASSES)
plain("hinge of classes", 3, F.multi_margin_loss, CLASSES)
plain(
    "distance of distributions",
    3,
    lambda z, y: (z.softmax(1).cumsum(1) - one_hot(y).cumsum(1)).square().mean(),
    CLASSES,
)
plain(
    "words of a text", 3, lambda z, c: -(c * (z.softmax(1) + 1e-10).log()).sum(1).mean(), COUNTS.expand(32, 3).clone()
)
plain(
    "words of a text, log_softmax", 3, lambda z, c: -(c * z.log_softmax(1)).sum(1).mean(), COUNTS.expand(32, 3).clone()
)
plain("minus a constant", 3, lambda z, y: F.cross_entropy(z, y) - 5, CLASSES)
plain("a penalty", 3, lambda z, y: F.cross_entropy(z, y) + 0.1 * z.square().mean(), CLASSES)
plain("a bonus", 3, lambda z, y: F.cross_entropy(z, y) - 0.1 * Categorical(logits=z).entropy().mean(), CLASSES)
plain("advantages", 3, lambda z, a, gain: -(own(z.log_softmax(1), a) * gain).mean(), CLASSES, -1 - POSITIVE)
plain(
    "advantages of a distribution",
    3,
    lambda z, a, gain: -(Categorical(logits=z).log_prob(a) * gain).mean(),
    CLASSES,
    -POSITIVE[:, 0],
)
plain(
    "advantages of cross_entropy",
    3,
    lambda z, a, gain: (F.cross_entropy(z, a, reduction="none") * gain).mean(),
    CLASSES,
    -POSITIVE[:, 0],
)
plain(
    "weights of samples",
    3,
    lambda z, y, w: (F.cross_entropy(z, y, reduction="none") * w).mean(),
    CLASSES,
    POSITIVE[:, 0],
)
plain(
    "weights of samples by hand",
    3,
    lambda z, y, w: (-(one_hot(y) * z.log_softmax(1)).sum(1) * w).mean(),
    CLASSES,
    POSITIVE[:, 0],
)
plain(
    "hazards",
    4,
    lambda z, t: -(own(z.sigmoid(), t).log() + own((1 - z.sigmoid()).cumprod(1), t).log()).mean(),
    torch.arange(32) % 4,
)
plain(
    "thresholds", 3, lambda z, y: F.binary_cross_entropy_with_logits(z, (y[:, None] > torch.arange(3)).float()), CLASSES
)
plain("all ignored", 3, lambda z, y: F.cross_entropy(z, y, reduction="sum"), torch.full((32,), -100))
plain("a weight that grows from zero", 3, lambda z, y: 0.0 * F.cross_entropy(z, y), CLASSES)

# --- zeros and ones


def binary(make: Callable[[Tensor], Tensor] = torch.sigmoid, zeros_first: bool = False) -> Callable[..., Tensor]:
    def loss(z: Tensor, t: Tensor) -> Tensor:
        p = make(z)
        terms = [t * (p + 1e-7).log(), (1 - t) * (1 - p + 1e-7).log()]
        return -(terms[1] + terms[0]).mean() if zeros_first else -(terms[0] + terms[1]).mean()

    return loss


plain("binary by hand", 1, binary(), ONES)
plain("binary by hand, zeros first", 1, binary(zeros_first=True), ONES)
plain("complementary log-log", 1, binary(lambda z: 1 - (-z.exp()).exp()), ONES)
plain("probit", 1, binary(torch.special.ndtr), ONES)
plain("half a tanh", 1, binary(lambda z: (z.tanh() + 1) / 2), ONES)
plain("logsigmoid", 1, lambda z, t: -(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)).mean(), ONES)
plain("softplus", 1, lambda z, t: (F.softplus(z) - t * z).mean(), ONES)
plain("weights by hand", 1, lambda z, t: -(3 * t * z.sigmoid().log() + (1 - t) * (1 - z.sigmoid()).log()).mean(), ONES)
plain("pos_weight", 1, lambda z, t: F.binary_cross_entropy_with_logits(z, t, pos_weight=torch.tensor([3.0])), ONES)
plain("binary focal loss", 1, lambda z, t: F.binary_cross_entropy(z.sigmoid() ** 2, t), ONES)
plain("focal loss, zeros first", 1, lambda z, t: -((1 - t) * (1 - z.sigmoid()) + t * z.sigmoid()).log().mean(), ONES)
plain(
    "missing labels",
    3,
    lambda z, t: (F.binary_cross_entropy_with_logits(z, t, reduction="none") * (t >= 0)).mean(),
    SOME - 2 * (X[:, :3] > 1).float() * SOME,
)
plain("dice", 1, lambda z, t: 1 - 2 * (z.sigmoid() * t).sum() / (z.sigmoid().sum() + t.sum()), ONES)
plain("hinge", 1, lambda z, t: (1 - (2 * t - 1) * z).clamp(min=0).mean(), ONES)
plain("distances that should be small", 1, lambda z, t: F.hinge_embedding_loss(z.abs(), 2 * t - 1), ONES)
plain(
    "distances, by hand", 1, lambda z, t: (t * F.softplus(z) ** 2 + (1 - t) * (1 - F.softplus(z)).relu()).mean(), ONES
)

# --- numbers

plain("root", 1, lambda z, y: F.mse_loss(z, y).sqrt(), NUMBERS)
plain("logarithm of squares", 1, lambda z, y: 10 * F.mse_loss(z, y).log10(), NUMBERS)
plain("squares of logarithms", 1, lambda z, y: F.mse_loss(F.softplus(z).log1p(), y.log1p()), 40 * POSITIVE)
plain("log cosh", 1, lambda z, y: (z - y).cosh().log().mean(), NUMBERS)
plain("a mask", 3, lambda z, y, m: ((z - y) ** 2 * m).sum() / m.sum(), FAR, SOME)
plain("a mask before the square", 3, lambda z, y, m: (((z - y) * m) ** 2).sum() / m.sum(), FAR, SOME)
plain("a mask by where", 3, lambda z, y, m: torch.where(m.bool(), (z - y) ** 2, torch.zeros(())).mean(), FAR, SOME)
plain("a mask by index", 3, lambda z, y, m: ((z - y)[m.bool()] ** 2).mean(), FAR, SOME)
plain("weighted squares", 3, lambda z, y, w: (w * (z - y) ** 2).mean(), FAR, SOME + 0.5)
plain(
    "targets that are missing",
    3,
    lambda z, y: F.mse_loss(z[~y.isnan()], y[~y.isnan()]),
    X[:, :3].where(SOME > 0, torch.nan),
)
plain("quantiles", 3, lambda z, y: torch.maximum(0.9 * (y - z), -0.1 * (y - z)).mean(), NUMBERS)
plain("likelihood of a normal", 2, lambda z, y: -Normal(z[:, :1], z[:, 1:].exp()).log_prob(y).mean(), NUMBERS)
plain("gaussian_nll_loss", 2, lambda z, y: F.gaussian_nll_loss(z[:, :1], y, F.softplus(z[:, 1:])), NUMBERS)
plain(
    "mixture of normals",
    6,
    lambda z, y: (
        -MixtureSameFamily(Categorical(logits=z[:, :2]), Normal(z[:, 2:4], z[:, 4:].exp())).log_prob(y[:, 0]).mean()
    ),
    NUMBERS,
)
plain("likelihood of counts", 1, lambda z, y: F.poisson_nll_loss(z - 0.5, y), (COUNTS > 7).float())
plain("likelihood of counts by hand", 1, lambda z, y: (F.softplus(z) - y * F.softplus(z).log()).mean(), COUNTS)
plain("counts by their exponential", 1, lambda z, y: (z.exp() - y * z.exp().log()).mean(), COUNTS.long())
plain("poisson distribution", 1, lambda z, y: -Poisson(F.softplus(z)).log_prob(y).mean(), COUNTS)
plain("negative binomial", 1, lambda z, y: -NegativeBinomial(5.0, logits=z).log_prob(y).mean(), COUNTS)
plain("exponential distribution", 1, lambda z, y: -Exponential(z.exp()).log_prob(y).mean(), POSITIVE)
plain("a correlation", 1, lambda z, y: -((z - z.mean()) * (y - y.mean())).mean() / (z.std() * y.std()), NUMBERS)
plain(
    "a cosine", 1, lambda z, y: 1 - F.cosine_similarity((z - z.mean()).flatten(), (y - y.mean()).flatten(), 0), NUMBERS
)
plain("weights of a portfolio", 3, lambda z, r: -(z.softmax(1) * r).sum(1).mean(), X[:, :3])
plain("positions", 1, lambda z, r: -((0.5 + z) * r).mean(), 0.01 * POSITIVE)
plain("scores of a list", 1, lambda z, y: -(y.softmax(0) * z.log_softmax(0)).sum(), NUMBERS)
plain("scores of a list, by hand", 1, lambda z, y: -(y.softmax(0) * z.softmax(0).log()).sum(), NUMBERS)
plain("all pairs", 1, lambda z, y: F.softplus(-(z - z.T) * (y - y.T).sign()).mean(), NUMBERS)
plain("kernel of all pairs", 3, lambda z, y: -(-((z[:, None] - y[None]) ** 2).sum(-1)).exp().mean(), X[:, :3])
plain("nearest points", 3, lambda z, y: ((z[:, None] - y[None]) ** 2).sum(-1).min(1).values.mean(), X[:, :3])
plain("sorted", 1, lambda z, y: (z.sort(0).values - y.sort(0).values).abs().mean(), NUMBERS)
plain("values of actions", 3, lambda z, a, y: F.smooth_l1_loss(own(z, a), y), CLASSES, 5 + POSITIVE)
plain("a mask of a spectrum", 1, lambda z, y, mix: (z.sigmoid() * mix - y).square().mean(), 5 * POSITIVE, 9 * POSITIVE)
plain("a range of its own", 1, lambda z, y: F.mse_loss(10 * z.sigmoid(), y), POSITIVE)
plain("two tasks", 4, lambda z, y, r: F.cross_entropy(z[:, :3], y) + F.mse_loss(z[:, 3:], r), CLASSES, NUMBERS)
