"""The commands: LightningCLI with a folder for each run, and every check before any work starts."""

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI

from unstall.cli.callbacks import callbacks_of, drop_idle_hooks
from unstall.cli.checks import blamed, check_alone, check_data, check_settings, refusal_in, shortage_in
from unstall.cli.classes import classes_given, classes_of_base, why_not_loaded
from unstall.cli.display import program
from unstall.cli.documents import Document, of_diagnosis, of_evaluation, of_fit, of_search
from unstall.cli.ending import ENDING
from unstall.cli.going_on import check_agreement, folder_of, go_on, with_run_configs
from unstall.cli.last_words import last_words
from unstall.cli.loggers import build_loggers
from unstall.cli.parser import Parser, check_config, options, usage_error_in
from unstall.cli.project import base_configs, without_base
from unstall.cli.received import admit, disagreement, model_of
from unstall.cli.saved import SaveConfig, settings
from unstall.cli.sweeping import FOLDER as SWEEP
from unstall.cli.sweeping import Trials, words_of_fit
from unstall.cli.trainer import Trainer
from unstall.errors import UsageError
from unstall.runs import (
    CONFIG,
    LAST,
    METRICS,
    Lock,
    RunLogger,
    check_architecture,
    check_writable,
    expanded,
    last_metrics,
    locate,
    rank,
    read_metrics,
    scratch_folder,
    write,
)

INSTRUMENTS = ("lr_find", "diagnose", "sweep")


# Over 150 lines, because LightningCLI hands each stage of its work to a method: one class is its extension point.
class CLI(LightningCLI):
    """LightningCLI, with a folder for each run and every check before any work starts."""

    def __init__(self, args: ArgsType = None, run_name: str | None = None) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self.run_name = run_name
        self.lock: Lock | None = None
        self.document: Document | None = None
        self.run: RunLogger | None = None
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
        except BaseException:
            if self.run is not None:
                self.run.discard()
            raise
        finally:
            if self.lock is not None:
                self.lock.release()

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's four, and the trainer's own."""
        return {**LightningCLI.subcommands(), **{name: {"model", "datamodule"} for name in INSTRUMENTS}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Where runs go."""
        parser.add_argument("--experiment", type=str, default="run", help="The folder of its runs, in that of all.")
        parser.add_argument("--logs_dir", type=str, default="logs", help="The folder of all experiments.")
        formats = "text, or json: one document on standard output (docs/json.md), all else on standard error."
        parser.add_argument("--format", type=Literal["text", "json"], default="text", help=formats)
        parser.add_argument("--trust", action="store_true", help="Load whatever classes a run names that was sent.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; with `--ckpt_path`, on top of the config that the checkpoint was made with."""
        args = sys.argv[1:] if args is None else args
        assert isinstance(args, list)
        self.words = args = [re.sub("^-c(?=[^=])", "--config=", word) for word in args]  # -cmine.yaml
        for config in options(args, "--config", "-c"):
            check_config(config)
        args, path, taken, newest = go_on(args)
        taken = replace(taken, run_name=taken.run_name or self.run_name)
        self.lock = taken.lock  # held from here on, and let go of whatever comes
        taken, notes = admit(args, with_run_configs(taken))
        self.notes = [*newest, *notes]
        self.checkpoint, self.run_name, words = taken.checkpoint, taken.run_name, without_base(taken.args)
        self.step = taken.step if args[:1] == ["fit"] else None
        if words[:1] and words[0] in self.subcommands():
            command = self._parser(words[0])
            assert isinstance(command, Parser)
            command.classes_given = classes_given(words[1:])
        try:
            self.config = parser.parse_args(words)
        except KeyError as error:  # what jsonargparse raises for an unknown group in a config file
            self._parser(args[0]).error(str(error))
        except UsageError:
            failure = why_not_loaded({**classes_of_base(), **classes_given(words[1:])})
            if failure is None:
                raise
            raise UsageError(failure) from None
        config = self.config[stage := self.config.subcommand]
        if path is None and config.get("ckpt_path"):  # it would be followed, and was not looked at
            raise UsageError(f"ckpt_path={config.ckpt_path}: give it on the command line, not in a config")
        check_settings(config.as_dict())
        if self.checkpoint is not None:
            resolved = settings(self._parser(stage), config)
            check_agreement(stage, str(path), self.checkpoint, resolved, config.trainer.max_epochs)

    def _parse_ckpt_path(self) -> None:
        # Lightning reads them from the file, with every place, and for checkpoints of ours that hold the config, too.
        stage = self.config.subcommand
        if model := model_of(self.checkpoint, self.config[stage].as_dict()):
            self.config = self.parser.parse_object({stage: {"model": model}}, self.config)

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Keep the run in a folder of the program's, whichever loggers the config brings, or none (`false`)."""
        trainer = self._get(self.config_init, "trainer")
        logs_dir, experiment = self._get(self.config, "logs_dir"), self._get(self.config, "experiment")
        aside = "validate" if self.subcommand == "validate" else ""  # the curves of its training stay as they are
        name = SWEEP if self.subcommand == "sweep" else self.run_name
        run = RunLogger(logs_dir, experiment, name, purge_step=self.step, prefix=aside)
        if self.subcommand == "diagnose":
            kwargs["logger"] = False  # the report goes into the run's own folder
            if self._get(self.config, "verify"):
                with scratch_folder() as folder:  # only to see now whether they can be built
                    build_loggers(self.loggers, RunLogger(folder))
        elif trainer.fast_dev_run:
            kwargs["logger"] = self.loggers is not False and run  # Lightning puts a dummy in its place
        else:
            self.run = run
            kwargs["logger"] = build_loggers(self.loggers, run)
        kwargs["callbacks"] = callbacks_of(trainer)
        try:
            built = super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, ImportError, RuntimeError) as error:  # an accelerator that is not to be had
            raise UsageError(blamed(error, trainer)) from error
        assert isinstance(built, Trainer)
        drop_idle_hooks(vars(built)["callbacks"])
        built.run = self.run
        return built

    def instantiate_classes(self) -> None:
        """Build trainer, model and data; what is too large for memory is the user's to mend."""
        settings_of_trainer = self._get(self.config, "trainer")
        # Built with the trainer, when there is a folder to give them; the config is kept as it is.
        self.loggers, settings_of_trainer.logger = settings_of_trainer.logger, None
        try:
            super().instantiate_classes()
        except (RuntimeError, ValueError, MemoryError) as error:
            shortage = None if usage_error_in(error) else shortage_in(error)
            if shortage is None:
                raise
            raise UsageError(f"model: does not fit into memory ({shortage}); give it smaller sizes") from error
        finally:
            settings_of_trainer.logger = self.loggers

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except Exception as error:
            refused = refusal_in(error, self._get(self.config, "ckpt_path"), self._get(self.config, "trainer"))
            if refused is None:
                raise
            if self.run is not None and not (self.folder / LAST).exists():
                self.run.discard(begun=False)
            raise refused from error

    @property
    def folder(self) -> Path:
        """The run's folder."""
        if self.subcommand == "diagnose":
            return folder_of(self.config["diagnose"].run)
        assert self.run is not None
        return Path(self.run.log_dir)  # not `trainer.log_dir`: that is a broadcast, and the other ranks are gone by now

    def after_instantiate_classes(self) -> None:
        """Find what would fail, before a folder is made or a step is taken."""
        if self.subcommand in INSTRUMENTS:
            trains_after = self._get(self.config, "fit") or self._get(self.config, "verify")
            check_alone(self.subcommand, self.trainer, bool(trains_after))
        path = self._get(self.config, "ckpt_path") or self._get(self.config, "run")
        if self.checkpoint is not None:
            check_architecture(Path(path), self.checkpoint, self.model)
            if (run := locate(path).run) is not None:
                read_metrics(run.folder / METRICS)
            self.notes += disagreement(str(path), self.checkpoint, dict(self.model.hparams))
        if self.run is not None:
            weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
            # Two checkpoints of weights and at most two moments each, one of them being written beside the old one.
            folder = expanded(self._get(self.config, "logs_dir")) / self._get(self.config, "experiment")
            check_writable(folder, 9 * weights + 1_000_000)
        for note in self.notes if rank() == 0 else ():
            print(f"unstall: note: {' '.join(note.split())}", file=sys.stderr)
        if self.datamodule is not None:
            check_data(self.datamodule, self.model, self.trainer, str(self.subcommand))

    def before_fit(self) -> None:
        """Make the run's folder one that can be gone on from, and say so where the process is ended."""
        if self.run is None:
            return
        ENDING.fits(self.folder)
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(self.folder / LAST.parent)
        if rank():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock = self.lock or Lock(self.folder)
        write(self.folder / CONFIG, settings(self._parser("fit"), self.config["fit"]))

    def after_fit(self) -> None:
        """Say what came of it, and how to go on."""
        ENDING.has_fitted()
        folder = None if self.run is None else self.folder
        self.document = of_fit(self.trainer, folder)
        if self.trainer.is_global_zero:
            for line in last_words(self.trainer, self.model, self.datamodule, folder):
                print(line)

    def before_sweep(self) -> None:
        """Hand over how a trial is made of words."""
        assert isinstance(self.trainer, Trainer)
        config = yaml.safe_load(settings(self._parser("sweep"), self.config["sweep"]))
        self.trainer.trials = Trials(words_of_fit(self.words), config, self.parser.parse_args)

    def after_sweep(self) -> None:
        """End with the sweep's folder."""
        print(self.folder)

    def before_lr_find(self) -> None:
        """Hand over the configuration, in which the setting of the rate is looked for."""
        assert isinstance(self.trainer, Trainer)
        self.trainer.config = yaml.safe_load(settings(self._parser("lr_find"), self.config["lr_find"]))

    def after_lr_find(self) -> None:
        """Keep the config that was searched, say how to train with the result, or do it."""
        assert isinstance(self.trainer, Trainer)
        if not self.trainer.is_global_zero or self.run is None:
            self.document = of_search(self.trainer.search, self.trainer.overlay, None, [])
            return
        folder = self.folder
        write(folder / CONFIG, settings(self._parser("lr_find"), self.config["lr_find"]))
        again = ["fit", f"--config={folder / CONFIG}", f"--config={folder / 'lr_find.yaml'}"]
        self.document = of_search(self.trainer.search, self.trainer.overlay, folder, again)
        if self.config["lr_find"].fit:
            for logger in self.trainer.loggers:
                logger.finalize("success")
            self.document["fit"] = CLI(again, run_name=folder.name).document
            return
        print(f"to train with it:  {program()} {shlex.join(again)}")
        print(folder)

    def after_diagnose(self) -> None:
        """Print the report; with `--verify`, train with the fix and add what came of it."""
        from unstall.forks import FIX, command, read_signals, summary, write_report

        assert isinstance(self.trainer, Trainer)
        found, folder, verified = self.trainer.report, self.folder, None
        print(summary(folder, found, program()))
        if self.config["diagnose"].verify and found.fix is not None and found.fix.overlay is not None:
            trust = ["--trust"] if self.config["diagnose"].trust else []
            again = CLI(["fit", f"--config={folder / CONFIG}", f"--config={folder / FIX}", *trust])
            before, after = last_metrics(folder / METRICS), last_metrics(again.folder / METRICS)
            verified = {"original": before, "fixed": after, "run": str(again.folder)}
            write_report(folder, found, read_signals(folder), verified)
            for name in sorted(before.keys() & after.keys()):
                print(f"verified: {name} {before[name]:.4g} -> {after[name]:.4g}")
        self.document = of_diagnosis(found, folder, command(folder, found), verified)
        print(folder)

    def after_validate(self) -> None:
        """End with the run's folder."""
        folder, path = None if self.run is None else self.folder, str(self._get(self.config, "ckpt_path"))
        self.document = of_evaluation(str(self.subcommand), self.trainer, folder, path)
        if self.trainer.is_global_zero and folder is not None:
            print(folder)

    after_test = after_predict = after_validate
