"""Each kind of fault, mended in a copy: what changes, and that nothing else does."""

from dataclasses import replace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from forks.blobs import Batch, Lit, blobs
from unstall.forks.examination import examine
from unstall.forks.mended import mend, mend_together, trained, try_findings
from unstall.forks.subject import Subject
from unstall.trials import Score, StepOptions


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


class SigmoidTwice(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.network(batch[0]).sigmoid(), batch[1])


@pytest.mark.slow
def test_faults_in_company_are_mended_together() -> None:
    batches, held_out = blobs()
    far = [[[1e4 + 1e3 * x, y] for x, y in part] for part in (batches, held_out)]
    subject = Subject(SigmoidTwice(1e-4), *far)
    (finding,) = [each for each in examine(subject).findings if each.fault.mend == "output"]
    task = examine(subject).task
    assert task is not None
    before = Score(1.0, 0.25)
    alone = mend("output", subject, task)
    assert alone is not None
    _, by_itself = max(trained(subject, alone, task), key=lambda pair: pair[1].accuracy or 0.0)
    assert (by_itself.accuracy or 0.0) < 0.6, "its inputs stand in the way"
    found = try_findings(subject, [finding], task, before)
    assert found is not None
    assert found[1].change.startswith("the last layer's output with cross_entropy, inputs standardised")
    assert (found[1].after.accuracy or 0.0) > 0.9
    together = mend_together(("output", "inputs", "optimizer"), subject, task)
    assert together is not None
    assert isinstance(together.module.configure_optimizers(), torch.optim.Adam)


def test_what_cannot_be_mended_from_here(subject: Subject) -> None:
    assert mend("", subject, None) is None
    assert mend("output", subject, None) is None
    assert isinstance(subject.module, pl.LightningModule)
