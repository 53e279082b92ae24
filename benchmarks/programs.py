"""Keras programs that were reported as faulty, and their corrections: their networks, losses and optimizers.

data/programs.yaml says what each one is: layers, last activation, loss, optimizer, rate, batch size, epochs; of these,
`fixed` has those that the correction changes. Initial weights, epsilons and clamps are Keras's.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from lesson.optimizer import KerasRMSprop
from program_data import Facts, as_input, is_labelled, load, prepare, version

EPSILON = 1e-7
"""Keras's fuzz factor."""

Batch = tuple[Tensor, Tensor]


# --- networks ---


class Recurrent(nn.Module):
    """An LSTM or a GRU that returns its last output, or all of them."""

    def __init__(self, kind: str, inputs: int, units: int, whole: bool) -> None:
        super().__init__()
        self.cell = (nn.LSTM if kind == "lstm" else nn.GRU)(inputs, units, batch_first=True)
        self.whole = whole
        for name, weight in self.cell.named_parameters():
            draw = nn.init.xavier_uniform_ if name.startswith("weight_ih") else nn.init.orthogonal_
            if name.startswith("bias"):
                nn.init.zeros_(weight)
                continue
            for part in torch.split(weight.data, units):
                draw(part)
        if kind == "lstm":
            nn.init.ones_(self.cell.get_parameter("bias_ih_l0")[units : 2 * units])  # Keras's unit_forget_bias

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.cell(x)[0]
        return outputs if self.whole else outputs[:, -1]


class Mean(nn.Module):
    """The mean over the places of a sequence."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Swap(nn.Module):
    """From channels first to channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


INITIAL: dict[str, Callable[[Tensor, float], Any]] = {
    "glorot_uniform": lambda weight, _: nn.init.xavier_uniform_(weight),
    "he_normal": lambda weight, _: nn.init.kaiming_normal_(weight),
    "uniform": lambda weight, _: nn.init.uniform_(weight, -0.05, 0.05),
    "normal": lambda weight, deviation: nn.init.normal_(weight, 0, deviation),
}


def initialise(layer: nn.Module, how: str) -> None:
    """Draw weights as Keras does: glorot_uniform and zero biases, unless the program says otherwise."""
    kind, _, deviation = how.partition(" ")
    for name, weight in layer.named_parameters():
        if name == "weight" or (kind == "normal" and deviation):
            INITIAL[kind](weight, float(deviation or 0.05))
        else:
            nn.init.zeros_(weight)


def layer_of(words: list[str], shape: torch.Size, init: str) -> nn.Module:
    """Build a layer for inputs of a shape, such as `conv 16 3 same`, `lstm 10 all` or `dense 30 he_normal`."""
    kind, numbers = words[0], [float(word) for word in words[1:] if word.replace(".", "").isdigit()]
    size = int(numbers[0]) if numbers else 0
    if kind in ("lstm", "gru"):
        return Recurrent(kind, shape[-1], size, "all" in words)
    if kind == "embedding":
        layer: nn.Module = nn.Embedding(size, int(numbers[1]))
        initialise(layer, "uniform")
        return layer
    if kind in ("dense", "frozen", "conv", "conv1d"):
        if kind in ("dense", "frozen"):
            layer = nn.Linear(shape[-1], size)
        else:
            convolution = nn.Conv2d if kind == "conv" else nn.Conv1d
            layer = convolution(shape[1], size, int(numbers[1]), padding="same" if "same" in words else 0)
        initialise(layer, next((word for word in words if word in INITIAL), init))
        return layer.requires_grad_(kind != "frozen")
    simple: dict[str, Callable[[], nn.Module]] = {
        "dropout": lambda: nn.Dropout(numbers[0]),
        "flatten": nn.Flatten,
        "pool": lambda: nn.MaxPool2d(2, ceil_mode="same" in words),
        "pool1d": lambda: nn.MaxPool1d(size),
        "mean": Mean,
        "swap": Swap,
        "bn": lambda: (nn.BatchNorm1d if len(shape) < 4 else nn.BatchNorm2d)(shape[1], eps=1e-3, momentum=0.01),
        **{"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "elu": nn.ELU, "linear": nn.Identity},
        **{"softmax": lambda: nn.Softmax(-1), "leaky": lambda: nn.LeakyReLU(0.3)},
    }
    return simple[kind]()


def build(spec: Facts, example: Tensor) -> nn.Sequential:
    """Build a program's network for inputs like an example."""
    network = nn.Sequential()
    for layer in [*spec["layers"], spec["last"]]:
        with torch.no_grad():
            shape = network.eval()(example).shape
        network.append(layer_of(layer.split(), shape, spec.get("init", "glorot_uniform")))
    return network.train()


# --- losses, of what the last activation returns ---


def categorical(p: Tensor, t: Tensor) -> Tensor:
    """Keras's categorical cross-entropy, which divides by the sum of the outputs."""
    t = t if t.is_floating_point() else F.one_hot(t, p.shape[-1])
    loss = -(t * (p / p.sum(-1, keepdim=True)).clamp(EPSILON, 1 - EPSILON).log()).sum(-1).mean()
    return loss + 0 * loss.detach() * p.sum()  # a loss of 0/0 spoils the weights, as in TensorFlow: its ReLU keeps NaN


def sparse(p: Tensor, t: Tensor) -> Tensor:
    """Keras's sparse categorical cross-entropy."""
    p = p.clamp(EPSILON, 1 - EPSILON)
    return F.nll_loss((p / p.sum(-1, keepdim=True)).log(), t)


def categorical_logits(x: Tensor, t: Tensor) -> Tensor:
    """The categorical cross-entropy with `from_logits=True`."""
    t = t if t.is_floating_point() else F.one_hot(t, x.shape[-1])
    return -(t * x.log_softmax(-1)).sum(-1).mean()


def binary(p: Tensor, t: Tensor) -> Tensor:
    """Keras's binary cross-entropy."""
    p = p.clamp(EPSILON, 1 - EPSILON)
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{"categorical": categorical, "sparse": sparse, "categorical_logits": categorical_logits, "binary": binary},
    "mse": lambda p, t: (p - t).square().mean(),
    "mae": lambda p, t: (p - t).abs().mean(),
    "poisson": lambda p, t: (p - t * (p + EPSILON).log()).mean(),
}


def hits(p: Tensor, t: Tensor) -> Tensor:
    """Return which answers are right: of several outputs the largest, of one whether it is above a half."""
    whole = not t.is_floating_point()
    if p.shape[-1] > 1 and (whole or p.shape != t.shape or bool((t.sum(-1) == 1).all())):
        label = t if whole else t.argmax(-1) if t.shape[-1] > 1 else t[..., 0]
        return (p.argmax(-1) == label).float()
    return ((p > 0.5).float() == t.reshape(len(t), *p.shape[1:])).float()


# --- Lightning ---


class Program(pl.LightningModule):
    """One program's network, loss and optimizer.

    Args:
        program: Its name in the table.
        fixed: The corrected version.
        lr: Another learning rate than the program's.
    """

    def __init__(self, program: str, fixed: bool = False, lr: float | None = None) -> None:
        super().__init__()
        self.spec = version(program, fixed)
        self.rate: float = self.spec["lr"] if lr is None else lr
        self.network = build(self.spec, as_input(load(program)[0][:2]))
        self.variance: float | None = None
        if not is_labelled(self.spec["data"]):
            targets = prepare(program, fixed)[1].tensors[1].flatten(1)
            self.variance = float((targets - targets.mean(0)).square().mean())

    def forward(self, x: Tensor) -> Tensor:
        p: Tensor = self.network(x)
        return p

    def _step(self, batch: Batch, stage: str) -> Tensor:
        x, t = batch
        p = self.network(x)
        loss = LOSSES[self.spec["loss"]](p, t)
        scores = {"loss": loss}
        if self.variance is None:
            scores["accuracy"] = hits(p.detach(), t).mean()
        elif stage == "val":
            scores["r2"] = self.explained(p, t)
        for name, value in scores.items():
            self.log(f"{stage}/{name}", value, on_step=False, on_epoch=True, batch_size=len(x))
        return loss

    def explained(self, p: Tensor, t: Tensor) -> Tensor:
        """A batch's share of R2: their mean, weighted by samples, is that of the whole validation set."""
        assert self.variance is not None
        p, t = p.detach().flatten(1), t.flatten(1)
        p = p if p.shape == t.shape else p.mean(1, keepdim=True)
        return 1 - (p - t).square().mean() / self.variance

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self._step(batch, "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._step(batch, "val")

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights, lr, spec = [w for w in self.parameters() if w.requires_grad], self.rate, self.spec
        if spec["optimizer"] == "sgd":
            return torch.optim.SGD(weights, lr, spec.get("momentum", 0.0), nesterov=spec.get("nesterov", False))
        if spec["optimizer"] == "rmsprop":
            return KerasRMSprop(weights, lr)
        adam = torch.optim.Adam if spec["optimizer"] == "adam" else torch.optim.NAdam
        return adam(weights, lr, eps=EPSILON)


class Shuffled(Sampler[Tensor]):
    """Batches of a new order in every pass; an epoch here may be several of the program's."""

    def __init__(self, samples: int, batch_size: int, passes: int) -> None:
        self.samples, self.batch_size, self.passes = samples, batch_size, passes

    def __len__(self) -> int:
        return self.passes * -(-self.samples // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        for _ in range(self.passes):
            yield from torch.split(torch.randperm(self.samples), self.batch_size)


class ProgramData(pl.LightningDataModule):
    """One program's data, as its loss gets them.

    Args:
        program: Its name in the table.
        fixed: The corrected version.
        batch_size: Another one than the program's.
    """

    def __init__(self, program: str, fixed: bool = False, batch_size: int | None = None) -> None:
        super().__init__()
        spec = version(program, fixed)
        self.program, self.fixed, self.passes = program, fixed, spec.get("passes", 1)
        self.batch_size: int = batch_size or spec["batch_size"]

    def setup(self, stage: str | None = None) -> None:
        self.training, self.validation = prepare(self.program, self.fixed)

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        order = Shuffled(len(self.training), self.batch_size, self.passes)
        return DataLoader(self.training, batch_size=None, sampler=order)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        in_turn = torch.split(torch.arange(len(self.validation)), 500)
        return DataLoader(self.validation, batch_size=None, sampler=in_turn)
