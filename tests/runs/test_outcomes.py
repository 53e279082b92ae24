"""What `test` and `predict` leave behind, against plain loops."""

import csv
import warnings
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from unstall.runs.outcomes import Mistakes, Predictions


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layer(inputs)
        return logits

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self(batch[0])

    def predict_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self(batch[0]).softmax(1)


def test_confusion_matrix_is_that_of_a_plain_loop(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs, labels = torch.randn(50, 4), torch.randint(3, (50,))
    module = Classifier()
    mistakes = Mistakes(count=4)
    trainer = pl.Trainer(
        logger=False, callbacks=[mistakes], enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.test(module, DataLoader(TensorDataset(inputs, labels), 16), verbose=False)
    expected = torch.zeros(3, 3, dtype=torch.long)
    losses = []
    for sample, label in zip(inputs, labels.tolist(), strict=True):
        logits = module(sample[None])[0].detach()
        guess = int(logits.argmax())
        expected[label, guess] += 1
        if guess != label:
            losses.append(float(-F.log_softmax(logits, 0)[label]))
    assert mistakes.confusion is not None
    assert torch.equal(mistakes.confusion.cpu(), expected)
    assert [loss for loss, *_ in mistakes.worst] == pytest.approx(sorted(losses, reverse=True)[:4], rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_predictions_are_a_row_per_sample_with_the_probability_of_each_class(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(5, 4)
    module = Classifier()
    trainer = pl.Trainer(
        logger=False, callbacks=[Predictions()], enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.predict(module, DataLoader(TensorDataset(inputs, torch.zeros(5, dtype=torch.long)), 2))
    with (tmp_path / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    expected = module(inputs).softmax(1)
    assert [row["item"] for row in rows] == ["0", "1", "2", "3", "4"]
    assert [int(row["label"]) for row in rows] == expected.argmax(1).tolist()
    written = [[float(row[f"probability_{k}"]) for k in range(3)] for row in rows]
    assert torch.allclose(torch.tensor(written), expected, atol=1e-6)
