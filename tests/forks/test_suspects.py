"""Whatever is suspicious about a network is offered as a change; what is in order is left alone."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from forks.blobs import CONFIG, blobs, dead
from forks.blobs import Lit as Blobs
from unstall.find import merged
from unstall.forks.subject import Subject
from unstall.forks.suspects import find_suspects, try_suspects
from unstall.forks.tried import Findings, Fork
from unstall.watch import Cause

BATCH = torch.randn(64, 20), torch.zeros(64, dtype=torch.long)


class Lit(pl.LightningModule):
    def __init__(self, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(20, 8), activation or nn.ReLU(), nn.Linear(8, 3))


def config(**network: Any) -> dict[str, Any]:
    return {"model": {"class_path": "mine.Lit", "init_args": {"network": {"class_path": "N", "init_args": network}}}}


def names(module: pl.LightningModule, batch: Any = BATCH, **network: Any) -> list[str]:
    found = find_suspects(module, batch, config(**network), lambda overlay: Lit(), Cause.BAD_SCALE)
    return [suspect.change for suspect in found]


def test_a_network_in_order_is_no_suspect() -> None:
    assert names(Lit(), init_scale=1.0, activation="relu", widths=[20, 128, 3]) == []


@pytest.mark.parametrize(("scale", "suspected"), [(1.0, False), (200.0, True), (0.01, True)])
def test_unscaled_inputs_are_brought_to_unit_scale(scale: float, suspected: bool) -> None:
    batch = BATCH[0] * scale, BATCH[1]
    found = list(find_suspects(Lit(), batch, config(init_scale=1.0), None, Cause.BAD_SCALE))
    assert [suspect.cause for suspect in found] == [Cause.BAD_SCALE] * suspected
    for suspect in found:
        inputs, labels = suspect.transform(batch)
        assert float(inputs.square().mean().sqrt()) == pytest.approx(1)
        assert labels is batch[1]


def test_inputs_that_the_loss_compares_with_are_left_alone() -> None:
    class Compares(Blobs):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            return (self.network(batch[0]) - batch[0][:, :10]).square().mean()

    training, held_out = blobs(128, scale=100.0)
    for module, divided in (Blobs(0.1), True), (Compares(1e-6), False):
        subject = Subject(module, training[:8], held_out)
        try_suspects(subject, findings_of(subject), [0.1])
        changes = [fork.change for fork in subject.forks]
        assert any(change.startswith("inputs divided") for change in changes) == divided


def test_settings_are_changed_where_there_are_any() -> None:
    settings = {"init_scale": 20.0, "activation": "sigmoid", "widths": [20, 1, 200, 3]}
    overlays: list[dict[str, Any]] = []

    def rebuild(overlay: dict[str, Any]) -> pl.LightningModule:
        overlays.append(overlay["model"]["init_args"]["network"]["init_args"])
        return Lit()

    found = list(find_suspects(Lit(), BATCH, config(**settings), rebuild, Cause.DEAD_AT_START))
    assert overlays == [{"init_scale": 1.0}, {"activation": "relu"}, {"widths": [20, 128, 200, 3]}]
    assert [suspect.cause for suspect in found] == [Cause.DEAD_AT_START, Cause.VANISHING, Cause.LOW_CAPACITY]
    assert all(suspect.setting is not None for suspect in found)
    assert list(find_suspects(Lit(), BATCH, config(**settings), None, Cause.BAD_SCALE)) == []  # cannot be rebuilt


def test_without_settings_a_copy_of_the_module_is_changed() -> None:
    module = Lit(nn.Sigmoid())
    weights, activation = list(find_suspects(module, BATCH, {}, None, Cause.DEAD_AT_START))
    assert weights.cause == Cause.DEAD_AT_START
    assert not torch.equal(weights.module.network[0].weight, module.network[0].weight)  # type: ignore[union-attr,index]
    assert isinstance(activation.module.network[1], nn.ReLU)  # type: ignore[index]
    assert isinstance(module.network[1], nn.Sigmoid)
    assert names(Lit()) == ["initial weights as torch draws them"]


def findings_of(subject: Subject) -> Findings:
    rate = Fork("learning rate 1", subject.score, subject.score)
    return Findings(subject.signals, subject.judge, subject.score, rate)


def test_the_best_suspect_is_tried_again_for_longer() -> None:
    subject = Subject(dead(Blobs(1e-2, "Adam")), *blobs(128))
    best = try_suspects(subject, findings_of(subject), [1e-2])
    short, long = subject.forks
    assert best is long
    assert all(fork.change.startswith("initial weights as torch draws them") for fork in (short, long))
    assert long.before == subject.score
    assert long.after.loss < 0.05 * long.before.loss
    assert (long.cause, long.mends) == (Cause.DEAD_AT_START, True)
    assert long.overlay is None, "nothing in a configuration says so"
    assert long.module is not None
    assert long.module is not subject.module, "but the changed copy can be trained"


def test_a_setting_and_its_rate_become_one_overlay() -> None:
    settings = {"network": {"class_path": "N", "init_args": {"init_scale": 20.0, "activation": "relu"}}}
    configured = merged(CONFIG, {"model": {"init_args": settings}})
    spoilt = Blobs(1e-4)
    with torch.no_grad():
        for parameter in spoilt.network.parameters():
            parameter *= 20
    subject = Subject(spoilt, *blobs(128), config=configured)
    findings = findings_of(subject)
    assert findings.badly_scaled
    best = try_suspects(subject, findings, [1e-4], lambda overlay: Blobs(1e-4))
    assert best is not None
    assert best.change.startswith("init_scale 1.0, learning rate")
    assert best.cause == Cause.BAD_SCALE
    assert best.overlay is not None
    arguments = best.overlay["model"]["init_args"]
    assert arguments["network"]["init_args"] == {"init_scale": 1.0}
    assert arguments["optimizer"]["init_args"]["lr"] > 1e-3


def test_without_a_suspect_nothing_is_tried() -> None:
    network = {"init_scale": 1.0, "activation": "relu", "widths": [20, 128, 10]}
    subject = Subject(Blobs(1e-2, "Adam"), *blobs(128), config=config(**network))
    assert try_suspects(subject, findings_of(subject), [1e-2], lambda overlay: Blobs(1e-2)) is None
    assert subject.forks == []
