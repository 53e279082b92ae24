"""The commands: LightningCLI with a folder for each run, and every check before any work starts."""

import re
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities.model_helpers import is_overridden

from unstall.cli.checks import blamed, check_loader, check_name, check_settings, first_batch, shortage_in
from unstall.cli.classes import classes_given
from unstall.cli.display import program
from unstall.cli.ending import ENDING
from unstall.cli.going_on import TakenUp, check_agreement, folder_of, take_up, take_up_for_diagnosis, with_run_configs
from unstall.cli.parser import Parser, check_config, options, usage_error_in
from unstall.cli.project import base_configs, without_base
from unstall.cli.received import admit, disagreement
from unstall.cli.saved import SaveConfig, settings
from unstall.cli.sweeping import FOLDER as SWEEP
from unstall.cli.sweeping import Trials, words_of_fit
from unstall.cli.trainer import Trainer
from unstall.errors import UsageError
from unstall.runs import (
    CONFIG,
    METRICS,
    Lock,
    Resumption,
    RunLogger,
    check_architecture,
    check_writable,
    closing_words,
    expanded,
    locate,
    newest_checkpoint,
    rank,
    read_metrics,
    stage_of,
    write,
)
from unstall.watch import Diagnosis

INSTRUMENTS = ("lr_find", "diagnose", "sweep")
EVALUATIONS = ("validate", "test", "predict")
LOADERS = {"validate": "val", "test": "test", "predict": "predict"}


# Over 150 lines, because LightningCLI hands each stage of its work to a method: one class is its extension point.
class CLI(LightningCLI):
    """LightningCLI, with a folder for each run and every check before any work starts."""

    def __init__(self, args: ArgsType = None, run_name: str | None = None) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self.run_name = run_name
        self.lock: Lock | None = None
        defaults = {"default_config_files": base_configs(), "allow_abbrev": False}
        try:
            super().__init__(
                pl.LightningModule,
                subclass_mode_model=True,
                auto_configure_optimizers=False,
                trainer_class=Trainer,
                seed_everything_default=0,
                save_config_callback=SaveConfig,
                parser_class=Parser,
                parser_kwargs={"allow_abbrev": False, "prog": "unstall", **dict.fromkeys(self.subcommands(), defaults)},
                args=args,
            )
        finally:
            if self.lock is not None:
                self.lock.release()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's four, and the trainer's own."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in INSTRUMENTS}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Where runs go."""
        parser.add_argument("--experiment", type=str, default="run", help="Runs lie in <logs_dir>/<experiment>/<run>.")
        parser.add_argument("--logs_dir", type=str, default="logs", help="The folder of all experiments.")
        parser.add_argument("--trust", action="store_true", help="Load whatever classes a run names that was sent.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; with `--ckpt_path`, on top of the config that the checkpoint was made with."""
        args = sys.argv[1:] if args is None else args
        assert isinstance(args, list)
        self.words = args = [re.sub("^-c(?=[^=])", "--config=", word) for word in args]  # -cmine.yaml
        for config in options(args, "--config", "-c"):
            check_config(config)
        path = next(reversed(options(args, "--ckpt_path")), None)
        for word in (*options(args, "--ckpt_path", "--run"), *(args[1:2] if args[:1] == ["diagnose"] else ())):
            check_name("ckpt_path", word)
        taken = TakenUp(args, run_name=self.run_name)
        if args[:1] == ["diagnose"] and not {"--help", "-h"} & set(args):
            taken = take_up_for_diagnosis(args)
        elif path is not None:
            taken = take_up(args, path)
        self.lock = taken.lock  # held from here on, and let go of whatever comes
        taken, self.notes = admit(args, with_run_configs(taken))
        self.checkpoint, self.run_name = taken.checkpoint, taken.run_name
        self.step = taken.step if args[:1] == ["fit"] else None
        words = without_base(taken.args)
        if words[:1] and words[0] in self.subcommands():
            command = self._parser(words[0])
            assert isinstance(command, Parser)
            command.classes_given = classes_given(words[1:])
        try:
            self.config = parser.parse_args(words)
        except KeyError as error:  # what jsonargparse raises for an unknown group in a config file
            self._parser(args[0]).error(str(error))
        stage = self.config.subcommand
        config = self.config[stage]
        if not 0 <= config.seed_everything < 2**32:  # NumPy's range
            raise UsageError(f"seed_everything={config.seed_everything}: give a whole number from 0 to {2**32 - 1}")
        check_settings(config.as_dict())
        if self.checkpoint is not None:
            resolved = settings(self._parser(stage), config)
            check_agreement(stage, str(path), self.checkpoint, resolved, config.trainer.max_epochs)
        elif stage in EVALUATIONS and path is None:
            raise UsageError(
                f"ckpt_path: {stage} needs a trained checkpoint or run folder; give it, such as "
                f"--ckpt_path={newest_checkpoint(expanded(config.logs_dir))}"
            )

    def _parse_ckpt_path(self) -> None:
        # Lightning lets a checkpoint's hyper-parameters win over the command line (#20801). Ours holds the config.
        if self.checkpoint is None or "config" not in self.checkpoint:
            super()._parse_ckpt_path()

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Log into the run's folder, unless the config brings loggers of its own or none (`false`)."""
        if self.subcommand == "diagnose":
            kwargs["logger"] = False  # the report goes into the run's own folder
        elif self._get(self.config, "trainer").logger in (None, True):
            logs_dir, experiment = self._get(self.config, "logs_dir"), self._get(self.config, "experiment")
            name = SWEEP if self.subcommand == "sweep" else self.run_name
            kwargs["logger"] = RunLogger(logs_dir, experiment, name, purge_step=self.step)
        trainer = self._get(self.config_init, "trainer")
        if isinstance(trainer.callbacks, list):
            kwargs |= without_what_is_off(trainer)
            kwargs["callbacks"] = [*kwargs["callbacks"], Resumption()]
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError) as error:  # an accelerator, a number of devices not to be had
            raise UsageError(blamed(error, trainer)) from error

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; what is too large for memory is the user's to mend."""
        try:
            super().instantiate_classes()
        except (RuntimeError, ValueError, MemoryError) as error:
            shortage = None if usage_error_in(error) else shortage_in(error)
            if shortage is None:
                raise
            raise UsageError(f"model: does not fit into memory ({shortage}); give it smaller sizes") from error

    @property
    def folder(self) -> Path:
        """The run's folder."""
        if self.subcommand == "diagnose":
            return folder_of(self.config["diagnose"].run)
        # Not `trainer.log_dir`: that is a broadcast, and the other ranks are gone by now.
        return Path(getattr(self.trainer.logger, "log_dir", None) or self.trainer.default_root_dir)

    def after_instantiate_classes(self) -> None:
        """Find what would fail, before a folder is made or a step is taken."""
        path = self._get(self.config, "ckpt_path") or self._get(self.config, "run")
        if self.checkpoint is not None:
            check_architecture(Path(path), self.checkpoint, self.model)
            run = locate(path).run
            if run is not None:
                read_metrics(run.folder / METRICS)
            self.notes += disagreement(str(path), self.checkpoint, dict(self.model.hparams))
        if self.trainer.loggers:
            weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
            # Two checkpoints of weights and at most two moments each, one of them being written beside the old one.
            folder = expanded(self._get(self.config, "logs_dir")) / self._get(self.config, "experiment")
            check_writable(folder, 9 * weights + 1_000_000)
        for note in self.notes if rank() == 0 else ():
            print(f"unstall: note: {' '.join(note.split())}", file=sys.stderr)
        if self.datamodule is None:
            return
        # As Lightning would call it: a data module may ask its trainer what is about to be done.
        self.datamodule.trainer, self.trainer.predicting = self.trainer, self.subcommand == "predict"
        self.datamodule.prepare_data()
        self.datamodule.setup(self.subcommand if self.subcommand in EVALUATIONS else "fit")
        named = f"{LOADERS.get(str(self.subcommand), 'train')}_dataloader"
        if is_overridden(named, self.datamodule):
            loader = getattr(self.datamodule, named)()
            check_loader(loader, named)
            if self.subcommand not in EVALUATIONS and hasattr(self.model, "check_batch"):
                self.model.check_batch(first_batch(loader, named))
        self.datamodule.trainer, self.trainer.predicting = None, False

    def before_fit(self) -> None:
        """Make the run's folder one that can be gone on from, and say so where the process is ended."""
        if not isinstance(self.trainer.logger, RunLogger) or vars(self.trainer)["fast_dev_run"]:
            return
        ENDING.fits(self.folder)
        if rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.lock is None:
            self.lock = Lock(self.folder)
        write(self.folder / CONFIG, settings(self._parser("fit"), self.config["fit"]))

    def after_fit(self) -> None:
        """Say what came of it, and how to go on; a rehearsal (`fast_dev_run`) has left nothing to go on with."""
        ENDING.has_fitted()
        if self.trainer.is_global_zero and self.trainer.loggers and not vars(self.trainer)["fast_dev_run"]:
            callbacks = vars(self.trainer)["callbacks"]  # Lightning sets them without declaring them
            watch = next((callback for callback in callbacks if isinstance(callback, Diagnosis)), None)
            stalled = watch is not None and watch.verdict is not None and watch.verdict.stalled
            testable = is_overridden("test_step", self.model) and (
                self.datamodule is None or is_overridden("test_dataloader", self.datamodule)
            )
            for line in closing_words(read_metrics(self.folder / METRICS), self.folder, program(), stalled, testable):
                print(line)
            print(self.folder)

    def before_sweep(self) -> None:
        """Hand over how a trial is made of words."""
        assert isinstance(self.trainer, Trainer)
        config = yaml.safe_load(settings(self._parser("sweep"), self.config["sweep"]))
        self.trainer.trials = Trials(words_of_fit(self.words), config, self.parser.parse_args)

    def before_lr_find(self) -> None:
        """Hand over the configuration, in which the setting of the rate is looked for."""
        assert isinstance(self.trainer, Trainer)
        self.trainer.config = yaml.safe_load(settings(self._parser("lr_find"), self.config["lr_find"]))

    def after_lr_find(self) -> None:
        """Keep the config that was searched, say how to train with the result, or do it."""
        logger = self.trainer.logger
        if not self.trainer.is_global_zero or not isinstance(logger, RunLogger):
            return
        folder = Path(logger.log_dir)
        write(folder / CONFIG, settings(self._parser("lr_find"), self.config["lr_find"]))
        again = ["fit", f"--config={folder / CONFIG}", f"--config={folder / 'lr_find.yaml'}"]
        if self.config["lr_find"].fit:
            logger.finalize("success")
            CLI(again, run_name=folder.name)
            return
        print(f"to train with it:  {program()} {' '.join(again)}")
        print(folder)

    def after_diagnose(self) -> None:
        """Print the report; with `--verify`, train with the fix and add what came of it."""
        from unstall.forks import FIX, read_signals, summary, write_report

        assert isinstance(self.trainer, Trainer)
        found, folder = self.trainer.report, self.folder
        print(summary(folder, found).replace("  unstall fit", f"  {program()} fit"))
        if self.config["diagnose"].verify and found.fix is not None and found.fix.overlay is not None:
            trust = ["--trust"] if self.config["diagnose"].trust else []
            again = CLI(["fit", f"--config={folder / CONFIG}", f"--config={folder / FIX}", *trust])
            before, after = _last(folder), _last(again.folder)
            verified = {"original": before, "fixed": after, "run": str(again.folder)}
            write_report(folder, found, read_signals(folder), verified)
            for name in sorted(before.keys() & after.keys()):
                print(f"verified: {name} {before[name]:.4g} -> {after[name]:.4g}")
        print(folder)

    def after_validate(self) -> None:
        """End with the run's folder."""
        if self.trainer.is_global_zero and self.trainer.loggers:
            print(self.folder)

    after_test = after_predict = after_sweep = after_validate


def without_what_is_off(trainer: Namespace) -> dict[str, Any]:
    """Return the arguments that leave out callbacks which a flag of the trainer switches off: Lightning refuses them.

    Without a logger there is no run and no folder; Lightning would keep checkpoints in the current one.
    """
    kept = trainer.enable_checkpointing if not trainer.fast_dev_run else False
    placed = trainer.default_root_dir or any(getattr(part, "dirpath", None) for part in trainer.callbacks)
    arguments: dict[str, Any] = {}
    if trainer.logger is False and kept is None and not placed:
        kept = arguments["enable_checkpointing"] = False
    flags = {ProgressBar: trainer.enable_progress_bar, Checkpoint: kept}
    off = tuple(kind for kind, flag in flags.items() if flag is False)
    return {**arguments, "callbacks": [part for part in trainer.callbacks if not isinstance(part, off)]}


def _last(folder: Path) -> dict[str, float]:
    return {name: value for row in read_metrics(folder / METRICS) for name, value in row.items() if stage_of(name)}
