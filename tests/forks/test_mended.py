"""Each kind of fault, mended in a copy: what changes, and that nothing else does. Nothing is trained."""

from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from forks.blobs import Batch, Lit, blobs
from unstall.forks.examination import examine
from unstall.forks.mended import mend, mend_together, prolonged
from unstall.forks.subject import Subject, screening_steps
from unstall.trials import StepOptions


class Scheduled(Lit):
    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self.network.insert(1, nn.Dropout(0.9))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate, weight_decay=0.5)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.001)]


@pytest.fixture
def subject() -> Subject:
    batches, held_out = blobs()
    return Subject(Scheduled(0.1), batches, held_out, options=StepOptions(gradient_clip_val=1e-3))


@pytest.mark.parametrize(("kind", "decay"), [("schedule", 0.5), ("decay", 1e-4)])
def test_the_optimizer_alone_at_its_configured_rate(kind: str, decay: float, subject: Subject) -> None:
    mended = mend(kind, subject, None)
    assert mended is not None
    (group,) = mended.module.configure_optimizers().param_groups  # type: ignore[union-attr]
    assert (group["lr"], group["weight_decay"]) == (0.1, decay)
    _, (schedule,) = subject.module.configure_optimizers()  # type: ignore[misc]
    assert schedule.get_last_lr() == [1e-4]


def test_inputs_are_standardised_by_column(subject: Subject) -> None:
    mended = mend("inputs", replace(subject, batches=[[100 + 7 * x, y] for x, y in subject.batches]), None)
    assert mended is not None
    inputs = torch.cat([mended.transform([100 + 7 * x, y])[0] for x, y in subject.batches])
    torch.testing.assert_close(inputs.mean(0), torch.zeros(20), atol=0.1, rtol=0)
    torch.testing.assert_close(inputs.std(0), torch.ones(20), atol=0.1, rtol=0)


def test_clipping_and_dropout(subject: Subject) -> None:
    unclipped, little = mend("clip", subject, None), mend("dropout", subject, None)
    assert unclipped is not None
    assert unclipped.options == StepOptions()
    assert little is not None
    assert [part.p for part in little.module.modules() if isinstance(part, nn.Dropout)] == [0.1]
    assert [part.p for part in subject.module.modules() if isinstance(part, nn.Dropout)] == [0.9]


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({}, ()),
        ({"model": {"activation": "identity"}}, ((("network.activation", "activation"), "relu", "model"),)),
        ({"model": {"activation": {"class_path": "torch.nn.Identity"}}}, ()),
    ],
)
def test_activations_between_layers_that_have_none(config: dict[str, Any], settings: object, subject: Subject) -> None:
    linear = replace(subject, module=Lit(0.1, widths=(20, 64, 32, 10), activation=nn.Identity), config=config)
    mended = mend("activation", linear, None)
    assert mended is not None
    assert mended.settings == settings
    after: list[torch.Tensor] = []
    for layer in (layer for layer in mended.module.modules() if isinstance(layer, nn.Linear)):
        layer.register_forward_hook(lambda layer, inputs, output: after.append(output))
    mended.module.network(subject.batches[0][0])
    assert [bool((output >= 0).all()) for output in after] == [True, True, False]
    assert mend("activation", subject, None) is None, "it has activations"


class Autoencoder(Lit):
    def __init__(self) -> None:
        super().__init__(0.1, widths=(20, 4, 20))

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return nn.functional.mse_loss(self.network(batch[0]), batch[0])


def test_inputs_that_the_loss_compares_with_are_not_standardised() -> None:
    subject = Subject(Autoencoder(), *blobs(scale=100.0))
    task = examine(subject).task
    assert task is not None
    assert mend("inputs", subject, task) is None
    assert mend_together(("output", "inputs"), subject, task) is None


def test_a_short_run_is_given_the_steps_of_a_comparison(subject: Subject) -> None:
    assert prolonged(subject) is None, "nobody knows how long it is, or it is longer than what is tried"
    epochs = {"trainer": {"max_epochs": 3}}
    short = replace(subject, batches=subject.batches[:5], horizon=5, config=epochs)
    longer = prolonged(short)
    assert longer is not None
    assert longer.passes == -(-4 * screening_steps(32) // 5)
    assert longer.settings == ((("max_epochs",), 3 * longer.passes, "trainer"),)
    held = mend("held", short, None)
    assert held is not None
    together = prolonged(short, replace(held, rates=(0.3,)))
    assert together is not None
    assert together.module is held.module
    assert together.change == f"an optimizer of all parameters, {longer.passes} times the steps"
    assert (together.rates, together.settings) == ((), ()), "of a change in code there is no setting"
    little = mend("decay", short, None)
    assert little is not None
    assert [names for names, _, _ in prolonged(short, little).settings][1:] == [("max_epochs",)]  # type: ignore[union-attr]


def test_what_cannot_be_mended_from_here(subject: Subject) -> None:
    assert mend("", subject, None) is None
    assert mend("output", subject, None) is None
    assert isinstance(subject.module, pl.LightningModule)
