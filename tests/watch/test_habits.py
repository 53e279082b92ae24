"""A fit that is watched is the same fit, to the last bit: whatever its module makes of its first batch."""

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from unstall.watch.callback import Diagnosis

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated"),
    pytest.mark.filterwarnings("ignore:.*training_step.* returned `None`"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),
]

RANDOM = torch.Generator().manual_seed(0)
BATCHES = [(x, (x[:, 0] > 0).long()) for x in torch.randn(6, 16, 8, generator=RANDOM)]


class Base(pl.LightningModule):
    """A classifier with everything in it that a step can move."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self.net(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class WithoutNumber(Base):
    def training_step(self, batch: Any) -> Any:  # type: ignore[override]
        return self.loss(batch)


class WithAnything(Base):
    def training_step(self, batch: Any, *more: Any, **named: Any) -> Any:  # type: ignore[override]
        return self.loss(batch)


class SkipsTheFirst(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) if batch_idx else None


class StateOfHooks(Base):
    def on_train_start(self) -> None:
        self.weight = torch.tensor([1.0, 2.0])

    def on_train_epoch_start(self) -> None:
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.losses.append(self.loss(batch).detach())
        return F.cross_entropy(self.net(batch[0]), batch[1], self.weight)


class Metrics(Base):
    def __init__(self) -> None:
        super().__init__()
        self.mean = MeanMetric()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.mean.update(loss.detach())
        self.log("mean", self.mean, on_epoch=True)
        self.log_dict({"loss": loss, "one": 1}, prog_bar=True)
        self.logger.experiment.write(loss.item())  # type: ignore[union-attr]
        self.logger.log_metrics({"by hand": loss.item()}, step=0)  # type: ignore[union-attr]
        return {"loss": loss, "outputs": self.net(batch[0])}


class OwnWarmUp(Base):
    """Sets the rate in its step, and has it multiplied with each."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        for optimizer in (self.optimizers(), self.trainer.optimizers[0]):
            for group in optimizer.param_groups:  # type: ignore[union-attr]
                group["lr"] *= 1.1
        return self.loss(batch)


class OwnSchedule(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.lr_schedulers().step()  # type: ignore[union-attr]
        self.log("rate", self.lr_schedulers().get_last_lr()[0])  # type: ignore[union-attr]
        return self.loss(batch)

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


class AsksItsTrainer(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        trainer = self.trainer
        assert trainer.training
        share = (batch_idx + 1) / trainer.num_training_batches / (trainer.max_epochs or 1)
        trainer.should_stop = trainer.global_step > 100
        return self.loss(batch) * min(1.0, share + trainer.estimated_stepping_batches / 100)


class Teacher(Base):
    def __init__(self) -> None:
        super().__init__()
        self.teacher = copy.deepcopy(self.net).requires_grad_(False).eval()

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.loss(batch) + F.mse_loss(self.net(batch[0]), self.teacher(batch[0]))

    def on_train_batch_end(self, *_: Any) -> None:
        for mine, own in zip(self.teacher.parameters(), self.net.parameters(), strict=True):
            mine.data.lerp_(own.data, 0.1)


class ChangesItsBatch(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        batch[0].mul_(2)
        return F.cross_entropy(self.net(batch.pop(0)), batch.pop())


class Draws(Base):
    """Random numbers of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.numpy = torch.Generator().manual_seed(3), np.random.default_rng(3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        noise = torch.randn(16, 8, generator=self.generator) * self.numpy.random() + np.random.rand() + random.random()
        return self.loss((batch[0] + 0.1 * noise, batch[1]))


class Speaks(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        print("a line")
        self.print("another")
        return self.loss(batch)


class LeavesTrainingMode(Base):
    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.eval()
        with torch.inference_mode():
            self.net(batch[0])
        self.train()
        return self.loss(batch)


class KeepsItsLoss(Base):
    """Holds a tensor with a graph, which cannot be copied."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.last = self.loss(batch)
        return self.last


class Closure(Base):
    def configure_optimizers(self) -> Any:
        return torch.optim.LBFGS(self.parameters(), lr=0.1, max_iter=3)


class Manual(Base):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Scripted(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.jit.script(self.net)


class OldWeightNorm(Base):
    def __init__(self) -> None:
        super().__init__()
        torch.nn.utils.weight_norm(self.net[0])


class PartInEvaluation(Base):
    def __init__(self) -> None:
        super().__init__()
        self.net[:2].requires_grad_(False).eval()


class Experiment:
    def __init__(self) -> None:
        self.written: list[float] = []

    def write(self, number: float) -> None:
        self.written.append(number)


class Notes(Logger):
    """A logger that keeps all that a module gives it."""

    name, version = "notes", 0

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.experiment, self.metrics = folder, Experiment(), list[tuple[dict[str, float], int | None]]()

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        own = {name: value for name, value in metrics.items() if not name.startswith(("verdict/", "at_a_glance/"))}
        if own:
            self.metrics.append((own, step))


def fit(kind: type[Base], folder: Path, callbacks: list[pl.Callback]) -> dict[str, Any]:
    """What a fit of two epochs leaves behind."""
    pl.seed_everything(1, verbose=False)
    module, logger = kind(), Notes(folder)
    trainer = pl.Trainer(
        max_epochs=2,
        callbacks=callbacks,
        logger=logger,
        accelerator="cpu",
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader([[part.clone() for part in batch] for batch in BATCHES], None, shuffle=True))
    return {
        "weights": module.state_dict(),
        "optimizer": trainer.optimizers[0].state_dict(),
        "modes": [part.training for part in module.modules()],
        "metrics": trainer.callback_metrics,
        "logged": logger.metrics,
        "written": logger.experiment.written,
        "random": [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()],  # type: ignore[index]
        "steps": trainer.global_step,
    }


KINDS = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Base)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_it_ends_with_the_same_bits(kind: type[Base], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watched = Diagnosis(every_n_steps=5)
    alone = fit(kind, tmp_path, [])
    said = capsys.readouterr()
    beside = fit(kind, tmp_path, [watched])
    torch.testing.assert_close(beside, alone, rtol=0, atol=0)
    own = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("Diagnosis at step")]
    assert own == said.out.splitlines()
    assert not [finding for finding in watched.audited if finding.fault.certain]
