"""Lightning's trainer with the project's own commands: each method is a subcommand, its signature the options."""

from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentParser
from pytorch_lightning.loggers import TensorBoardLogger

from unstall.cli.going_on import folder_of
from unstall.cli.project import with_present_names
from unstall.cli.together import Together
from unstall.runs import CONFIG, LAST, RunLogger, find_and_load, locate, log_dir

if TYPE_CHECKING:
    from unstall.cli.sweeping import Trials
    from unstall.find import LearningRateSearch
    from unstall.forks import Report


# Over 150 lines, because LightningCLI makes the commands of its trainer's methods, and their options of the signatures.
class Trainer(pl.Trainer):
    """A ``pytorch_lightning.Trainer`` that also finds learning rates and diagnoses runs."""

    report: "Report"
    search: "LearningRateSearch"
    overlay: dict[str, Any] | None = None
    """The settings that train with the rate that was found."""
    config: dict[str, Any] | None = None
    """The resolved configuration, where there is one: `lr_find` looks in it for the setting of the rate."""
    trials: "Trials | None" = None
    """How a sweep makes its trials."""

    run: RunLogger | None = None
    """Whose folder is the run's, whichever loggers there are; None where nothing is kept."""

    @property
    def received_sigterm(self) -> bool:
        """Whether this process was asked to end; one of several is when all know, and so after the same batch."""
        if self.world_size == 1:
            return super().received_sigterm
        together = next((each for each in vars(self)["callbacks"] if isinstance(each, Together)), None)
        return super().received_sigterm if together is None else together.agreed

    @property
    def log_dir(self) -> str | None:
        """The run's folder. A broadcast from rank zero: to be called on every rank."""
        return super().log_dir if self.run is None else self.strategy.broadcast(self.run.log_dir)

    def lr_find(
        self,
        model: pl.LightningModule,
        datamodule: pl.LightningDataModule | None = None,
        min_learning_rate: float = 1e-7,
        max_learning_rate: float = 1e2,
        num_rates: int = 7,
        steps: int | None = None,
        fit: bool = False,
    ) -> "LearningRateSearch":
        """Find the learning rate that trains best: Lightning's range test, mended, then a race of constant rates.

        Args:
            model: The model to train.
            datamodule: Its data.
            min_learning_rate: Where the range test starts; no lower rate is tried.
            max_learning_rate: Where it ends; no higher rate is tried.
            num_rates: How many rates start the race, half a decade apart.
            steps: Optimizer steps of the race, all rates together; none suits them to the batch size.
            fit: Go straight on to training with the rate that was found (``--fit=true``).

        Returns:
            What was found, as `unstall.find_learning_rate` does.
        """
        from rich.console import Console

        from unstall.data import global_seed
        from unstall.find import find_learning_rate, merged, overlay_with_rate, picture, rate_of_fit, save, show, table

        data, config = datamodule if datamodule is not None else model, self.config
        search = find_learning_rate(
            model,
            data,
            self,
            min_learning_rate=min_learning_rate,
            max_learning_rate=max_learning_rate,
            num_rates=num_rates,
            steps=steps,
            seed=global_seed(),
        )
        self.search, self.overlay = search, None
        folder = log_dir(self)
        if not self.is_global_zero:
            return search
        Console().print(table(search))
        if config is not None:
            rate_with = lambda overlay: rate_of_fit(build_model(merged(config, overlay)), data, self)  # noqa: E731
            self.overlay = overlay_with_rate(config, search.learning_rate, rate_with)
        boards = [logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)]
        if folder is None and not boards:
            return search
        drawn = picture(search)
        for board in boards:
            show(search, board.experiment, drawn)
        if folder is not None:
            save(search, folder, drawn, self.overlay)
        return search

    def diagnose(
        self,
        model: pl.LightningModule,
        run: str,
        datamodule: pl.LightningDataModule | None = None,
        verify: bool = False,
    ) -> "Report":
        """Say why a run stalled, with evidence, and try the remedies: each changes one thing and trains on.

        Args:
            model: The run's model, at its initial weights.
            run: The run's folder, or a checkpoint in it; it may still be going.
            datamodule: The run's data; none if the model has loaders of its own.
            verify: Train in full with the fix and compare (``--verify=true``).

        Returns:
            What was found, as `unstall.diagnose` does.

        Raises:
            UsageError: for a run that cannot be forked.
        """
        from unstall.find import merged
        from unstall.forks import diagnose_run

        folder = folder_of(run)
        _, checkpoint = find_and_load(locate(run, "run"), LAST)
        config = yaml.safe_load(with_present_names((folder / CONFIG).read_text()))
        self.report = diagnose_run(
            folder,
            model,
            datamodule if datamodule is not None else model,
            self,
            config=config,
            rebuild=lambda overlay: build_model(merged(config, overlay)),
            checkpoint=checkpoint,
        )
        return self.report

    def sweep(
        self,
        model: pl.LightningModule,
        space: dict | list[dict],  # type: ignore[type-arg] # of any type: jsonargparse would build the classes in it
        datamodule: pl.LightningDataModule | None = None,
        method: str = "tpe",
        trials: int | None = None,
        metric: str | None = None,
        mode: str | None = None,
        prune: str = "diagnosis",
        workers: int | None = None,
        storage: str | None = None,
    ) -> None:
        """Search over any settings: many runs of ``fit``, what depends on what as a picture, and the best as a config.

        The same command started again goes on where it was; started twice, or on several machines, they share the work.

        Args:
            model: The model to train.
            space: For each setting's name ``{low, high, log, points}`` or a list of values.
            datamodule: Its data.
            method: ``tpe``, ``random``, ``grid``, or ``hyperband``, which is TPE with most trials ended early.
            trials: How many; 30 if left out. A grid has as many as its space.
            metric: What is optimized; what the best checkpoint is chosen by, if left out.
            mode: Whether ``min`` or ``max`` of it is best; of a loss or an accuracy that is known.
            prune: Which trials end early: those that their ``diagnosis`` gives up for certain, those below the
                ``median`` of the others, those that Optuna's ``hyperband`` ends, or ``none``.
            workers: Processes side by side; as many as fill the cores, if left out.
            storage: The URL of the database that all of them share, such as ``postgresql://...``; a file in the
                experiment's folder, if left out.

        Raises:
            UsageError: for a space that cannot be searched, or a database that cannot be used.
        """
        from unstall.cli.sweeping import Options, sweep

        assert self.trials is not None, "a sweep starts from words: unstall.run(['sweep', ...])"
        options = Options(space, method, trials, metric, mode, prune, workers, storage)
        sweep(options, self, self.trials)


def build_model(config: dict[str, Any]) -> pl.LightningModule:
    """Build the model of a resolved config, with the initial weights that its seed gives."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(pl.LightningModule, "model")
    parsed = parser.parse_object({"model": config["model"]})
    pl.seed_everything(config["seed_everything"], workers=True)
    model: pl.LightningModule = parser.instantiate_classes(parsed).model
    return model
