from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from starter.module import Classifier


def two_clouds(count: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    """Points left and right of the origin."""
    labels = torch.arange(count) % 2
    return torch.randn(count, 2) * 0.1 + (2 * labels[:, None] - 1), labels


def trainer(folder: Path, epochs: int) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs, accelerator="cpu", default_root_dir=folder, logger=False, enable_progress_bar=False
    )


@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers")
def test_it_learns_and_logs_means_over_the_samples(tmp_path: Path) -> None:
    pl.seed_everything(0, verbose=False)
    module = Classifier(hidden=8, learning_rate=0.05)
    inputs, labels = two_clouds()
    before = F.cross_entropy(module(inputs), labels).item()
    fitted = trainer(tmp_path, epochs=5)
    loader = DataLoader(TensorDataset(inputs, labels), batch_size=30)  # the last batch is smaller
    fitted.fit(module, loader, loader)
    after = F.cross_entropy(module(inputs), labels).item()
    assert after < 0.1 * before
    assert float(fitted.callback_metrics["val/loss"]) == pytest.approx(after, rel=1e-4)
    assert float(fitted.callback_metrics["val/accuracy"]) == 1


def test_predictions_are_probabilities() -> None:
    module = Classifier()
    inputs, labels = two_clouds(5)
    torch.testing.assert_close(module.predict_step((inputs, labels), 0), F.softmax(module(inputs), dim=1))


def test_the_rate_is_the_optimizers() -> None:
    (group,) = Classifier(learning_rate=0.25).configure_optimizers().param_groups
    assert group["lr"] == 0.25
