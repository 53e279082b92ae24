"""Habits of other people's modules, one class each: all are legal, or what is wrong with them fits on one line.

A new trait is a new subclass of `Trait` and nothing else: `test_zoo.py` finds it, and takes it through a fit, the
learning-rate finder and the diagnosis.
"""

from __future__ import annotations

import copy
import math
from collections import UserDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence, pad_sequence
from torch.optim import SGD, Adam, lr_scheduler
from torch.utils.data import DataLoader, IterableDataset, TensorDataset
from torchmetrics import Accuracy

RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(160, 8, generator=RANDOM)
Y = (X[:, 0] + X[:, 1] > 0).long()
ROWS: Any = list(zip(X, Y, strict=True))
SIZE = 16


def loader(samples: Any = None, **how: Any) -> Any:
    return DataLoader(TensorDataset(X, Y) if samples is None else samples, **{"batch_size": SIZE, **how})


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))


class Trait(pl.LightningModule):
    """The plain one: what its subclasses do otherwise is their trait."""

    refused: ClassVar[dict[str, str]] = {}
    """What an instrument (`fit`, `find` or `diagnose`) says in one line, where it cannot help."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net: Any = network()

    @classmethod
    def data(cls) -> Any:
        """Return what `Trainer.fit` takes beside the module."""
        return loader(shuffle=True), loader()

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=self.hparams["lr"])


# How a step is written


class WithoutIndex(Trait):
    """Lightning passes the number of a batch only where it is asked for."""

    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return self.loss(batch)


class AnyArguments(Trait):
    def training_step(self, batch: Any, *arguments: Any, **named: Any) -> Any:
        return self.loss(batch)


class Skips(Trait):
    """None skips a batch."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 4 == 1 else self.loss(batch)


class SkipsTheFirst(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return None if batch_idx % 4 == 0 else self.loss(batch)


class ReturnsMapping(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return {"loss": self.loss(batch), "outputs": self.net(batch[0]), "count": 3}


class LossOfOneElement(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch).reshape(1)


class EndsInTraining(Trait):
    """A look at the predictions, and back to training."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.eval()
        with torch.inference_mode():
            self.net(batch[0])
        self.train()
        return self.loss(batch)


class NegativeLoss(Trait):
    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) - 5


class DoublePrecision(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.double()

    def loss(self, batch: Any) -> Tensor:
        return super().loss((batch[0].double(), batch[1]))


class LogsAll(Trait):
    """Metrics, figures, rates and schedules, from within the step."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.accuracy = Accuracy("multiclass", num_classes=2)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        optimizer: Any = self.optimizers()
        schedule: Any = self.lr_schedulers()
        self.log("rate", optimizer.param_groups[0]["lr"])
        self.log_dict({"loss": loss, "last": schedule.get_last_lr()[0]}, prog_bar=True, on_epoch=True)
        self.accuracy(self.net(batch[0]), batch[1])
        self.log("train_acc", self.accuracy)
        if self.logger is not None:
            self.logger.log_metrics({"step": 1.0}, step=self.global_step)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [lr_scheduler.StepLR(optimizer, 10)]


class RefusesBadNumbers(Trait):
    """A distribution raises where its parameters are NaN."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 2))

    def loss(self, batch: Any) -> Tensor:
        mean, log_scale = self.net(batch[0]).unbind(1)
        distance: Tensor = -torch.distributions.Normal(mean, log_scale.exp()).log_prob(batch[1].float()).mean()
        return distance

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=self.hparams["lr"])


class Forces(Trait):
    """What is compared is the derivative of what the network returns, in evaluation as well."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

    validation_step = None  # type: ignore[assignment]

    @classmethod
    def data(cls) -> Any:
        return loader(TensorDataset(X, -2 * X), shuffle=True)

    def loss(self, batch: Any) -> Tensor:
        places = batch[0].clone().requires_grad_()
        (forces,) = torch.autograd.grad(self.net(places).sum(), places, create_graph=True)
        return F.mse_loss(-forces, batch[1])


class WritesFiles(Trait):
    """Beside its log."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        if self.logger is not None:
            assert self.logger.log_dir is not None
            (Path(self.logger.log_dir) / "last.txt").write_text(str(float(loss)))
        return loss


# What hooks do


class MadeAtEpochStart(Trait):
    def on_train_epoch_start(self) -> None:
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.losses.append(loss := self.loss(batch))
        return loss

    def on_train_epoch_end(self) -> None:
        torch.stack(self.losses).mean()


class MadeAtTrainStart(Trait):
    def on_train_start(self) -> None:
        self.weight = torch.ones(2, device=self.device)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1], getattr(self, "weight", None))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1], self.weight)


class BufferMadeAtTrainStart(Trait):
    def on_train_start(self) -> None:
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen += 1  # type: ignore[has-type]
        return self.loss(batch)


class MadeAtFitStart(Trait):
    def on_fit_start(self) -> None:
        self.scale = 1.0

    def teardown(self, stage: str) -> None:
        del self.scale

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.scale * self.loss(batch)


class LayersInSetup(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        del self.net

    def setup(self, stage: str) -> None:
        self.net = network()


class LayersInConfigureModel(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = None

    def configure_model(self) -> None:
        if self.net is None:
            self.net = network()


class Teacher(Trait):
    """An average of the weights, kept in `on_train_batch_end`."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.average = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) + F.mse_loss(self.net(batch[0]), self.average(batch[0]))

    def on_train_batch_end(self, *given: Any) -> None:
        for weight, average in zip(self.net.parameters(), self.average.parameters(), strict=True):
            average.lerp_(weight.detach(), 0.1)


class CopiesItself(Trait):
    def on_train_start(self) -> None:
        self.start = [copy.deepcopy(self)]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) + 0.0 * self.start[0].loss(batch).detach()


class EveryHook(Trait):
    """Each is called in its turn, as the order of these letters says."""

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.seen = "s"

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.seen += "z"

    def on_before_backward(self, loss: Tensor) -> None:
        self.seen += "b"

    def on_after_backward(self) -> None:
        self.seen += "a"

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.seen += "o"

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.seen == "szbao"
        assert outputs["loss"].ndim == 0


class ReadsWhatItLogged(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert self.trainer.callback_metrics["train_loss"] == outputs["loss"]


class EndsEpochsEarly(Trait):
    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 6 else None

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        assert batch_idx != 6
        assert "loss" in outputs


class CarriesItsState(Trait):
    """From batch to batch, as truncated backpropagation through time does; an epoch begins afresh."""

    state: Tensor | None = None

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS[:96], drop_last=True)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert (self.state is None) == (batch_idx == 0) or not self.training
        hidden = self.net[1](self.net[0](batch[0])) + (0 if self.state is None else self.state.detach())
        self.state = hidden / 2
        return F.cross_entropy(self.net[2](hidden), batch[1])

    def on_train_epoch_end(self) -> None:
        self.state = None


class ReportsAtEpochEnd(Trait):
    """Of a validation that a trial does not make; and it saves itself."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated = self.loss(batch)
        self.log("val_loss", self.validated)

    def on_train_epoch_end(self) -> None:
        self.trainer.save_checkpoint(f"{self.trainer.default_root_dir}/{float(self.validated)}.ckpt")


class WarmsUp(Trait):
    """The module makes the step, and sets its rate."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.hparams["lr"] * min(1.0, (self.trainer.global_step + 1) / 5)
        optimizer.step(closure=optimizer_closure)


class ZeroesGradientsItself(Trait):
    zeroed = False

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        self.zeroed = True
        optimizer.zero_grad(set_to_none=False)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        assert self.zeroed


class StepsEveryOther(Trait):
    """The optimizer of Lightning's own kind; every other batch only adds to the gradients."""

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        assert optimizer.optimizer.param_groups
        if batch_idx % 2:
            optimizer.step(closure=optimizer_closure)
        else:
            optimizer_closure()

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        if batch_idx % 2 == 0:
            optimizer.zero_grad()


class ClipsItself(Trait):
    def configure_gradient_clipping(self, optimizer: Any, *limit: Any, **named: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")


class RetainsGraph(Trait):
    def backward(self, loss: Tensor, *arguments: Any, **named: Any) -> None:
        loss.backward(retain_graph=True)


# What it asks of its trainer


class AsksItsTrainer(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        trainer = self.trainer
        for name in (
            *("num_training_batches", "max_epochs", "max_steps", "is_last_batch", "estimated_stepping_batches"),
            *("train_dataloader", "val_dataloaders", "callback_metrics", "logged_metrics", "progress_bar_metrics"),
            *("datamodule", "log_dir", "log_every_n_steps", "world_size", "precision", "model", "current_epoch"),
        ):
            getattr(trainer, name)
        assert trainer.lightning_module is self
        return self.loss(batch)


class AsksItsData(Trait):
    """How long an epoch is, of the data module."""

    @classmethod
    def data(cls) -> Any:
        return DataModule(loader(shuffle=True), loader())

    def setup(self, stage: str) -> None:
        self.batches = len(self.trainer.datamodule.train_dataloader())  # type: ignore[attr-defined]

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        assert self.batches == self.trainer.num_training_batches
        return self.loss(batch)


class OnlyWhileTraining(Trait):
    """A loss only while the trainer says that it trains."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        trains = self.trainer.training and not self.trainer.sanity_checking and self.trainer.state.fn == "fit"
        return self.loss(batch) if trains else None


class Annealed(Trait):
    """A second term that grows with the steps."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        outputs = self.net(batch[0])
        return F.cross_entropy(outputs, batch[1]) + min(1.0, self.global_step / 20) * outputs.square().mean()


class CountsEpochs(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batches, epochs = int(self.trainer.num_training_batches), self.trainer.max_epochs
        assert epochs is not None
        return self.loss(batch) * (1 + (batch_idx + self.current_epoch * batches) / (epochs * batches))


# What it is made of


class KeepsGraph(Trait):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.last = self.loss(batch)
        return self.last


class KeepsGraphFromTheStart(Trait):
    """What was computed from weights when it was made."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.cached = {"norms": [self.net[0].weight.norm()]}


class ForwardHook(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net[0].register_forward_hook(lambda part, inputs, output: output)


class WeightNorm(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        nn.utils.parametrizations.weight_norm(self.net[0])


class OldWeightNorm(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        old: Callable[[nn.Module], nn.Module] = nn.utils.weight_norm
        old(self.net[0])


class SpectralNorm(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        nn.utils.spectral_norm(self.net[0])


class Scripted(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = torch.jit.script(self.net)


class Lazy(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.LazyLinear(16), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))


class LazyWithoutValidation(Lazy):
    """Nothing is known of its weights until the first step."""

    validation_step = None  # type: ignore[assignment]

    @classmethod
    def data(cls) -> Any:
        return loader()


class KeepsPartOfItsState(Trait):
    """What is frozen is not saved."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.backbone = nn.Linear(8, 8).requires_grad_(False)

    def state_dict(self, *arguments: Any, **named: Any) -> Any:
        whole = super().state_dict(*arguments, **named)
        return {name: value for name, value in whole.items() if "backbone" not in name}

    def loss(self, batch: Any) -> Tensor:
        return super().loss((self.backbone(batch[0]), batch[1]))


class ComplexWeights(Trait):
    """As of a spectrum."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.spectrum = nn.Parameter(torch.randn(5, 5, dtype=torch.complex64) / 4)

    def loss(self, batch: Any) -> Tensor:
        return super().loss((torch.fft.irfft(torch.fft.rfft(batch[0]) @ self.spectrum, 8), batch[1]))


class SparseGradients(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.embed = nn.Embedding(30, 8, sparse=True)

    @classmethod
    def data(cls) -> Any:
        words = torch.randint(30, (160, 4), generator=torch.Generator().manual_seed(0))
        return loader(TensorDataset(words, words[:, 0] % 2), shuffle=True)

    def loss(self, batch: Any) -> Tensor:
        return super().loss((self.embed(batch[0]).mean(1), batch[1]))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=self.hparams["lr"])


class PartlyFrozen(Trait):
    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net[0].requires_grad_(False)


class ModuleWithin(Trait):
    """A LightningModule within another, as in distillation."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.teacher = Trait()
        self.teacher.freeze()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) + F.mse_loss(self.net(batch[0]), self.teacher.net(batch[0]))


class HoldsGenerator(Trait):
    """What no copy can be made of."""

    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "HoldsGenerator: it cannot be copied")

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.numbers = (number for number in range(3))


# Its optimizer and its schedule


class LBFGS(Trait):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=self.hparams["lr"], max_iter=2)


class Adafactor(Trait):
    """Its rate is relative to the weights."""

    def configure_optimizers(self) -> Any:
        return torch.optim.Adafactor(self.parameters(), lr=self.hparams["lr"])


class WithoutOptimizer(Trait):
    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "configure_optimizers returned None")

    def configure_optimizers(self) -> Any:
        return None


class WithoutConfigureOptimizers(pl.LightningModule):
    """Refused by Lightning itself, too."""

    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "it has no configure_optimizers") | {"fit": ""}
    data = Trait.data

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return F.cross_entropy(self.net(batch[0]), batch[1])


class TwoOptimizers(Trait):
    """Refused by Lightning itself, too: with automatic optimization."""

    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "multiple optimizers") | {"fit": ""}

    def configure_optimizers(self) -> Any:
        return [Adam(self.net[0].parameters()), Adam(self.net[2].parameters())]


class Adversarial(Trait):
    """Two optimizers, stepped by hand."""

    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "manual optimization .*fit")

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.automatic_optimization = False
        self.critic = nn.Linear(2, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        first, second = self.optimizers()  # type: ignore[attr-defined]
        made = self.net(batch[0])
        self.toggle_optimizer(first)
        loss = F.softplus(-self.critic(made)).mean()
        first.zero_grad()
        self.manual_backward(loss)
        first.step()
        self.untoggle_optimizer(first)
        self.toggle_optimizer(second)
        loss = F.softplus(self.critic(made.detach())).mean() + F.softplus(-self.critic(batch[0][:, :2])).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        self.untoggle_optimizer(second)

    def configure_optimizers(self) -> Any:
        return [Adam(self.net.parameters(), lr=1e-3), Adam(self.critic.parameters(), lr=1e-3)]


class TensorRate(Trait):
    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=torch.tensor(self.hparams["lr"]))


class GroupEach(Trait):
    def configure_optimizers(self) -> Any:
        rate = self.hparams["lr"]
        return SGD([{"params": [weight], "lr": rate * (1 + weight.ndim)} for weight in self.parameters()])


class FirstGroupAtRest(Trait):
    def configure_optimizers(self) -> Any:
        groups = [{"params": self.net[0].parameters(), "lr": 0.0}, {"params": self.net[2].parameters()}]
        return Adam(groups, lr=self.hparams["lr"])


class FirstGroupEmpty(Trait):
    def configure_optimizers(self) -> Any:
        return Adam([{"params": []}, {"params": self.net.parameters()}], lr=self.hparams["lr"])


class AllAtRest(Trait):
    refused: ClassVar = dict.fromkeys(("find", "diagnose"), "lr=0 of every parameter group")

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.0)


class Scheduled(Trait):
    """What its subclasses schedule."""

    monitor: ClassVar[str | None] = None

    def schedule(self, optimizer: Any) -> Any:
        return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 5))

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        chosen = {"scheduler": self.schedule(optimizer), "interval": "step"}
        if self.monitor:
            chosen |= {"monitor": self.monitor, "interval": "epoch"}
        return {"optimizer": optimizer, "lr_scheduler": chosen}


class WarmUpThenCosine(Scheduled):
    def schedule(self, optimizer: Any) -> Any:
        parts = [lr_scheduler.LinearLR(optimizer, 0.01, total_iters=5), lr_scheduler.CosineAnnealingLR(optimizer, 50)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[5])


class WarmRestarts(Scheduled):
    def schedule(self, optimizer: Any) -> Any:
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 10)


class Plateau(Scheduled):
    monitor = "val_loss"

    def schedule(self, optimizer: Any) -> Any:
        return lr_scheduler.ReduceLROnPlateau(optimizer)


class OneCycle(Scheduled):
    """Its rates are its own: the peak is searched."""

    def schedule(self, optimizer: Any) -> Any:
        steps = int(self.trainer.estimated_stepping_batches)
        return lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=max(200, steps))


# Where its rate is kept


class RateElsewhere(Trait):
    """No saved hyper-parameter: an attribute."""

    def __init__(self, base_rate: float = 1e-2) -> None:
        pl.LightningModule.__init__(self)
        self.net, self.rate = network(), base_rate

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=self.rate)


class RateInMapping(Trait):
    def __init__(self, config: dict[str, Any] | None = None) -> None:
        pl.LightningModule.__init__(self)
        self.save_hyperparameters({"optimizer": {"lr": 1e-2}} if config is None else config)
        self.net = network()

    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), **self.hparams["optimizer"])


class RateWrittenDown(Trait):
    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=1e-2)


class RateScaled(Trait):
    def configure_optimizers(self) -> Any:
        return Adam(self.parameters(), lr=self.hparams["lr"] * SIZE / 256)


class RatesByDepth(Trait):
    def configure_optimizers(self) -> Any:
        rate = self.hparams["lr"]
        groups = [{"params": self.net[0].parameters(), "lr": rate / 100}, {"params": self.net[2].parameters()}]
        return Adam(groups, lr=rate)


class OptimizerGiven(Trait):
    def __init__(self, optimizer: Callable[[Any], Any] = lambda weights: Adam(weights, lr=1e-2)) -> None:
        pl.LightningModule.__init__(self)
        self.net, self.optimizer = network(), optimizer

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


# Its data


class OwnLoaders(Trait):
    @classmethod
    def data(cls) -> Any:
        return None

    def train_dataloader(self) -> Any:
        return loader(shuffle=True)

    def val_dataloader(self) -> Any:
        return [loader(), loader(ROWS[:32])]

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("val_loss", self.loss(batch))


class NothingToValidate(Trait):
    validation_step = None  # type: ignore[assignment]

    @classmethod
    def data(cls) -> Any:
        return loader()


class Stream(Trait):
    """Nobody knows how long it is."""

    @classmethod
    def data(cls) -> Any:
        class Rows(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                yield from ROWS

        return loader(Rows()), loader()


class DataModule(pl.LightningDataModule):
    """Loaders of the training data in any collection."""

    def __init__(self, training: Any, validation: Any) -> None:
        super().__init__()
        self.training, self.validation = training, validation

    def train_dataloader(self) -> Any:
        return self.training

    def val_dataloader(self) -> Any:
        return self.validation


class Labelled(Trait):
    """Two loaders at once, in a mapping; validation batches are of another kind."""

    @classmethod
    def training(cls) -> Any:
        return {"labelled": loader(ROWS[:80]), "other": loader(X, shuffle=True)}

    @classmethod
    def data(cls) -> Any:
        return DataModule(cls.training(), loader())

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch["labelled"]) + 0.01 * self.net(batch["other"]).square().mean()


class Combined(Labelled):
    @classmethod
    def training(cls) -> Any:
        return CombinedLoader(super().training(), "max_size_cycle")


class CombinedToTheShortest(Labelled):
    @classmethod
    def training(cls) -> Any:
        return CombinedLoader(super().training(), "min_size")


class Views(Trait):
    """Trained on pairs of views without labels, validated on labels."""

    @classmethod
    def data(cls) -> Any:
        return loader(TensorDataset(X, X + 0.1)), loader(TensorDataset(X, Y))

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        first, second = (F.normalize(self.net(view)) for view in batch)
        return F.cross_entropy(first @ second.T / 0.5, torch.arange(len(first), device=self.device))


class ScalarBeside(Trait):
    """A number for the whole batch beside its samples."""

    @staticmethod
    def collate(rows: Any) -> Any:
        inputs, labels = zip(*rows, strict=True)
        return torch.stack(inputs), torch.stack(labels), torch.tensor(0.5), [str(int(label)) for label in labels]

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS, collate_fn=cls.collate), loader(ROWS, collate_fn=cls.collate)

    def loss(self, batch: Any) -> Tensor:
        assert len(batch[0]) == len(batch[3])
        return batch[2] * F.cross_entropy(self.net(batch[0]), batch[1])  # type: ignore[no-any-return]


SENTENCES = [torch.randint(1, 30, (3 + i % 9,), generator=RANDOM) for i in range(160)]


class Padded(Trait):
    """Every batch is as wide as its longest."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.embed, self.net = nn.Embedding(30, 8, padding_idx=0), nn.LSTM(8, 2, batch_first=True)

    @staticmethod
    def collate(sentences: Any) -> Any:
        lengths = torch.tensor(list(map(len, sentences)))
        return {"words": pad_sequence(sentences, batch_first=True), "lengths": lengths, "labels": lengths % 2}

    @classmethod
    def data(cls) -> Any:
        both: Any = [loader(SENTENCES, collate_fn=cls.collate, shuffle=order) for order in (True, False)]
        return tuple(both)

    def loss(self, batch: Any) -> Tensor:
        words = self.embed(batch["words"])
        packed = pack_padded_sequence(words, batch["lengths"].cpu(), batch_first=True, enforce_sorted=False)
        return F.cross_entropy(self.net(packed)[1][0][-1], batch["labels"])


class Packed(Padded):
    @staticmethod
    def collate(sentences: Any) -> Any:
        rows = sorted(sentences, key=len, reverse=True)
        return pack_sequence([row.float()[:, None] / 30 for row in rows]), torch.tensor([len(row) % 2 for row in rows])

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.LSTM(1, 2)

    def loss(self, batch: Any) -> Tensor:
        assert isinstance(batch[0], PackedSequence)
        return F.cross_entropy(self.net(batch[0])[1][0][-1], batch[1])


class Graph:
    """Several graphs as one: nodes, edges and the graph of each node."""

    def __init__(self, nodes: Tensor, edges: Tensor, graph: Tensor) -> None:
        self.nodes, self.edges, self.graph = nodes, edges, graph
        self.num_graphs = int(graph.max()) + 1

    def to(self, *where: Any, **how: Any) -> Graph:
        return Graph(*(part.to(*where, **how) for part in (self.nodes, self.edges, self.graph)))


class Molecules(NamedTuple):
    graph: Graph
    extra: Tensor | None
    targets: Tensor


class Graphs(Trait):
    """A named tuple with an object inside."""

    @staticmethod
    def collate(rows: Any) -> Molecules:
        sizes = [2 + int(label) for _, label in rows]
        graph = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(sizes))
        nodes = torch.cat([row.expand(size, -1) for (row, _), size in zip(rows, sizes, strict=True)])
        edges = torch.stack([torch.arange(len(nodes) - 1), torch.arange(1, len(nodes))])
        return Molecules(Graph(nodes, edges, graph), None, torch.stack([label for _, label in rows]))

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS, collate_fn=cls.collate, shuffle=True), loader(ROWS, collate_fn=cls.collate)

    def loss(self, batch: Molecules) -> Tensor:
        graph, (source, target) = batch.graph, batch.graph.edges
        nodes = self.net(graph.nodes)
        nodes = nodes.index_add(0, target, nodes[source])
        pooled = nodes.new_zeros(graph.num_graphs, 2).index_add(0, graph.graph, nodes)
        return F.cross_entropy(pooled, batch.targets)


@dataclass
class Record:
    inputs: Tensor
    labels: Tensor


class Encoding(UserDict[str, Tensor]):
    """A mapping whose entries are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        if name == "data":
            raise AttributeError
        return self.data[name]


class Encodings(Trait):
    @staticmethod
    def collate(rows: Any) -> Encoding:
        inputs, labels = zip(*rows, strict=True)
        return Encoding({"inputs": torch.stack(inputs), "labels": torch.stack(labels)})

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS, collate_fn=cls.collate), loader(ROWS, collate_fn=cls.collate)

    def loss(self, batch: Encoding) -> Tensor:
        return super().loss((batch.inputs, batch.labels))


class Language(Trait):
    """The target is the next word."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Embedding(30, 8), nn.Linear(8, 30))

    @classmethod
    def data(cls) -> Any:
        words = torch.randint(30, (160, 6), generator=torch.Generator().manual_seed(0))
        return loader(words), loader(words)

    def loss(self, batch: Tensor) -> Tensor:
        return F.cross_entropy(self.net(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


class Records(Trait):
    """Batches are objects of a class of its own."""

    @staticmethod
    def collate(rows: Any) -> Record:
        inputs, labels = zip(*rows, strict=True)
        return Record(torch.stack(inputs), torch.stack(labels))

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS, collate_fn=cls.collate), loader(ROWS, collate_fn=cls.collate)

    def loss(self, batch: Record) -> Tensor:
        return super().loss((batch.inputs, batch.labels))


class NoiseWhileTraining(Trait):
    """Noise that a transfer hook adds to what is trained on."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return (batch[0] + 0.1 * torch.randn_like(batch[0]), batch[1]) if self.trainer.training else batch


# What its loss compares


class AutoEncoder(Trait):
    """The labels ride along and are never looked at."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 8))

    def loss(self, batch: Any) -> Tensor:
        return F.mse_loss(self.net(batch[0]), batch[0])


class Counts(Trait):
    """A variational autoencoder of counts: what it is given is what it is to give back."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.net = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.mean, self.spread, self.back = nn.Linear(8, 2), nn.Linear(8, 2), nn.Linear(2, 8)

    @classmethod
    def data(cls) -> Any:
        counts = torch.poisson(3 * X.exp(), generator=torch.Generator().manual_seed(0))
        return loader(counts, shuffle=True), loader(counts)

    def loss(self, batch: Any) -> Tensor:
        assert bool((batch == batch.round()).all()), "counts"
        hidden = self.net(batch.log1p())
        code = torch.distributions.Normal(self.mean(hidden), F.softplus(self.spread(hidden)) + 1e-3)
        prior = torch.distributions.Normal(0.0, 1.0)
        drawn = code.rsample()
        rates = torch.distributions.Poisson(F.softplus(self.back(drawn)) + 1e-3)
        bound: Tensor = rates.log_prob(batch).sum(1) - (code.log_prob(drawn) - prior.log_prob(drawn)).sum(1)
        return -bound.mean()


class MaskFirst(Trait):
    """The first floating-point tensor of a batch says which places count; none is an error."""

    @staticmethod
    def collate(rows: Any) -> Any:
        inputs, labels = zip(*rows, strict=True)
        return {"mask": torch.ones(len(rows)), "inputs": torch.stack(inputs), "y": torch.stack(labels)}

    @classmethod
    def data(cls) -> Any:
        return loader(ROWS, collate_fn=cls.collate), loader(ROWS, collate_fn=cls.collate)

    def loss(self, batch: Any) -> Tensor:
        if not batch["mask"].any():
            raise ValueError("No windows available")
        losses = F.cross_entropy(self.net(batch["inputs"]), batch["y"], reduction="none")
        return (losses * batch["mask"]).sum() / batch["mask"].sum()  # type: ignore[no-any-return]


class Density(Trait):
    """The logarithm of a density has no lowest value."""

    def __init__(self, lr: float = 1e-2) -> None:
        super().__init__(lr)
        self.place, self.log_scale = nn.Parameter(torch.zeros(8)), nn.Parameter(torch.ones(8))

    def loss(self, batch: Any) -> Tensor:
        distances = ((batch[0] - self.place) / self.log_scale.exp()).square() / 2
        return (distances + self.log_scale + 0.5 * math.log(2 * math.pi)).sum(1).mean()


class CountsWithZeros(Counts):
    """Zeros are a case of their own: what is compared first is which counts are zero, whatever their scale."""

    def loss(self, batch: Any) -> Tensor:
        code = self.mean(self.net(batch.log1p()))
        zero, rates = code[:, :1], F.softplus(self.back(code)) + 1e-3
        missing = torch.logaddexp(F.logsigmoid(zero), F.logsigmoid(-zero) - rates)
        from_zeros = torch.mul((batch < 1e-8).type(torch.float32), missing)
        counted = batch * rates.log() - rates - torch.lgamma(batch + 1) + F.logsigmoid(-zero)
        return -(from_zeros + torch.mul((batch > 1e-8).type(torch.float32), counted)).sum(1).mean()
