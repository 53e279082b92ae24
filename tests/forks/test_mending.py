"""Mended copies are trained and measured beside the run; faults in company are mended together."""

import pytest
import torch
from torch import nn

from forks.blobs import Batch, Lit, blobs
from unstall.causes import Finding
from unstall.forks.examination import examine
from unstall.forks.mended import mend, mend_together
from unstall.forks.mending import most_promising, trained, try_findings
from unstall.forks.subject import Subject
from unstall.forks.targets import Task
from unstall.trials import Score


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


def of_output(subject: Subject) -> tuple[Finding, Task]:
    examined = examine(subject)
    (finding,) = [each for each in examined.findings if each.fault.mend == "output"]
    assert examined.task is not None
    return finding, examined.task


def test_inputs_that_show_are_mended_along_with_the_output_although_that_alone_goes_far() -> None:
    subject = Subject(SigmoidTwice(1e-4, "Adam"), *blobs(128))
    finding, task = of_output(subject)
    before = Score(1.0, 0.25)
    alone = try_findings(subject, [finding], task, before)
    assert alone is not None
    assert "inputs" not in alone[1].change
    together = try_findings(subject, [finding], task, before, shown={"inputs", "output"})
    assert together is not None
    (tried,) = [fork for fork in subject.forks if "inputs standardised" in fork.change]
    no_harm = (tried.after.accuracy or 0.0) >= (alone[1].after.accuracy or 0.0)
    assert together[1].change == (tried.change if no_harm else alone[1].change)


def test_a_short_run_is_mended_and_gone_on_with() -> None:
    batches, held_out = blobs(128)
    subject = Subject(SigmoidTwice(1e-4), batches[:4], held_out, horizon=4)
    finding, task = of_output(subject)
    found = try_findings(subject, [finding], task, Score(1.0, 0.1))
    assert found is not None
    assert "80 times the steps" in found[1].change
    assert found[1].mended is not None
    assert (found[1].mended.passes, found[1].overlay) == (80, None)
    assert (found[1].after.accuracy or 0.0) > 0.9
    assert most_promising(subject, finding.fault) is found[1]


def test_several_kinds_in_one_copy() -> None:
    subject = Subject(SigmoidTwice(1e-4), *blobs(128))
    together = mend_together(("output", "inputs", "optimizer"), subject, of_output(subject)[1])
    assert together is not None
    assert isinstance(together.module.configure_optimizers(), torch.optim.Adam)
