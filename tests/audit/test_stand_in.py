"""The copy that makes the step."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

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
    trainer = SimpleNamespace(max_epochs=7, logger=SimpleNamespace(experiment=experiment))
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
