"""The command line: wires the parts, holds no logic of training."""

import errno
import logging
import os
import shutil
import sys
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import Namespace
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Checkpoint, ProgressBar
from pytorch_lightning.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from pytorch_lightning.utilities.model_helpers import is_overridden

from unstall.callbacks import METRICS, PLACES, closing_words, read_metrics
from unstall.errors import UsageError
from unstall.metrics import stage_of
from unstall.monitor import Diagnosis
from unstall.parser import Parser, check_config, flat, options, usage_error_in, without
from unstall.run import (
    BEST,
    CONFIG,
    LAST,
    RunLogger,
    check_architecture,
    check_writable,
    find_checkpoint,
    load_checkpoint,
    newest_checkpoint,
    rank,
    run_of,
    write,
)
from unstall.trainer import Trainer, folder_of

BASE_CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mnist.yaml"


class SaveConfig(SaveConfigCallback):
    """Keeps the resolved config in the run's folder, and in every checkpoint: a checkpoint is enough to go on."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write the config of a training run; the other stages belong to a run that has one."""
        folder = trainer.log_dir
        if stage != "fit" or folder is None or not trainer.loggers or not trainer.is_global_zero:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        write(Path(folder) / CONFIG, self.text)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the config, as text."""
        checkpoint["config"] = self.text

    @cached_property
    def text(self) -> str:
        """The resolved config as YAML."""
        return settings(self.parser, self.config)


def settings(parser: LightningArgumentParser, config: Namespace) -> str:
    """The resolved config as YAML, without what is the subcommand's own: every subcommand can read it."""
    own = ("experiment", "logs_dir", "seed_everything", "model", "data", "trainer")
    kept = Namespace({name: config[name] for name in own})  # type: ignore[no-untyped-call]
    return str(parser.dump(kept, skip_none=False, skip_validation=True))


class CLI(LightningCLI):
    """LightningCLI, with a folder for each run and every check before any work starts."""

    def __init__(self, args: ArgsType = None, run_name: str | None = None) -> None:
        self.checkpoint: dict[str, Any] | None = None
        self.run_name = run_name
        defaults = {"default_config_files": [str(BASE_CONFIG)], "allow_abbrev": False}
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

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's four, and the trainer's own."""
        return {**LightningCLI.subcommands(), "lr_find": {"model", "datamodule"}, "diagnose": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Where runs go."""
        parser.add_argument("--experiment", type=str, default="run", help="Runs lie in <logs_dir>/<experiment>/<run>.")
        parser.add_argument("--logs_dir", type=str, default="logs", help="The folder of all experiments.")

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; with ``--ckpt_path``, on top of the config that the checkpoint was made with."""
        args = sys.argv[1:] if args is None else args
        assert isinstance(args, list)
        for config in options(args, "--config", "-c"):
            check_config(config)
        path = next(reversed(options(args, "--ckpt_path")), None)
        if args[:1] == ["diagnose"] and not {"--help", "-h"} & set(args):
            path = next(reversed(options(args, "--run")), next(iter(args[1:2]), "-"))
            if path.startswith("-"):
                raise UsageError("run: diagnose needs a run; give its folder, logs/<experiment>/<run>")
            args = self._diagnosed([word for word in without(args, "--run") if word != path], path)
        elif path is not None:
            args = self._take_up(args, path)
        try:
            self.config = parser.parse_args(args)
        except KeyError as error:  # what jsonargparse raises for an unknown group in a config file
            self._parser(args[0]).error(str(error))
        stage = self.config.subcommand
        seed = self.config[stage].seed_everything
        if not 0 <= seed < 2**32:  # NumPy's range
            raise UsageError(f"seed_everything={seed}: give a whole number from 0 to {2**32 - 1}")
        if self.checkpoint is not None:
            self._check_agreement(stage, str(path))
        elif stage in ("validate", "test", "predict") and path is None:
            raise UsageError(
                f"ckpt_path: {stage} needs a trained checkpoint or run folder; give it, such as "
                f"--ckpt_path={newest_checkpoint(Path(self.config[stage].logs_dir))}"
            )

    def _take_up(self, args: list[str], path: str) -> list[str]:
        file = find_checkpoint(path, LAST if args[0] == "fit" else BEST)
        if file is None:
            if args[0] != "fit":
                raise UsageError(f"ckpt_path={path}: this run has no checkpoint yet; let it train for an epoch first")
            self.run_name = Path(path).resolve().name
            return [args[0], f"--config={path}/{CONFIG}", *without(args[1:], "--ckpt_path")]
        self.checkpoint = load_checkpoint(file)
        run = run_of(file)
        if run is not None:
            self.run_name = run.folder.resolve().name
        config = self.checkpoint.get("config")
        taken_up = [f"--config={config}"] if config else []
        if run is not None:
            taken_up += [f"--logs_dir={run.folder.parent.parent}", f"--experiment={run.folder.resolve().parent.name}"]
        return [args[0], *taken_up, *without(args[1:], "--ckpt_path"), f"--ckpt_path={file}"]

    def _diagnosed(self, args: list[str], path: str) -> list[str]:
        folder = folder_of(path)
        file = find_checkpoint(path, LAST)
        self.checkpoint = load_checkpoint(file) if file is not None else None
        return [args[0], f"--config={folder / CONFIG}", f"--run={path}", *args[1:]]

    def _check_agreement(self, stage: str, path: str) -> None:
        assert self.checkpoint is not None
        if "config" not in self.checkpoint:
            return
        theirs = flat(yaml.safe_load(self.checkpoint["config"]))
        ours = flat(yaml.safe_load(self._parser(stage).dump(self.config[stage], skip_none=False)))
        binding = ("model.", "data.", "seed_everything") if stage == "fit" else ("model.",)
        for key in sorted(ours.keys() | theirs.keys()):
            if key.startswith(binding) and key.rpartition(".")[2] not in PLACES and ours.get(key) != theirs.get(key):
                raise UsageError(
                    f"{key.replace('.init_args', '')}={ours.get(key)} contradicts {theirs.get(key)}, with which "
                    f"{path} was trained; leave it out, or start a new run without --ckpt_path"
                )
        if stage == "fit":
            done, wanted = self.checkpoint["epoch"] + 1, self.config[stage].trainer.max_epochs
            if wanted is not None and 0 <= wanted <= done:
                raise UsageError(
                    f"trainer.max_epochs={wanted}: {path} has been trained for {done} epochs; "
                    f"to go on give more, such as --trainer.max_epochs={2 * done}"
                )

    def instantiate_trainer(self, **kwargs: Any) -> pl.Trainer:
        """Log into the run's folder, unless the config brings loggers of its own or none (``false``)."""
        if self.subcommand == "diagnose":
            kwargs["logger"] = False  # the report goes into the run's own folder
        elif self._get(self.config, "trainer").logger in (None, True):
            step = self.checkpoint["global_step"] if self.checkpoint and self.subcommand == "fit" else None
            logs_dir, experiment = self._get(self.config, "logs_dir"), self._get(self.config, "experiment")
            kwargs["logger"] = RunLogger(logs_dir, experiment, self.run_name, purge_step=step)
        trainer = self._get(self.config_init, "trainer")
        if isinstance(trainer.callbacks, list):  # Lightning refuses a callback that a flag switches off; drop it here
            kept = trainer.enable_checkpointing if not trainer.fast_dev_run else False
            placed = trainer.default_root_dir or any(getattr(part, "dirpath", None) for part in trainer.callbacks)
            if trainer.logger is False and kept is None and not placed:
                kept = kwargs["enable_checkpointing"] = False  # no run, no folder: Lightning would take the current one
            flags = {ProgressBar: trainer.enable_progress_bar, Checkpoint: kept}
            off = tuple(kind for kind, flag in flags.items() if flag is False)
            kwargs["callbacks"] = [callback for callback in trainer.callbacks if not isinstance(callback, off)]
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, ImportError) as error:  # an accelerator, a strategy, a number of devices not to be had
            raise UsageError(
                f"trainer.accelerator={trainer.accelerator}, trainer.devices={trainer.devices}: {error}"
            ) from error

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
        if self.trainer.loggers:
            weights = sum(parameter.numel() * parameter.element_size() for parameter in self.model.parameters())
            # Two checkpoints of weights and at most two moments each, one of them being written beside the old one.
            folder = Path(self._get(self.config, "logs_dir"), self._get(self.config, "experiment"))
            check_writable(folder, 9 * weights + 1_000_000)
        if self.datamodule is None:
            return
        # As Lightning would call it: a data module may ask its trainer what is about to be done.
        self.datamodule.trainer, self.trainer.predicting = self.trainer, self.subcommand == "predict"
        self.datamodule.prepare_data()
        self.datamodule.setup(self.subcommand if self.subcommand in ("validate", "test", "predict") else "fit")
        if self.subcommand not in ("validate", "test", "predict") and hasattr(self.model, "check_batch"):
            self.model.check_batch(next(iter(self.datamodule.train_dataloader())))
        self.datamodule.trainer, self.trainer.predicting = None, False

    def after_fit(self) -> None:
        """Say what came of it, and how to go on; a rehearsal (``fast_dev_run``) has left nothing to go on with."""
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
        """Print the report; with ``--verify``, train with the fix and add what came of it."""
        from unstall import report

        assert isinstance(self.trainer, Trainer)
        found, folder = self.trainer.report, self.folder
        print(report.summary(folder, found).replace("  unstall fit", f"  {program()} fit"))
        if self.config["diagnose"].verify and found.fix is not None and found.fix.overlay is not None:
            again = CLI(["fit", f"--config={folder / CONFIG}", f"--config={folder / report.FIX}"])
            before, after = _last(folder), _last(again.folder)
            verified = {"original": before, "fixed": after, "run": str(again.folder)}
            report.write_report(folder, found, report.read_signals(folder), verified)
            for name in sorted(before.keys() & after.keys()):
                print(f"verified: {name} {before[name]:.4g} -> {after[name]:.4g}")
        print(folder)

    def after_validate(self) -> None:
        """End with the run's folder."""
        if self.trainer.is_global_zero and self.trainer.loggers:
            print(self.folder)

    after_test = after_predict = after_validate


def program() -> str:
    """What to type to run this program again: its name if the shell finds it, else its path."""
    typed = Path(sys.argv[0])
    if typed.name != "unstall":
        return f"{sys.executable} -m unstall"
    if shutil.which("unstall") == str(typed):
        return "unstall"
    near = os.path.relpath(typed)
    return str(typed) if near.startswith("..") else near


def main(args: list[str] | None = None) -> None:
    """Run one command; what a user can mend is one line on standard error, and exit code 2.

    Args:
        args: The command line without the program's name; ``sys.argv`` if left out.
    """
    # RMSprop's averages for pixels that are hardly ever lit decay into denormal numbers, and every epoch is slower
    # than the one before. It only reaches threads made later: it must come before the first parallel operation.
    torch.set_flush_denormal(True)
    if not torch.cuda.is_available():
        # Every optimizer step asks torch for an accelerator, and Lightning has it look for the
        # driver's library each time. An empty list of devices is an answer at once.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for name in ("pytorch_lightning", "lightning_fabric"):  # "Seed set to 0", "GPU available: False", tips
        for logger in (name, f"{name}.utilities.rank_zero", f"{name}.utilities.seed"):
            logging.getLogger(logger).setLevel(logging.WARNING)
    # Lightning's own: it asks torch's pytrees the old way, and means well about loaders and folders.
    warnings.filterwarnings("ignore", message=".isinstance.treespec, LeafSpec")
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
    # A user's own classes, as `python -m unstall` finds them. Not "": jsonargparse reads a config from its own folder.
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    args = sys.argv[1:] if args is None else args
    try:
        if args[:1] == ["demo"]:
            from unstall.demo import demo

            demo(lambda command: CLI(command).folder, args[1:], program())
        else:
            CLI(args)
    except UsageError as error:
        fail(str(error))
    except MisconfigurationException as error:
        fail(str(error))
    except ValueError as error:  # jsonargparse wraps what a constructor raises
        usage_error = usage_error_in(error)
        if usage_error is None:
            raise
        fail(str(usage_error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        fail(f"{error.filename or 'logs_dir'}: {error.strerror}; make room, or give another folder with --logs_dir")


def fail(message: str) -> NoReturn:
    """Print one line and leave with exit code 2."""
    if rank() == 0:
        print(f"unstall: error: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(2)


def _last(folder: Path) -> dict[str, float]:
    rows = read_metrics(folder / METRICS)
    return {name: value for name, value in (rows[-1] if rows else {}).items() if stage_of(name)}
