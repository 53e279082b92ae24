"""A few samples tell a network that cannot learn from data that cannot be learned; a linear model, a poor network."""

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forks.blobs import Batch, Lit, blobs, dead
from unstall.forks.baselines import fits_few_samples, try_linear_model
from unstall.forks.subject import Subject
from unstall.trials import Score


@pytest.mark.parametrize(("module", "fits"), [(Lit(1e-2, "Adam"), True), (dead(Lit(1e-2, "Adam")), False)])
def test_few_samples_are_learned_by_heart_even_where_there_is_nothing_to_learn(module: Lit, fits: bool) -> None:
    subject = Subject(module, *blobs(128, random=True))
    assert fits_few_samples(subject, [1e-2]) == fits
    (noted,) = subject.forks
    assert noted.change == "only 32 samples, 150 times"
    assert noted.before == Score(subject.judge.reference)
    assert (noted.after.loss < 0.5 * noted.before.loss) == fits


def test_a_linear_model_takes_the_networks_place_and_does_what_one_does() -> None:
    training, held_out = blobs(128)
    module = Lit(1e-5)
    subject = Subject(module, training, held_out)
    linear = try_linear_model(subject, Score(2.3))
    assert linear is not None
    reference = Subject(Lit(0.1, widths=[20, 10]), training, held_out).score
    assert linear.loss == pytest.approx(reference.loss, rel=0.1)
    assert subject.forks[0].change == "a linear model instead"
    assert (subject.forks[0].before, subject.forks[0].after) == (Score(2.3), linear)
    assert len(module.network) == 3


class Bare(Lit):
    """Its network has another name."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.layers = self.network
        del self.network

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.layers(batch[0]), batch[1])


class Sequences(Lit):
    """Its network's outputs have more than two dimensions."""

    def __init__(self) -> None:
        super().__init__(0.1)
        self.network = nn.Sequential(*self.network, nn.Unflatten(1, (5, 2)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]).flatten(1), batch[1])


class Tokens(Lit):
    """Its inputs are no numbers."""

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return batch[0].abs().long(), batch[1]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0].float()), batch[1])


@pytest.mark.parametrize("module", [Bare(), Sequences(), Tokens(0.1)], ids=lambda module: type(module).__name__)
def test_where_no_linear_model_fits_in_none_is_tried(module: pl.LightningModule) -> None:
    subject = Subject(module, *blobs(128))
    random = torch.random.get_rng_state()
    assert try_linear_model(subject, Score(2.3)) is None
    assert subject.forks == []
    assert torch.equal(random, torch.random.get_rng_state())
