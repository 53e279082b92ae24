import math

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from starter.datamodule import MoonsDataModule
from unstall import UsageError


def points(data: MoonsDataModule, part: str) -> tuple[Tensor, Tensor]:
    inputs, labels = zip(*getattr(data, f"{part}_dataloader")(), strict=True)
    return torch.cat(inputs), torch.cat(labels)


def ready(seed: int = 0, noise: float = 0.25) -> MoonsDataModule:
    pl.seed_everything(seed, verbose=False)
    data = MoonsDataModule(samples=500, noise=noise)
    data.setup()
    return data


def test_parts_are_disjoint_and_complete() -> None:
    parts = [points(ready(), part)[0] for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [300, 100, 100]
    assert len(torch.cat(parts).unique(dim=0)) == 500


def test_points_lie_on_their_moon() -> None:
    inputs, labels = points(ready(noise=0.0), "train")
    side = 1 - 2 * labels
    centre = torch.stack([-0.5 * side, -0.25 * side], dim=1)
    torch.testing.assert_close((inputs - centre).norm(dim=1), torch.ones(300))
    assert bool((side * (inputs - centre)[:, 1] > -1e-6).all())  # the upper half of one circle, the lower of the other
    assert 100 < int(labels.sum()) < 200


def test_the_seed_says_which_points_and_each_epoch_has_its_order() -> None:
    first, again, other = (points(ready(seed), "val")[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    loader = ready().train_dataloader()
    epochs = []
    for epoch in range(2):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        epochs.append(torch.cat([inputs for inputs, _ in loader]))
    assert not torch.equal(*epochs)
    assert torch.equal(*(epoch.sort(dim=0).values for epoch in epochs))


@pytest.mark.parametrize("setting", [{"samples": 3}, {"noise": -1.0}, {"noise": math.nan}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(setting))):
        MoonsDataModule(**setting)  # type: ignore[arg-type]
