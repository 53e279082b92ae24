"""What a training ends with: the result, what is to be beaten, the verdict, and what to type next."""

import math
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from unstall.causes import Fault
from unstall.cli.display import program
from unstall.runs import BEST, LAST, METRICS, closing_words, read_metrics
from unstall.watch import Cause, Diagnosis, LinearBaseline, Verdict


def last_words(
    trainer: pl.Trainer, module: pl.LightningModule, data: pl.LightningDataModule | None, folder: Path | None
) -> list[str]:
    """Return the last lines of a training; of a rehearsal, that nothing is there to go on with.

    Args:
        trainer: That has fitted.
        module: What was trained.
        data: On what.
        folder: Of the run; None for a rehearsal, which has none.
    """
    settings = vars(trainer)  # Lightning sets them without declaring them
    if settings["fast_dev_run"]:
        batches = int(settings["fast_dev_run"])
        return [
            f"fast_dev_run={batches}: all that was asked for ran; nothing is kept, and so few steps tell no verdict"
        ]
    assert folder is not None
    rows = read_metrics(folder / METRICS)
    watch = next((callback for callback in settings["callbacks"] if isinstance(callback, Diagnosis)), None)
    verdict = None if watch is None else watch.verdict
    kept = any((folder / file).is_file() for file in (BEST, LAST))
    testable = kept and is_overridden("test_step", module) and (data is None or is_overridden("test_dataloader", data))
    words = closing_words(
        rows,
        folder,
        program(),
        verdict=_in_short(verdict),
        doubtful=verdict is not None and (verdict.stalled or (verdict.cause == Cause.UNSURE and bool(verdict.remedy))),
        testable=testable,
        epochs=_epochs_to_come(trainer, verdict),
        references=_references(trainer, rows, watch),
    )
    return [*words, str(folder)]


def _epochs_to_come(trainer: pl.Trainer, verdict: Verdict | None) -> int | None:
    """To how many epochs a run should go on that ended too early."""
    early = verdict is not None and isinstance(verdict.cause, Fault) and verdict.cause.mend == "longer"
    return 2 * trainer.max_epochs if early and (trainer.max_epochs or -1) > 0 else None  # type: ignore[operator]


def _in_short(verdict: Verdict | None) -> str:
    if verdict is None:
        return ""
    return "unsure" if verdict.cause == Cause.UNSURE else f"{verdict.cause.value} ({verdict.confidence:.0%} sure)"


def _references(
    trainer: pl.Trainer, rows: list[dict[str, float]], watch: Diagnosis | None
) -> dict[str, dict[str, float]]:
    """What the best constant prediction comes to, and a linear model, as far as what was seen in training says."""
    known = rows[-1] if rows else {}
    loss = known.get("prior_loss") if watch is None or watch.meter is None else watch.meter.losses.read().baseline
    found = {"loss": loss, "accuracy": known.get("chance_accuracy")}
    reached = {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
    references = {"always the best constant": reached} if reached else {}
    baseline = next((part for part in vars(trainer)["callbacks"] if isinstance(part, LinearBaseline)), None)
    observed = None if watch is None else watch.observation
    linear = None if baseline is None or observed is None else baseline.reached(observed.reference)
    return references if linear is None else references | {f"a linear model of {linear[0]} samples": linear[1]}
