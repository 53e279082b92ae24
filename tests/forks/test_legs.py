"""A rate that is gone on with ends where one in a single stretch ends, and nothing is trained or measured twice."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from forks.blobs import Lit, blobs
from unstall.forks.legs import LARGEST, Legs, looks, small
from unstall.forks.subject import Subject
from unstall.trials import Outcome, Variant, race

BATCHES, HELD_OUT = blobs(128)


class Scheduled(Lit):
    """With everything that a state holds: momentum, a schedule, running means, and noise that goes on."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.network.insert(1, nn.BatchNorm1d(64))

    def training_step(self, batch: Sequence[torch.Tensor], batch_idx: int) -> torch.Tensor:
        noise = torch.randn_like(batch[0]) * random.random() * np.random.rand()
        return super().training_step([batch[0] + noise, batch[1]], batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Ran:
    """Races of a module, and a record of them: how many variants, from which step to which."""

    def __init__(self, module: Lit, keep: bool = True) -> None:
        self.module, self.keep, self.record = module, keep, list[tuple[int, int, int]]()

    def __call__(self, variants: Sequence[Variant], first: int, last: int) -> list[Outcome]:
        self.record.append((len(variants), first, last))
        return race(self.module, variants, BATCHES[first:last], HELD_OUT, keep_state=self.keep)


def test_a_rate_that_is_gone_on_with_ends_where_a_single_stretch_ends() -> None:
    ran = Ran(Scheduled())
    legs = Legs(ran)
    legs.at([None, 0.01], 7)
    paused = legs.at([None, 0.01], 20)
    whole = race(Scheduled(), [Variant(), Variant(0.01)], BATCHES[:20], HELD_OUT, keep_state=True)
    assert ran.record == [(2, 0, 7), (2, 7, 20)]
    for one, other in zip(paused, whole, strict=True):
        assert (one.losses, one.held_out_losses) == (other.losses, other.held_out_losses)
        assert one.state is not None
        assert other.state is not None
        assert one.state.steps == other.state.steps == 20
        assert all(torch.equal(value, other.state.weights[name]) for name, value in one.state.weights.items())


def test_nothing_is_trained_twice() -> None:
    ran = Ran(Lit(0.1))
    legs = Legs(ran)
    first = legs.at([0.1, 0.3, 0.1], 5)
    assert first[0] is first[2]
    legs.at([0.3], 9)
    legs.at([0.1, 0.3, 1.0], 9)
    legs.at([0.1, 0.3], 5)
    assert ran.record == [(2, 0, 5), (1, 5, 9), (1, 5, 9), (1, 0, 9)]
    assert legs.trained(9) == [0.3, 0.1, 1.0]


def test_what_has_diverged_is_not_gone_on_with() -> None:
    ran = Ran(Lit(0.1))
    legs = Legs(ran)
    (lost,) = legs.at([1e9], 6)
    assert not lost.finite
    assert legs.at([1e9], 12) == [lost]
    assert ran.record == [(1, 0, 6)]


def test_what_keeps_no_state_is_trained_from_its_start() -> None:
    ran = Ran(Lit(0.1), keep=False)
    legs = Legs(ran)
    legs.at([0.1], 5)
    (whole,) = legs.at([0.1], 9)
    assert ran.record == [(1, 0, 5), (1, 0, 9)]
    assert whole.losses == race(Lit(0.1), [Variant(0.1)], BATCHES[:9])[0].losses


def test_a_state_that_does_not_load_is_no_hindrance() -> None:
    class Growing(Lit):
        """Makes a buffer in its first step."""

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            self.register_buffer("seen", torch.ones(1))
            return super().training_step(batch, batch_idx)

    ran = Ran(Growing(0.1))
    legs = Legs(ran)
    legs.at([0.1], 5)
    (whole,) = legs.at([0.1], 9)
    assert ran.record == [(1, 0, 5), (1, 5, 9), (1, 0, 9)]
    assert len(whole.losses) == 9


def test_what_its_module_raises_at_the_start_is_shown() -> None:
    class Broken(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        Legs(Ran(Broken(0.1))).at([0.1], 5)


def test_the_two_best_measured_go_on_and_each_is_measured_once() -> None:
    measured: list[float] = []

    def measure(weights: Mapping[str, Any]) -> float:
        measured.append(float(weights["network.0.bias"].norm()))  # no matter what: rates differ in it
        return round(measured[-1], 3)

    ran = Ran(Lit(0.1))
    legs = Legs(ran)
    found = legs.best_measured([0.01, 0.1, 1.0, 1e9], [5, 9], measure)
    assert {rate for rate, _ in found} == {0.1, 1.0}, "the furthest from where they began"
    assert ran.record == [(4, 0, 5), (2, 5, 9)]
    assert len(measured) == 5, "not of what diverged"
    legs.best_measured([0.1, 1.0], [9], measure)
    assert len(measured) == 5
    assert legs.best_measured([0.1], [9], lambda _: None) == [pair for pair in found if pair[0] == 0.1]


def test_a_large_module_keeps_no_states_and_is_compared_at_the_end_alone() -> None:
    with torch.device("meta"):
        large = nn.Linear(LARGEST // 4, 1)
    assert small(Lit(0.1))
    assert not small(large)
    assert looks(Lit(0.1), 80, 320) == [80, 320]
    assert looks(large, 80, 320) == looks(Lit(0.1), 320, 320) == [320]


def test_the_control_is_what_it_would_be_in_a_single_stretch() -> None:
    subject = Subject(Scheduled(), BATCHES, HELD_OUT)
    (whole,) = race(subject.module, [Variant()], BATCHES, HELD_OUT)
    assert subject.control.losses == whole.losses
    assert subject.control.held_out_losses == whole.held_out_losses
    assert {steps for _, steps in subject.own.known} == {subject.glance, subject.short, subject.long}
