"""Checkpoints: which one is meant, what may be read of it, and when one is kept."""

import io
import os
import pickle
import sys
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from unstall.errors import UsageError
from unstall.runs.files import write
from unstall.runs.folder import LAST, Place, rank
from unstall.runs.metrics import logged_as


def find_and_load(place: Place, prefer: Path) -> tuple[Path | None, dict[str, Any] | None]:
    """A run's checkpoint and what it holds; where that is damaged, the newest sound one, with a line that says so.

    Args:
        place: A run, or a checkpoint, for which no other is taken.
        prefer: The checkpoint taken from a run, ``BEST`` or ``LAST``.

    Returns:
        Neither, for a run that was killed before its first.

    Raises:
        UsageError: if the checkpoint, or all of them, are damaged or hold code.
    """
    if place.checkpoint is not None:
        return place.checkpoint, load_checkpoint(place.checkpoint)
    first: UsageError | None = None
    for file in _candidates(place, prefer):
        try:
            checkpoint = load_checkpoint(file)
        except UsageError as error:
            first = first or error
            continue
        if first is not None and rank() == 0:
            print(f"{first}: {file} is taken, of {epochs_in(checkpoint)} epochs", file=sys.stderr)
        return file, checkpoint
    if first is not None:
        raise first
    return None, None


def epochs_in(checkpoint: dict[str, Any]) -> int:
    """How many epochs were finished when a checkpoint was written."""
    progress = checkpoint.get("loops", {}).get("fit_loop", {}).get("epoch_progress", {}).get("current")
    done = progress.get("processed") if isinstance(progress, dict) else None
    return done if isinstance(done, int) else int(checkpoint.get("epoch", -1)) + 1


def _candidates(place: Place, prefer: Path) -> list[Path]:
    """A run's checkpoints: the preferred one, its last, then the newest first."""
    assert place.run is not None
    folder = place.run.folder
    others = sorted(folder.glob(f"{LAST.parent}/*.ckpt"), key=lambda file: -file.stat().st_mtime)
    return [file for file in dict.fromkeys([folder / prefer, folder / LAST, *others]) if file.is_file()]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without executing anything in it.

    Raises:
        UsageError: if the file is truncated, is not a checkpoint, or holds more than tensors and plain values.
    """
    try:
        if is_zipfile(path):
            with ZipFile(path) as archive:  # which torch writes as it is, and reads compressed as well
                unpacked = sum(item.file_size for item in archive.infolist())
            if unpacked > path.stat().st_size:
                raise UsageError(
                    f"ckpt_path={path}: refused, it unpacks to {unpacked:,} bytes; take one as torch writes it"
                )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's surprise at pickles that it has not written
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"ckpt_path={path}: refused, it is no checkpoint or it holds code; nothing of it was executed; "
            "take a checkpoint that this project or plain Lightning has written"
        ) from None
    except UsageError:
        raise
    except Exception as error:  # reading arbitrary bytes as a pickle can fail in any way
        raise UsageError(
            f"ckpt_path={path}: cannot be read, truncated or damaged ({type(error).__name__}); "
            "take another checkpoint of the run"
        ) from None
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UsageError(f"ckpt_path={path}: not a Lightning checkpoint, it has no state_dict")
    return checkpoint


def check_architecture(path: Path, checkpoint: dict[str, Any], module: torch.nn.Module) -> None:
    """Refuse a checkpoint whose weights do not fit the module.

    Raises:
        UsageError: names the first weight that differs, and both shapes.
    """
    theirs = {name: tuple(tensor.shape) for name, tensor in checkpoint["state_dict"].items()}
    ours = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            raise UsageError(
                f"ckpt_path={path}: made by another architecture, {name} is {theirs.get(name, 'missing')} in the "
                f"checkpoint and {ours.get(name, 'missing')} in the model; leave out the settings of the model, "
                "the checkpoint brings its own"
            )


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning's own goes through fsspec, which writes into `TMPDIR` and copies where that is another file system: a kill
    then leaves half of a file, and a full `TMPDIR` ends a training whose own disk has room.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write it; an address such as `s3://...` is left to Lightning."""
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write(Path(path), content.getbuffer())


def moved_here(state: dict[str, Any], here: Path) -> dict[str, Any]:
    """Return the state of a `ModelCheckpoint` as if it had written into this folder, and nowhere else.

    It removes the files that its state names, once there are better ones: a checkpoint that was received could have any
    file removed, and any folder.
    """
    there = str(state.get("dirpath"))

    def moved(path: Any) -> str:
        within = os.path.relpath(str(path), there) if path and there else ""
        place = here / within
        return str(place) if within and place.resolve().is_relative_to(here.resolve()) and place.is_file() else ""

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    scores = state.get("best_k_models")
    kept = {moved(path): score for path, score in scores.items()} if isinstance(scores, dict) else {}
    kept.pop("", None)
    paths = {name: moved(state.get(name)) for name in names}
    return state | {"dirpath": str(here) if paths["best_model_path"] else there, "best_k_models": kept} | paths


class Checkpoints(ModelCheckpoint):
    """Lightning's, written whole, for what a module calls its validation loss, and for runs that go on elsewhere.

    `monitor: val/loss` also stands for `val_loss` and its like; a module that logs nothing of the kind is told so, and
    trained without. A run that goes on remembers its best loss also if its folder was moved or named differently.
    """

    _told = False

    @cached_property
    def state_key(self) -> str:
        """Which one it is, by its configuration; Lightning asks a dozen times a step, and would put it together."""
        return super().state_key

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Have checkpoints written whole, unless the trainer was given a plugin of its own for that."""
        super().setup(trainer, pl_module, stage)
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeFiles()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save within an epoch if that was asked for; Lightning looks at all else first, in every step."""
        if self._every_n_train_steps or self._train_time_interval is not None:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint, if there is something to judge it by."""
        if self.monitor is not None and self.monitor not in trainer.callback_metrics:
            name = logged_as(self.monitor, trainer.callback_metrics)
            if name is None:
                validated = (trainer.current_epoch + 1) % (trainer.check_val_every_n_epoch or 1) == 0
                if trainer.enable_validation and validated and not self._told:
                    self._told = True
                    logged = ", ".join(trainer.callback_metrics) or "nothing"
                    pl_module.print(f"No {self.filename}.ckpt is kept: no {self.monitor} is logged, but {logged}.")
                return
            self.monitor = name
        super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best loss if its checkpoint lies here; Lightning compares the folders as they were typed."""
        state_dict = moved_here(state_dict, Path(str(self.dirpath)))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            super().load_state_dict(state_dict)
