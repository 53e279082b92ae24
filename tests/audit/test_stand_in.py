"""The copy that makes the step."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, Lit, X
from unstall.audit.stand_in import StandIn, compared_in


def test_it_writes_to_no_logger_and_answers_as_the_trainer_does() -> None:
    written: list[Any] = []

    class Writing(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            assert self.trainer.max_epochs == 7
            self.logger.experiment.add_scalar("x", 1.0, 0)  # type: ignore[union-attr]
            return super().training_step(batch, batch_idx)

    experiment = SimpleNamespace(add_scalar=lambda *words: written.append(words))
    logger = SimpleNamespace(experiment=experiment)
    trainer = SimpleNamespace(max_epochs=7, logger=logger, lr_scheduler_configs=[])
    module = Writing(3, F.cross_entropy)
    recording, loss = StandIn(module, cast(pl.Trainer, trainer)).step([X, LABELS])
    assert written == []
    assert loss.requires_grad
    assert "cross_entropy" in [call.name for call in recording.calls]


def test_evaluation_draws_the_same_numbers_each_time() -> None:
    stand_in = StandIn(Lit(3, F.cross_entropy), None)
    draws = []
    for _ in range(2):
        with stand_in.evaluating():
            draws.append(torch.rand(3))
    assert torch.equal(*draws)
    assert not stand_in.module.training


def test_a_step_that_returns_no_loss_is_not_observed() -> None:
    with pytest.raises(TypeError):
        StandIn(Lit(3, lambda *_: None), None).step([X, LABELS])  # type: ignore[arg-type,return-value]


def test_what_a_module_compares_in_its_own_mode() -> None:
    module = Lit(3, F.cross_entropy).eval()
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    found = compared_in(module, [X, LABELS])
    assert found is not None
    assert found.loss == "cross_entropy"


def acting(act: Callable[[Any, Any], Any]) -> Lit:
    """A module whose step does something before it returns its loss."""

    class Acting(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            act(self, batch)
            return F.cross_entropy(self.net(batch[0]), batch[1])

    return Acting(3, F.cross_entropy)


def test_optimizers_and_schedules_show_their_settings_and_cannot_be_moved() -> None:
    seen: list[float] = []

    def act(module: Any, batch: Any) -> None:
        optimizer, schedule = module.optimizers(), module.lr_schedulers()
        seen.append(optimizer.param_groups[0]["lr"])
        for each in (optimizer, optimizer.optimizer, module.trainer.optimizers[0]):
            each.param_groups[0]["lr"] *= 2
            each.zero_grad()
            each.step()
        schedule.step()
        module.toggle_optimizer(optimizer)
        module.untoggle_optimizer(optimizer)

    module = acting(act)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.25)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    F.cross_entropy(module.net(X), LABELS).backward()  # gradients that a step would use
    weights = [weight.clone() for weight in module.parameters()]
    trainer = SimpleNamespace(lr_scheduler_configs=[SimpleNamespace(scheduler=schedule)], optimizers=[optimizer])
    StandIn(module, cast(pl.Trainer, trainer), [optimizer]).step([X, LABELS])
    assert seen == [0.25]
    assert (optimizer.param_groups[0]["lr"], schedule.last_epoch, len(optimizer.state)) == (0.25, 0, 0)
    assert all(before.equal(weight) for before, weight in zip(weights, module.parameters(), strict=True))
    assert all(weight.grad is not None for weight in module.parameters())


def test_it_is_heard_by_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    def act(module: Any, batch: Any) -> None:
        print("a line")
        module.print("another")
        module.log_dict({"a": 1.0})
        nn.functional.mse_loss(torch.ones(2, 1), torch.ones(2))  # torch warns of these shapes

    StandIn(acting(act)).step([X, LABELS])
    assert capsys.readouterr() == ("", "")


def test_manual_optimization_leaves_the_sum_of_its_losses() -> None:
    class Manual(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer: Any = self.optimizers()
            for sign in (1.0, -0.25):
                optimizer.zero_grad()
                self.manual_backward(sign * F.cross_entropy(self.net(batch[0]), batch[1]))
                optimizer.step()

    module = Manual(3, F.cross_entropy)
    module.automatic_optimization = False
    optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
    _, loss = StandIn(module, None, [optimizer]).step([X, LABELS])
    assert loss.item() == pytest.approx(0.75 * F.cross_entropy(module.net(X), LABELS).item())


def test_a_step_is_called_as_lightning_calls_it() -> None:
    class Short(Lit):
        def training_step(self, batch: Any) -> Tensor:  # type: ignore[override]
            return F.cross_entropy(self.net(batch[0]), batch[1])

    class Long(Lit):
        def training_step(self, batch: Any, *more: Any, **named: Any) -> dict[str, Any]:  # type: ignore[override]
            return {"loss": F.cross_entropy(self.net(batch[0]), batch[1]), "seen": named}

    assert StandIn(Short(3, F.cross_entropy)).step([X, LABELS])[1].requires_grad
    assert StandIn(Long(3, F.cross_entropy)).step([X, LABELS])[1].requires_grad


def test_modes_are_kept_unless_all_is_in_evaluation() -> None:
    module = Lit(3, F.cross_entropy)
    module.net[0].eval()
    assert [part.training for part in StandIn(module).module.net] == [False, True, True]
    assert StandIn(module.eval()).module.net.training


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_part_that_cannot_be_copied_is_refused() -> None:
    module = Lit(3, F.cross_entropy)
    module.net = torch.jit.script(module.net)
    with pytest.raises(TypeError, match="cannot be copied"):
        StandIn(module)
