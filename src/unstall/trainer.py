"""Lightning's trainer with the project's own commands: each method is a subcommand, its signature the options."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from jsonargparse import ArgumentParser
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.profilers import PassThroughProfiler

if TYPE_CHECKING:
    from unstall.forks import Report


class Trainer(pl.Trainer):
    """A ``pytorch_lightning.Trainer`` that also finds learning rates and diagnoses runs."""

    report: "Report"

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
            datamodule if datamodule is not None else model,
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

    def diagnose(
        self,
        model: pl.LightningModule,
        run: str,
        datamodule: pl.LightningDataModule | None = None,
        verify: bool = False,
    ) -> None:
        """Say why a run stalled, with evidence, and try the remedies: each changes one thing and trains on.

        Args:
            model: The run's model, at its initial weights.
            run: The run's folder, or a checkpoint in it; it may still be going.
            datamodule: The run's data; none if the model has loaders of its own.
            verify: Train in full with the fix and compare (``--verify=true``).

        Raises:
            UsageError: for a run that cannot be forked.
        """
        import yaml

        from unstall.changes import merged
        from unstall.report import diagnose_run
        from unstall.run import CONFIG, LAST, find_checkpoint, load_checkpoint

        folder = folder_of(run)
        checkpoint = find_checkpoint(run, LAST)
        config = yaml.safe_load((folder / CONFIG).read_text())
        self.report = diagnose_run(
            folder,
            model,
            datamodule if datamodule is not None else model,
            self,
            config=config,
            rebuild=lambda overlay: build_model(merged(config, overlay)),
            checkpoint=load_checkpoint(checkpoint) if checkpoint else None,
        )


def folder_of(run: str) -> Path:
    """The folder of a run that is given by itself or by one of its checkpoints.

    Raises:
        UsageError: if it holds no config.
    """
    from unstall.errors import UsageError
    from unstall.run import CONFIG

    place = Path(run)
    folder = place.parent.parent if place.is_file() else place
    if not (folder / CONFIG).is_file():
        raise UsageError(f"run={run}: no {CONFIG} there; give a run folder, logs/<experiment>/<run>")
    return folder


def build_model(config: dict[str, Any]) -> pl.LightningModule:
    """Build the model of a resolved config, with the initial weights that its seed gives."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningModule, "model")
    parsed = parser.parse_object({"model": config["model"]})
    pl.seed_everything(config["seed_everything"], workers=True)
    model: pl.LightningModule = parser.instantiate_classes(parsed).model
    return model


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for every hook of every callback."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Return a context that does nothing."""
        return self._nothing


class ProgressBar(RichProgressBar):
    """Lightning's progress bar, told of every 20th batch, and drawn four times a second.

    Args:
        refresh_rate: Drawings per second, by a thread that competes with the training loop. Lightning's default is 100.
        every_n_batches: Batches after which it is told how far the epoch is.
    """

    def __init__(self, refresh_rate: int = 4, every_n_batches: int = 20) -> None:
        super().__init__(refresh_rate=refresh_rate)
        self.every_n_batches = every_n_batches

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar now and then."""
        if (batch_idx + 1) % self.every_n_batches == 0 or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Leave out the version number, of which Lightning would show the last four letters."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics
