"""A race is K plain loops, and it leaves no trace."""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn
from torchmetrics import Metric

from unstall.errors import UsageError
from unstall.trials.lane import in_fit
from unstall.trials.rehearsal import throwaway_trainer
from unstall.trials.runner import race
from unstall.trials.variants import State, StepOptions, Variant


def make_optimizer(kind: str, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if kind == "adam":
        return torch.optim.Adam(groups)
    if kind == "sgd":
        return torch.optim.SGD(groups, momentum=0.9)
    return torch.optim.RMSprop(groups, weight_decay=1e-3)


class Lit(pl.LightningModule):
    """BatchNorm, dropout, two parameter groups, a schedule per step: whatever a race could get wrong."""

    def __init__(self, optimizer: str = "adam", schedule: str | None = "step") -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        self.optimizer, self.schedule = optimizer, schedule
        self.calls = 0

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.calls += 1
        logits = self.network(batch[0])
        self.log("train/accuracy", (logits.argmax(1) == batch[1]).float().mean())
        return F.cross_entropy(logits, batch[1])

    def configure_optimizers(self) -> Any:
        groups = [
            {"params": self.network[0].parameters(), "lr": 0.02},
            {"params": [p for layer in self.network[1:] for p in layer.parameters()], "lr": 0.002},
        ]
        optimizer = make_optimizer(self.optimizer, groups)
        if self.schedule is None:
            return optimizer
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 0.1 + step / 5))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": self.schedule}}


def make_batches(count: int, size: int = 8, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count * size, 6, generator=generator)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0).long()
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def plain_loop(
    module: Lit, rate: float, batches: list[tuple[Tensor, Tensor]], held_out: list[tuple[Tensor, Tensor]]
) -> tuple[list[float], list[float]]:
    """The reference: no Lightning, the warm-up and the ratio of the groups written out."""
    network = copy.deepcopy(module.network).train()
    groups = [
        {"params": network[0].parameters(), "lr": rate},
        {"params": [p for layer in network[1:] for p in layer.parameters()], "lr": rate / 10},
    ]
    optimizer = make_optimizer(module.optimizer, groups)
    losses = []
    with torch.random.fork_rng(devices=[]):
        for step, (inputs, targets) in enumerate(batches):
            warmup = min(1.0, 0.1 + step / 5) if module.schedule == "step" else 1.0
            optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = rate * warmup, rate / 10 * warmup
            loss = F.cross_entropy(network(inputs), targets)
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    network.eval()
    with torch.no_grad():
        return losses, [F.cross_entropy(network(inputs), targets).item() for inputs, targets in held_out]


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("schedule", ["step", None])
def test_equals_plain_loops(optimizer: str, schedule: str | None) -> None:
    torch.manual_seed(0)
    module = Lit(optimizer, schedule)
    batches, held_out = make_batches(12), make_batches(3, seed=2)
    rates = [1e-3, 1e-2, 1e-1]
    outcomes = race(module, [Variant(rate) for rate in rates], batches, held_out)
    for rate, outcome in zip(rates, outcomes, strict=True):
        losses, held_out_losses = plain_loop(module, rate, batches, held_out)
        assert outcome.losses == pytest.approx(losses, rel=1e-5)
        assert outcome.held_out_losses == pytest.approx(held_out_losses, rel=1e-5)
        assert outcome.finite


def test_without_a_rate_the_configured_one_is_used() -> None:
    module = Lit()
    configured, explicit = race(module, [Variant(), Variant(0.02)], make_batches(5))
    assert configured.losses == explicit.losses


def test_leaves_no_trace() -> None:
    module = Lit()
    module.network[4].weight.requires_grad_(False)
    module.network(make_batches(1)[0][0]).sum().backward()
    module.network.eval()
    before = copy.deepcopy(module.state_dict())
    gradients = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    modes = [part.training for part in module.modules()]
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]

    race(module, [Variant(0.1), Variant(merge=2)], make_batches(6), make_batches(2))

    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(p.grad, gradients[n]) for n, p in module.named_parameters() if p.grad is not None)
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.network[4].parameters()] == [False, True]
    assert module.calls == 0
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_variant_that_diverges_drops_out_and_the_others_go_on() -> None:
    module = Lit("sgd", schedule=None)
    module.network[1] = nn.Identity()  # BatchNorm would hold it together
    wild, tame = race(module, [Variant(1e30), Variant(1e-3)], make_batches(10), make_batches(2))
    assert not wild.finite
    assert 1 <= len(wild.losses) < 10
    assert wild.held_out_loss == float("inf")
    assert tame.finite
    assert len(tame.losses) == 10


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_two_legs_are_one(optimizer: str) -> None:
    module = Lit(optimizer)
    module.network[3] = nn.Identity()  # the legs of a race draw the same random numbers
    batches, held_out = make_batches(10), make_batches(2, seed=3)
    whole = race(module, [Variant(0.05)], batches, held_out)[0]
    first = race(module, [Variant(0.05)], batches[:4], keep_state=True)[0]
    variants = [Variant(0.05, start=first.state), Variant(start=first.state)]
    for second in race(module, variants, batches[4:], held_out):  # twice: the state survives its use
        assert first.losses + second.losses == pytest.approx(whole.losses, rel=1e-6)
        assert second.held_out_loss == pytest.approx(whole.held_out_loss, rel=1e-6)


def test_weights_alone_restart_the_optimizer() -> None:
    module, other = Lit(schedule=None), Lit(schedule=None)
    batches = make_batches(4)
    weights = State(other.state_dict())
    assert race(module, [Variant(start=weights)], batches)[0].losses == race(other, [Variant()], batches)[0].losses


def test_merged_batches_match_in_samples() -> None:
    module = Lit(schedule=None)
    small, large = make_batches(8, size=4), make_batches(4, size=8)
    merged = race(module, [Variant(0.01, merge=2)], small)[0]
    assert merged.losses == pytest.approx(race(module, [Variant(0.01)], large)[0].losses)
    assert len(merged.losses) == 4


class WarmsUp(Lit):
    """Makes the step itself, at a rate of its own, and notes what a hook is given."""

    def __init__(self) -> None:
        super().__init__("sgd", schedule=None)
        self.seen: list[float] = []

    def on_before_backward(self, loss: Tensor) -> None:
        self.seen.append(float(loss.detach()))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        for group in optimizer.optimizer.param_groups:
            group["lr"] = 0.02 * min(1.0, (batch_idx + 1) / 8)
        optimizer.step(closure=optimizer_closure)


class Losses(pl.Callback):
    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(float(outputs["loss"]))


def half_precision() -> dict[str, Any]:
    """Gradients in float16, scaled so far up that those of the first steps overflow."""
    return {"plugins": MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**22))}


PRECISIONS = {"bf16-mixed": lambda: {"precision": "bf16-mixed"}, "16-mixed": half_precision}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")  # Lightning's
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")  # of a step that the scaler left out
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [lambda: Lit("sgd"), WarmsUp], ids=["plain", "steps itself"])
def test_options_do_what_the_trainer_does(make: Any, precision: str) -> None:
    """Accumulation, clipping and mixed precision give the losses and the weights that `Trainer.fit` gives."""
    torch.manual_seed(0)
    module, seen = make(), Losses()
    module.network[3] = nn.Identity()
    batches = make_batches(16)
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        accumulate_grad_batches=2,
        gradient_clip_val=0.1,
        **PRECISIONS[precision](),
        callbacks=[seen],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    options = StepOptions.of(trainer)
    ours = race(module, [Variant()], batches, options=options, keep_state=True)[0]
    fitted = copy.deepcopy(module)
    trainer.fit(fitted, torch.utils.data.DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    assert ours.state is not None
    assert ours.finite
    assert ours.losses == pytest.approx([sum(pair) for pair in zip(seen.values[::2], seen.values[1::2], strict=True)])
    for name, weights in fitted.state_dict().items():
        assert torch.allclose(ours.state.weights[name].float(), weights.float(), rtol=1e-4, atol=1e-6), name
    assert ours.state.scaler == trainer.precision_plugin.state_dict()
    if precision == "16-mixed":
        assert 0 < ours.state.scaler["scale"] < 2.0**22, "the first steps were left out"
    plain = race(module, [Variant()], batches, options=StepOptions(accumulate_grad_batches=2))[0]
    assert plain.losses != ours.losses


def test_a_gradient_scaler_goes_on_where_it_was() -> None:
    options = StepOptions(precision="16-mixed", scaler=half_precision()["plugins"].state_dict())
    module, batches = Lit("sgd", schedule=None), make_batches(10)
    module.network[3] = nn.Identity()
    whole = race(module, [Variant()], batches, options=options)[0]
    first = race(module, [Variant()], batches[:5], options=options, keep_state=True)[0]
    second = race(module, [Variant(start=first.state)], batches[5:], options=options)[0]
    assert [*first.losses, *second.losses] == pytest.approx(whole.losses)


def test_what_a_hook_is_given_before_the_backward_pass_is_what_a_fit_gives() -> None:
    module = WarmsUp()
    module.network[3] = nn.Identity()
    options = StepOptions(
        precision="16-mixed", accumulate_grad_batches=2, scaler=half_precision()["plugins"].state_dict()
    )
    with in_fit(module, Variant(), options, torch.device("cpu")) as lane:
        loss = lane.step(make_batches(2))
        given = cast(WarmsUp, lane.module).seen
    assert loss is not None
    assert sum(given) == pytest.approx(float(loss) * 2.0**22, rel=1e-3)


def test_schedules_that_count_epochs() -> None:
    class Halving(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.0)]

    module = Halving()
    module.network[3] = nn.Identity()
    batch = make_batches(1)[0]
    stays, stops = (
        race(module, [Variant()], [batch] * 6, options=StepOptions(steps_per_epoch=steps))[0].losses
        for steps in (None, 2)
    )
    assert stays[2] == stops[2]
    assert stays[3] < stays[2]
    assert stops[2] == stops[3] == stops[5]


def test_what_the_step_logs_is_the_held_out_metric() -> None:
    module = Lit(schedule=None)
    held_out = make_batches(2, seed=5)
    outcome = race(module, [Variant(1e-12)], make_batches(1), held_out)[0]
    module.eval()
    with torch.no_grad():
        inputs, targets = torch.cat([held_out[0][0], held_out[1][0]]), torch.cat([held_out[0][1], held_out[1][1]])
        # BatchNorm's averages moved in the one step that was made
        module.train()
        module.network(make_batches(1)[0][0])
        module.eval()
        accuracy = (module.network(inputs).argmax(1) == targets).float().mean().item()
    assert outcome.held_out_metrics["train/accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_a_logged_metric_is_read_over_the_held_out_samples_alone() -> None:
    class Counting(Metric):
        total: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")

        def update(self, count: int) -> None:
            self.total += count

        def compute(self) -> Tensor:
            return self.total

    class Counted(Lit):
        def __init__(self) -> None:
            super().__init__(schedule=None)
            self.seen = Counting()

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            self.seen.update(len(batch[0]))  # as one does with Lightning, which resets it when an epoch ends
            self.log("seen", self.seen)
            return super().training_step(batch, batch_idx)

    batches = make_batches(5)
    module = Counted()
    outcome = race(module, [Variant()], batches[:3], batches[3:])[0]
    assert outcome.held_out_metrics["seen"] == len(batches[3][0]) + len(batches[4][0])
    assert not module.seen.update_called


def test_refusals() -> None:
    module = Lit()
    module.automatic_optimization = False
    with pytest.raises(UsageError, match="manual optimization"):
        race(module, [Variant()], make_batches(1))

    class Two(Lit):
        def configure_optimizers(self) -> Any:
            return [torch.optim.SGD(self.parameters(), lr=0.1), torch.optim.SGD(self.parameters(), lr=0.1)]

    with pytest.raises(UsageError, match="2 optimizers"):
        race(Two(), [Variant()], make_batches(1))

    class Broken(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return super().training_step(batch, batch_idx).detach() if self.schedule else None

    with pytest.raises(UsageError, match="model=Broken: the loss requires no gradient"):
        race(Broken(), [Variant()], make_batches(1))
    with pytest.raises(UsageError, match="model=Broken: training_step returned None"):
        race(Broken(schedule=None), [Variant()], make_batches(2))
    assert race(Broken(schedule=None), [Variant()], make_batches(1))[0].losses == [], "one may be skipped"


def test_what_a_module_refuses_at_bad_numbers_has_diverged_and_what_it_refuses_at_first_is_its_own_error(
    tmp_path: Path,
) -> None:
    class Refusing(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            if not all(weight.isfinite().all() for weight in self.parameters()) or batch[0].isnan().any():
                raise ValueError("bad numbers")
            return super().training_step(batch, batch_idx)

    module = Refusing("sgd", schedule=None)
    module.network[1] = nn.Identity()
    batches = make_batches(10)
    wild, tame = race(module, [Variant(1e30), Variant(1e-3)], batches, make_batches(2))
    assert not wild.finite
    assert 1 <= len(wild.losses) < 10
    assert wild.held_out_loss == float("inf")
    assert len(tame.losses) == 10
    trainer = throwaway_trainer(StepOptions(), torch.device("cpu"), str(tmp_path))
    with_trainer = race(module, [Variant(1e30)], batches, make_batches(2), trainer=trainer)[0]
    assert with_trainer.losses == wild.losses, "the trainer survives the second look"
    broken = [*batches[:5], (batches[5][0] * float("nan"), batches[5][1])]
    for trainer in (None, pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)):
        with pytest.raises(ValueError, match="bad numbers"):
            race(module, [Variant(1e-3)], broken, trainer=trainer)
    with pytest.raises(ValueError, match="bad numbers"):
        race(module, [Variant(1e-3)], batches, broken[-1:])


def test_a_step_that_the_module_skips_keeps_the_loss_before_it() -> None:
    class Skipping(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return None if batch_idx in (0, 3) else super().training_step(batch, batch_idx)

    losses = race(Skipping(schedule=None), [Variant()], make_batches(5))[0].losses
    assert losses[0] == losses[1]
    assert losses[3] == losses[2]
    assert len({*losses}) == 3


def test_batches_that_cannot_be_one_are_merged_in_their_gradients() -> None:
    class Means(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.network(batch["rows"].sum(1)), batch["labels"])

    module = Means("sgd", schedule=None)
    module.network[1] = module.network[3] = nn.Identity()  # they would see which samples come together
    plain = [{"rows": inputs[:, None], "labels": labels} for inputs, labels in make_batches(8, size=4)]
    padded = [
        {"rows": F.pad(batch["rows"], (0, 0, 0, 1 + i % 3)), "labels": batch["labels"]} for i, batch in enumerate(plain)
    ]
    one, several = (race(module, [Variant(0.05, merge=4)], batches)[0].losses for batches in (plain, padded))
    assert len(one) == 2
    assert several == pytest.approx(one, rel=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a race uses one process")
def test_processes_of_their_own_change_no_outcome() -> None:
    module, batches = Lit(), make_batches(12)
    variants = [Variant(learning_rate=rate) for rate in (1e-3, 1e-2, 1e30)]
    before = torch.get_num_threads()
    both = []
    for threads in (1, 2):
        torch.manual_seed(3)  # dropout
        torch.set_num_threads(threads)
        both.append(race(module, variants, batches[:10], batches[10:], keep_state=True))
    torch.set_num_threads(before)
    for alone, beside in zip(*both, strict=True):
        assert beside.losses == pytest.approx(alone.losses)
        assert beside.held_out_losses == pytest.approx(alone.held_out_losses)
        assert (beside.finite, beside.variant, beside.held_out_metrics) == (
            alone.finite,
            alone.variant,
            pytest.approx(alone.held_out_metrics),
        )
        if alone.state is not None and beside.state is not None:
            for name, weight in alone.state.weights.items():
                torch.testing.assert_close(beside.state.weights[name], weight)
        assert (alone.state is None) == (beside.state is None)
    assert module.calls == 0
