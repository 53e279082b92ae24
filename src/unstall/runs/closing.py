"""The last lines of a run: what came of it, what is to be beaten, and how to go on."""

import math
import shlex
from collections.abc import Mapping
from pathlib import Path

from unstall.runs.epochs import in_words, number
from unstall.runs.folder import BEST, CONFIG, LAST
from unstall.runs.metrics import logged_as, stage_of


def closing_words(
    rows: list[dict[str, float]],
    folder: Path,
    program: str,
    *,
    verdict: str = "",
    doubtful: bool = False,
    testable: bool = True,
    epochs: int | None = None,
    references: Mapping[str, Mapping[str, float]] | None = None,
) -> list[str]:
    """What came of a run and how to go on, a line each.

    Args:
        rows: The run's metrics, a row per epoch.
        folder: The run's folder.
        program: What to type to run this program.
        verdict: What its diagnosis says of it, in a few words.
        doubtful: Whether that is a stall, or something that a diagnosis by trials could tell.
        testable: Whether there is a test to go on with.
        epochs: To how many it should go on, if it ended too early.
        references: What is to be beaten, as far as it is known, by `loss` or `accuracy`, such as
            `{"a constant": {"loss": 2.301, "accuracy": 0.113}}`.
    """
    words = []
    names = dict.fromkeys(name for row in rows for name in row)  # not every epoch need have a validation
    loss, accuracy = (logged_as(metric, names) for metric in ("val/loss", "val/accuracy"))
    if loss is not None:
        best = min(rows, key=lambda row: row[loss] if math.isfinite(row.get(loss, math.nan)) else math.inf)
        also = f", {accuracy} {number(best[accuracy])}" if accuracy in best else ""
        words.append(f"best epoch {best['epoch'] + 1:.0f} of {len(rows)}: {loss} {number(best[loss])}{also}")
    elif rows and (measured := {name: value for name, value in rows[-1].items() if stage_of(name)}):
        words.append(f"last epoch, {rows[-1]['epoch'] + 1:.0f}: {in_words(measured)}")
    beaten = [
        f"{name} reaches {', '.join(f'{quantity} {number(value)}' for quantity, value in reached.items())}"
        for name, reached in (references or {}).items()
    ]
    if beaten:
        words.append(f"to be beaten: {'; '.join(beaten)}")
    if verdict:
        words.append(f"verdict:     {verdict}")
    if doubtful:
        words.append(f"what helps:  {program} {shlex.join(['diagnose', str(folder)])}")
        words.append(f"find a rate: {program} {shlex.join(['lr_find', '-c', str(folder / CONFIG), '--fit=true'])}")
    if epochs is not None:
        again = ["fit", f"--ckpt_path={folder}", f"--trainer.max_epochs={epochs}"]
        words.append(f"to go on:    {program} {shlex.join(again)}")
    if testable:
        checkpoint = folder / (BEST if (folder / BEST).is_file() else LAST)
        words.append(f"to test it:  {program} {shlex.join(['test', f'--ckpt_path={checkpoint}'])}")
    return words
