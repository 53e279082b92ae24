"""Lightning's trainer with the project's own commands: each method is a subcommand, its signature the options."""

from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger


class Trainer(pl.Trainer):
    """A ``pytorch_lightning.Trainer`` that also finds learning rates."""

    def lr_find(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule | None = None,
        min_learning_rate: float = 1e-7,
        max_learning_rate: float = 1e2,
        num_rates: int = 7,
        steps: int | None = None,
        fit: bool = False,
    ) -> None:
        """Find the learning rate that trains best: Lightning's range test, mended, then a race of constant rates.

        Args:
            model: The model to train.
            datamodule: Its data.
            min_learning_rate: Where the range test starts; no lower rate is tried.
            max_learning_rate: Where it ends; no higher rate is tried.
            num_rates: How many rates start the race, half a decade apart.
            steps: Optimizer steps of the race, all rates together; none suits them to the batch size.
            fit: Go straight on to training with the rate that was found (``--fit=true``).
        """
        from rich.console import Console

        from unstall.data import global_seed
        from unstall.lr_find import find_learning_rate
        from unstall.lr_find_report import find_key, save, show, table

        search = find_learning_rate(
            model,
            datamodule if datamodule is not None else (model.train_dataloader(), model.val_dataloader()),
            self,
            min_learning_rate=min_learning_rate,
            max_learning_rate=max_learning_rate,
            num_rates=num_rates,
            steps=steps,
            seed=global_seed(),
        )
        if not self.is_global_zero:
            return
        Console().print(table(search))
        for logger in self.loggers:
            if isinstance(logger, TensorBoardLogger):
                show(search, logger.experiment)
                logger.experiment.flush()
                save(search, Path(logger.log_dir), find_key(model.hparams))


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, refreshed ten times an epoch or so instead of at every batch.

    Args:
        refresh_rate: Batches between two refreshes. A refresh costs about as much as a step of a small network.
    """

    def __init__(self, refresh_rate: int = 40) -> None:
        super().__init__(refresh_rate=refresh_rate)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leave out the version number, of which Lightning would show the last four letters."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
