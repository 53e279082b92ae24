"""What a run leaves behind.

In: Lightning's hooks and what a module logs. Out: a folder with checkpoints, tables, curves and pictures, and the way
back into it. The question: *where is it, and what came of it?*
"""

from unstall.runs.checkpoints import Checkpoints, check_architecture, epochs_in, find_and_load
from unstall.runs.closing import closing_words
from unstall.runs.curves import Curves
from unstall.runs.epochs import EpochLines, in_words, number, ordered
from unstall.runs.files import as_json, scratch_folder, write, write_json
from unstall.runs.folder import (
    BEST,
    CONFIG,
    LAST,
    Run,
    RunLogger,
    check_writable,
    expanded,
    locate,
    log_dir,
    newest_checkpoint,
    newest_run,
    rank,
    such_as,
)
from unstall.runs.glance import GLANCE, draw_over_epochs
from unstall.runs.history import METRICS, History, last_metrics, read_metrics
from unstall.runs.hyperparameters import HPARAMS, PLACES
from unstall.runs.lock import Lock
from unstall.runs.means import Mean
from unstall.runs.metrics import logged_as, quantity_of, stage_of
from unstall.runs.outcomes import Mistakes, Predictions
from unstall.runs.pictures import Figure, png, training_curves
from unstall.runs.resumption import Resumption

__all__ = [
    "BEST",
    "CONFIG",
    "GLANCE",
    "HPARAMS",
    "LAST",
    "METRICS",
    "PLACES",
    "Checkpoints",
    "Curves",
    "EpochLines",
    "Figure",
    "History",
    "Lock",
    "Mean",
    "Mistakes",
    "Predictions",
    "Resumption",
    "Run",
    "RunLogger",
    "as_json",
    "check_architecture",
    "check_writable",
    "closing_words",
    "draw_over_epochs",
    "epochs_in",
    "expanded",
    "find_and_load",
    "in_words",
    "last_metrics",
    "locate",
    "log_dir",
    "logged_as",
    "newest_checkpoint",
    "newest_run",
    "number",
    "ordered",
    "png",
    "quantity_of",
    "rank",
    "read_metrics",
    "scratch_folder",
    "stage_of",
    "such_as",
    "training_curves",
    "write",
    "write_json",
]
