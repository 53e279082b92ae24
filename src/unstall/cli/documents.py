"""What a command came to as one JSON document (`--format=json`): its schema is in docs/json.md."""

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.model_helpers import is_overridden

from unstall.cli.parser import options
from unstall.runs import BEST, LAST, as_json, ordered
from unstall.watch import Diagnosis

if TYPE_CHECKING:
    from unstall.find import LearningRateSearch
    from unstall.forks import Report

Document = dict[str, Any]
Say = Callable[[Mapping[str, Any]], None]


def is_asked_for(args: list[str]) -> bool:
    """Whether a command line ends in a document."""
    return options(args, "--format")[-1:] == ["json"]


@contextlib.contextmanager
def alone_on_stdout() -> Iterator[Say]:
    """Send all that is printed to standard error, also by processes that are started; yield what writes the document.

    In the end it is all that standard output has got.
    """
    documents: list[Mapping[str, Any]] = []
    sys.stdout.flush()
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a shell has closed one of them
            kept = os.dup(1)
            stack.callback(os.close, kept)
            os.dup2(2, 1)
            stack.callback(os.dup2, kept, 1)
        try:
            with redirect_stdout(sys.stderr):
                yield documents.append
        finally:
            stack.close()
            for document in documents[-1:]:
                print(json.dumps(as_json(document), indent=2))


def of_fit(trainer: pl.Trainer, folder: Path | None) -> Document:
    """Return what a training came to: the last metrics, the verdict of its own callback, the best checkpoint."""
    watch = next((part for part in vars(trainer)["callbacks"] if isinstance(part, Diagnosis)), None)
    verdict = None if watch is None or watch.verdict is None else watch.verdict
    checkpoint = next((folder / file for file in (BEST, LAST) if (folder / file).is_file()), None) if folder else None
    testable = checkpoint is not None and is_overridden("test_step", trainer.lightning_module)
    next_command = ["test", f"--ckpt_path={checkpoint}"] if testable else []
    if verdict is not None and verdict.stalled and folder is not None:
        next_command = ["diagnose", str(folder)]
    return {
        **_common("fit", folder, next_command),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "metrics": _metrics(trainer),
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "verdict": None
        if verdict is None
        else {
            "cause": verdict.cause,
            "confidence": verdict.confidence,
            "stalled": verdict.stalled,
            "sentence": verdict.sentence,
            "remedy": verdict.remedy,
        },
    }


def of_evaluation(command: str, trainer: pl.Trainer, folder: Path | None, checkpoint: str) -> Document:
    """Return what `validate` or `test` measured; of `predict`, where its table is."""
    table = None if folder is None else folder / "predictions.csv"
    return {
        **_common(command, folder, []),
        "checkpoint": checkpoint,
        "metrics": _metrics(trainer),
        "predictions": str(table) if table is not None and command == "predict" and table.is_file() else None,
    }


def of_search(
    search: "LearningRateSearch", overlay: Mapping[str, Any] | None, folder: Path | None, next_command: list[str]
) -> Document:
    """Return what the finder found; its curves are in `lr_find.json` of the run."""
    from unstall.find import explanation, reason_for

    return {
        **_common("lr_find", folder, next_command),
        "learning_rate": search.learning_rate,
        "explanation": explanation(search),
        "usable": search.usable,
        "leader": search.leader,
        "noise": search.noise,
        "diverges_at": search.diverges_at,
        "configured": search.configured,
        "fit_steps": search.fit_steps,
        "lightning_suggestion": search.lightning_suggestion,
        "race": [
            {
                "learning_rate": rate.learning_rate,
                "steps": len(rate.losses),
                "loss": rate.expected_loss,
                "diverged": rate.diverged,
                "why": reason_for(rate, search),
            }
            for rate in search.race
        ],
        "overlay": overlay,
    }


def of_diagnosis(
    report: "Report", folder: Path, next_command: list[str], verified: Mapping[str, Any] | None
) -> Document:
    """Return what `diagnosis.json` says, but for the signals."""
    from unstall.forks import content_of

    return {**_common("diagnose", folder, next_command), **content_of(report, verified)}


def _common(command: str, folder: Path | None, next_command: list[str]) -> Document:
    return {
        "command": command,
        "run": None if folder is None else str(folder),
        "next": shlex.join(["unstall", *next_command]) if next_command else None,
    }


def _metrics(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in ordered(trainer.callback_metrics).items()}
