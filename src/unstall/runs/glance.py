"""What is looked at first: a run over its epochs, on one page of TensorBoard."""

import math
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger

from unstall.runs.files import write
from unstall.runs.metrics import logged_as, stage_of, words_of

GLANCE = "at_a_glance"
"""TensorBoard sorts by name: nothing usual comes before this."""

MOST = 2.0
"""Times the best constant's loss above which a loss is drawn there: how far above does not matter, and one run that
diverges would press all others onto the axis."""

NAMED = {"train/loss": 1, "val/loss": 2, "train/accuracy": 3, "val/accuracy": 4}
"""The number by which TensorBoard sorts the curve."""


OVER = {"prior_loss": ("_over_prior", "the class prior's"), "constant_loss": ("_over_constant", "the best constant's")}
"""What a loss is drawn over, the first that is known: how its curve is called, and in words."""


def curves_of(names: Iterable[str], over: str = "") -> dict[str, str]:
    """Return the curve over epochs of each metric of a run, by the metric's name.

    Args:
        names: What was logged; losses and accuracies are found by whatever name, other metrics keep theirs.
        over: What the curve of a loss has at its end, as in `OVER`.
    """
    names, curves = list(names), {}
    for metric, number in NAMED.items():
        name = logged_as(metric, names)
        if name is not None:
            end = over if metric.endswith("loss") else ""
            curves[name] = f"{GLANCE}/{number}_{metric.replace('/', '_')}{end}"
    seen = {tuple(words_of(name)) for name in curves}  # Lightning keeps `train_loss` and `train_loss_epoch`
    for name in names:
        if stage_of(name) and tuple(words_of(name)) not in seen:
            seen.add(tuple(words_of(name)))
            curves[name] = f"{GLANCE}/5_{name.replace('/', '_')}"
    return curves


def title_of(curve: str) -> str:
    """Return a curve's name for readers: `validation loss over prior (at most 2)` of `at_a_glance/2_val_loss_...`."""
    words = curve.removeprefix(f"{GLANCE}/").split("_")[1:]
    longer = {"train": "training", "val": "validation"}
    title = " ".join(longer.get(word, word) for word in words)
    for end, said in OVER.values():
        title = title.replace(end.replace("_", " "), f" over {said} (at most {MOST:g})")
    return title


def points_of(row: Mapping[str, float], learning_rate: float | None = None) -> dict[str, float]:
    """Return an epoch's points: losses over the best constant's where that is known, at most twice it.

    Args:
        row: The epoch's metrics, and `prior_loss` (nats) or `constant_loss`.
        learning_rate: The rate of the epoch's last step.
    """
    level = next((name for name in OVER if row.get(name)), None)
    over = "" if level is None else OVER[level][0]
    points = {}
    for name, curve in curves_of(row, over).items():
        value = row[name]
        if level is not None and curve.endswith(over):
            value = min(value / row[level], MOST) if math.isfinite(value) else MOST
        points[curve] = value
    if learning_rate is not None and learning_rate > 0:  # a schedule may go below zero
        points[f"{GLANCE}/6_log10_learning_rate"] = math.log10(learning_rate)
    return points


def draw_over_epochs(trainer: pl.Trainer, points: Mapping[str, float]) -> None:
    """Draw points at the number of epochs so far, the current one included, and write them to the disk."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_metrics(dict(points), step=trainer.current_epoch + 1)
            if trainer.is_global_zero:
                logger.experiment.flush()


def forget_epochs(trainer: pl.Trainer) -> None:
    """Take out of a run's event files what was drawn of epochs that it is about to go through again.

    TensorBoard's own way, `purge_step`, is for curves over optimizer steps, which are larger numbers.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
            for file in Path(logger.log_dir).glob("events.out.tfevents.*"):
                records = list(_records_in(file.read_bytes()))
                kept = [record for record in records if _epoch_of(record) <= trainer.current_epoch]
                if len(kept) < len(records):
                    logger.experiment.close()  # it may be the file; the next point opens another
                    write(file, b"".join(kept))


def _records_in(content: bytes) -> Iterator[bytes]:
    """Return an event file's records: eight bytes of length, four to check it, an event, and four to check that.

    The last one of a process that was killed may be cut off.
    """
    start = 0
    while start + 12 <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        end = start + 12 + length + 4
        if end > len(content):
            break
        yield content[start:end]
        start = end


def _epoch_of(record: bytes) -> int:
    """Return the epoch that a record's point is drawn at; 0 of all that is not over epochs."""
    from tensorboard.compat.proto.event_pb2 import Event  # type: ignore[import-untyped]

    try:
        event = Event.FromString(record[12:-4])
    except Exception:  # damaged, of which protobuf tells in its own ways: left to TensorBoard
        return 0
    return int(event.step) if any(value.tag.startswith(f"{GLANCE}/") for value in event.summary.value) else 0
