"""To the copy it looks like `Trainer.fit`: what it sees is compared with what it sees in one."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.trials.lane import in_fit, training_step
from unstall.trials.rehearsal import rehearse
from unstall.trials.variants import State, StepOptions, Variant

CPU = torch.device("cpu")
SAMPLES = TensorDataset(torch.randn(48, 4, generator=torch.Generator().manual_seed(0)), torch.arange(48) % 2)


class Witness(pl.LightningModule):
    """Notes every call of its own, and where its trainer says that it is."""

    seen: list[tuple[Any, ...]]
    """Of all copies: of the class."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Linear(4, 2)

    def note(self, *what: Any) -> None:
        if self.trainer.lightning_module is not self:
            raise AssertionError("the trainer has another module")
        stage = self.trainer.state
        where = self.current_epoch, self.global_step, self.trainer.fit_loop.batch_idx, self.trainer.is_last_batch
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        type(self).seen.append((*what, *where, stage.fn, stage.stage, self.trainer.training, rate))

    def on_train_start(self) -> None:
        self.note("train starts")

    def on_train_epoch_start(self) -> None:
        type(self).seen.append(("epoch starts", self.current_epoch, self.global_step))

    def on_train_epoch_end(self) -> None:
        self.note("epoch ends")

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.note("batch starts", batch_idx)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        self.note("step", batch_idx)
        return {"loss": F.cross_entropy(self.network(batch[0]), batch[1]), "size": len(batch[0])}

    def on_before_zero_grad(self, optimizer: Any) -> None:
        self.note("zero")

    def on_before_backward(self, loss: Tensor) -> None:
        self.note("backward")

    def on_after_backward(self) -> None:
        self.note("after backward")

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        self.note("optimizer")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.note("batch ends", batch_idx, round(float(outputs["loss"]), 5), outputs["size"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_module_sees_what_it_sees_in_a_fit(accumulate: int, tmp_path: Path) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=2,
        accumulate_grad_batches=accumulate,
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    Witness.seen = []
    trainer.fit(Witness(), DataLoader(SAMPLES, 12))
    expected, Witness.seen = Witness.seen, []
    rehearsal = rehearse(Witness(), DataLoader(SAMPLES, 12), trainer, str(tmp_path))
    batches, module = list(DataLoader(SAMPLES, 12)) * 2, rehearsal.module
    with in_fit(module, Variant(), rehearsal.options, CPU, rehearsal.trainer) as lane:
        for i in range(0, len(batches), accumulate):
            lane.step(batches[i : i + accumulate])
    assert expected[:-1] == Witness.seen  # the last epoch may yet go on
    assert expected[-1][0] == "epoch ends"
    assert not rehearsal.trainer.training
    assert (rehearsal.trainer.global_step, rehearsal.trainer.current_epoch) == (0, 0)
    Witness.seen = []
    start = State(module.state_dict(), steps=6 // accumulate)
    with in_fit(module, Variant(0.3, start=start), rehearsal.options, CPU, rehearsal.trainer) as lane:
        lane.step(batches[:accumulate])
    assert Witness.seen[1] == ("epoch starts", 1, 6 // accumulate)
    assert Witness.seen[2][:4] == ("batch starts", 2, 1, 6 // accumulate)
    assert Witness.seen[2][-1] == 0.3


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_an_epoch_ends_without_a_file_and_in_spite_of_what_its_end_raises(tmp_path: Path) -> None:
    class Reports(Witness):
        ended = 0

        def on_train_epoch_end(self) -> None:
            type(self).ended += 1
            self.trainer.save_checkpoint(tmp_path / "trial.ckpt")
            raise KeyError("val_loss")

    rehearsal = rehearse(Reports(), DataLoader(SAMPLES, 24), None, str(tmp_path))
    batches = list(DataLoader(SAMPLES, 24)) * 2
    with in_fit(rehearsal.module, Variant(), rehearsal.options, CPU, rehearsal.trainer) as lane:
        for batch in batches:
            lane.step([batch])
    assert Reports.ended == 1
    assert not (tmp_path / "trial.ckpt").exists()
    assert "save_checkpoint" not in vars(rehearsal.trainer)


def test_a_step_gets_what_it_asks_for() -> None:
    class Lit(pl.LightningModule):
        def training_step(self, batch: Any) -> Any:  # type: ignore[override]
            return batch

    class Numbered(Lit):
        def training_step(self, batch: Any, number: int) -> Any:  # type: ignore[override]
            return batch, number

    class Anything(Lit):
        def training_step(self, *given: Any) -> Any:  # type: ignore[override]
            return given

    class Reading(Lit):
        def training_step(self, dataloader_iter: Any) -> Any:  # type: ignore[override]
            return next(dataloader_iter)

    given = [training_step(module, "batch", 3) for module in (Lit(), Numbered(), Anything(), Reading())]
    assert given == ["batch", ("batch", 3), ("batch", 3), ("batch", 3, 0)]


class Lit(pl.LightningModule):
    def __init__(self, kind: str = "") -> None:
        super().__init__()
        self.network, self.kind = nn.Linear(4, 2), kind

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        if self.kind == "skips" and batch_idx % 2 == 1:
            return None
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("seen", float(self.training))
        self.train()
        return loss.detach() if self.kind == "detached" else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_batches_that_are_skipped_make_no_step() -> None:
    batches = list(DataLoader(SAMPLES, 12))
    with in_fit(Lit("skips"), Variant(), StepOptions(), CPU) as lane:
        losses, weights = [], []
        for batch in batches:
            losses.append(lane.step([batch]))
            weights.append(lane.module.network.weight.detach().clone())  # type: ignore[union-attr,operator]
        assert [loss is None for loss in losses] == [False, True, False, True]
        assert torch.equal(weights[0], weights[1])
        assert not torch.equal(weights[1], weights[2])
        assert lane.steps == 4, "a fit counts them"
        assert len(lane.evaluate(batches)) == 2


def test_each_held_out_batch_is_evaluated_in_eval_mode() -> None:
    with in_fit(Lit(), Variant(), StepOptions(), CPU) as lane:
        lane.evaluate(list(DataLoader(SAMPLES, 12)))
        assert lane.log.metrics == {"seen": 0.0}, "although the step ends in training mode"


def test_a_loss_without_gradient_is_refused() -> None:
    with in_fit(Lit("detached"), Variant(), StepOptions(), CPU) as lane:
        assert len(lane.evaluate(list(DataLoader(SAMPLES, 12)))) == 4
        with pytest.raises(UsageError, match="model=Lit: the loss requires no gradient"):
            lane.step(list(DataLoader(SAMPLES, 48)))
