"""What the batches show one after another, and the settings step by step, before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from forks.blobs import Lit, blobs
from unstall.forks.course import course_of
from unstall.forks.plan import fork
from unstall.forks.subject import Subject


class Falling(Lit):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=self.rate, weight_decay=0.1)
        return [optimizer], [
            {"scheduler": torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step), "interval": "step"}
        ]


def test_the_rates_of_all_steps_and_the_labels_of_all_batches() -> None:
    batches, held_out = blobs()
    subject = Subject(Falling(0.4), batches, held_out, horizon=4)
    seen = subject.observation
    assert seen is not None
    course = course_of(subject, seen, batches)
    assert course.rate == 0.4
    assert course.last_rate == pytest.approx(0.4 * 0.5**3)
    assert course.rate_share == pytest.approx((1 + 0.5 + 0.25 + 0.125) / 4)
    assert course.decay == 0.1
    labels = torch.cat([y for _, y in batches])
    assert course.commonest == pytest.approx(float(labels.bincount().max()) / len(labels))
    assert course.not_finite == 0


def test_numbers_that_are_not_finite_are_counted() -> None:
    batches, held_out = blobs()
    batches[3] = (batches[3][0].clone(), batches[3][1])
    batches[3][0][:2, 0] = float("nan")
    subject = Subject(Lit(0.1), batches, held_out)
    assert subject.observation is not None
    assert course_of(subject, subject.observation, batches).not_finite == 2


@pytest.mark.parametrize(("change", "apart"), [(lambda x: x, False), (lambda x: 3 * x, True), (lambda x: x + 4, True)])
def test_held_out_samples_that_are_prepared_otherwise(change: Any, apart: bool) -> None:
    batches, held_out = blobs()
    report = fork(Lit(0.1), batches, [(change(x), y) for x, y in held_out])
    found = {finding.fault for finding in report.findings}
    assert ("held-out inputs unlike the training inputs" in found) == apart


def test_what_is_only_said_if_the_run_is_poor_on_them() -> None:
    batches, held_out = blobs()
    report = fork(Lit(0.1), batches, [(0.01 * x - 2, y) for x, y in held_out])
    assert report.verdict.cause == "held-out inputs unlike the training inputs"
    assert "0.01" in report.verdict.sentence
