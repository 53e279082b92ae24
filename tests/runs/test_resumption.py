"""What Lightning leaves out where a run goes on; whole processes are in tests/test_endings.py."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from unstall.data import RandomState
from unstall.runs.checkpoints import Checkpoints
from unstall.runs.folder import LAST
from unstall.runs.resumption import Resumption

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]
INPUTS = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, INPUTS.prod(1))


class Stop(pl.Callback):
    """Ends a training after so many steps, as somebody would who asks for it."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


class Module(pl.LightningModule):
    def __init__(self, plateau: bool) -> None:
        super().__init__()
        self.plateau = plateau
        self.network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.3), torch.nn.Linear(4, 1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = ((self.network(batch[0])[:, 0] - batch[1]) ** 2).mean()
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), 0.1)
        if not self.plateau:
            return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)}
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.5)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "loss"}}


def fit(folder: Path, plateau: bool, stop: int = 0, checkpoint: Path | None = None, **limits: Any) -> dict[str, Any]:
    pl.seed_everything(0, verbose=False)
    module = Module(plateau)
    trainer = pl.Trainer(
        accelerator="cpu",
        callbacks=[RandomState(), Checkpoints(filename="last", save_on_train_epoch_end=True), Resumption(), Stop(stop)],
        logger=TensorBoardLogger(str(folder), name="e", version="r"),
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **limits,
    )
    trainer.fit(module, DataLoader(DATA, 8, shuffle=True), ckpt_path=checkpoint, weights_only=True)
    return module.state_dict() | {"steps": trainer.global_step, "rate": trainer.optimizers[0].param_groups[0]["lr"]}


@pytest.mark.parametrize("limits", [{"max_epochs": 4}, {"max_steps": 20, "max_epochs": -1}])
@pytest.mark.parametrize(("stop", "plateau"), [(7, False), (10, False), (10, True), (14, False)])
def test_a_training_that_was_asked_to_end_goes_on_as_if_it_had_not(
    stop: int, plateau: bool, limits: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(tmp_path / "whole", plateau, **limits)
    assert whole["rate"] < 0.1  # the scheduler does something
    with pytest.raises(SystemExit):
        fit(tmp_path / "asked", plateau, stop, **limits)
    last = tmp_path / "asked" / "e" / "r" / LAST
    assert torch.load(last, weights_only=True)["global_step"] == stop
    resumed = fit(tmp_path / "asked", plateau, checkpoint=last, **limits)
    for name, value in whole.items():
        assert torch.equal(*map(torch.as_tensor, (value, resumed[name]))), name
    within = f"Goes on within epoch {stop // 5 + 1}, after {stop % 5} batches" in capsys.readouterr().out
    assert within == (stop % 5 != 0)
