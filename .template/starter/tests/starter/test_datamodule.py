import math

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from starter.datamodule import TURNS, SpiralsDataModule
from unstall import UsageError


def points(data: SpiralsDataModule, part: str) -> tuple[Tensor, Tensor]:
    inputs, labels = zip(*getattr(data, f"{part}_dataloader")(), strict=True)
    return torch.cat(inputs), torch.cat(labels)


def ready(seed: int = 0, noise: float = 0.03) -> SpiralsDataModule:
    pl.seed_everything(seed, verbose=False)
    data = SpiralsDataModule(samples=500, noise=noise)
    data.setup()
    return data


def test_parts_are_disjoint_and_complete() -> None:
    parts = [points(ready(), part)[0] for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [300, 100, 100]
    assert len(torch.cat(parts).unique(dim=0)) == 500


def test_points_lie_on_their_spiral() -> None:
    inputs, labels = points(ready(noise=0.0), "train")
    radius = inputs.norm(dim=1)
    angle = 2 * math.pi * TURNS * radius + math.pi * labels
    torch.testing.assert_close(inputs, torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1))
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
        SpiralsDataModule(**setting)  # type: ignore[arg-type]
