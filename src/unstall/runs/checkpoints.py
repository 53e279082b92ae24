"""Checkpoints: which one is meant, what may be read of it, and when one is kept."""

import pickle
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from unstall.errors import UsageError
from unstall.runs.folder import BEST, CONFIG, LAST, newest_checkpoint
from unstall.runs.metrics import logged_as


def find_checkpoint(path: str, prefer: Path) -> Path | None:
    """The checkpoint file meant by a file or a run folder; ``None`` for a run that was killed before its first.

    Args:
        path: A checkpoint, or a run folder.
        prefer: The checkpoint taken from a run folder, ``BEST`` or ``LAST``.

    Raises:
        UsageError: if there is no such file or folder, or if the folder is not a run.
    """
    place = Path(path)
    if place.is_file():
        return place
    if not place.is_dir():
        raise UsageError(
            f"ckpt_path={path}: no such file; give a checkpoint or a run folder, such as {newest_checkpoint()}"
        )
    for candidate in (prefer, LAST):
        if (place / candidate).is_file():
            return place / candidate
    if (place / CONFIG).is_file():
        return None
    raise UsageError(f"ckpt_path={path}: not a run folder, it holds neither {CONFIG} nor {LAST}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint without executing anything in it.

    Raises:
        UsageError: if the file is truncated, is not a checkpoint, or holds more than tensors and plain values.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's surprise at pickles that it has not written
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(
            f"ckpt_path={path}: refused, it is no checkpoint or it holds code; nothing of it was executed; "
            "take a checkpoint that this project or plain Lightning has written"
        ) from None
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


class Checkpoints(ModelCheckpoint):
    """Lightning's, for what a module calls its validation loss, and for runs that go on in another folder.

    `monitor: val/loss` also stands for `val_loss` and its like; a module that logs nothing of the kind is told so, and
    trained without. A run that goes on remembers its best loss also if its folder was moved or named differently.
    """

    _told = False

    @cached_property
    def state_key(self) -> str:
        """Which one it is, by its configuration; Lightning asks a dozen times a step, and would put it together."""
        return super().state_key

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the checkpoint, if there is something to judge it by."""
        if self.monitor is not None and self.monitor not in trainer.callback_metrics:
            name = logged_as(self.monitor, trainer.callback_metrics)
            if name is None:
                if trainer.enable_validation and not self._told:
                    self._told = True
                    logged = ", ".join(trainer.callback_metrics) or "nothing"
                    pl_module.print(f"No {self.filename}.ckpt is kept: no {self.monitor} is logged, but {logged}.")
                return
            self.monitor = name
        super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best loss if its checkpoint lies here; Lightning compares the folders as they were typed."""
        there, here = str(state_dict["dirpath"]), str(self.dirpath)
        if Path(here, BEST.name).is_file():
            names = ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path")
            scores = state_dict["best_k_models"]
            state_dict = state_dict | {name: str(state_dict[name]).replace(there, here, 1) for name in names}
            state_dict["best_k_models"] = {path.replace(there, here, 1): scores[path] for path in scores}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The dirpath has changed")
            super().load_state_dict(state_dict)
