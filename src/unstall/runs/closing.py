"""The last lines of a run: what came of it, and how to go on."""

import math
from pathlib import Path

from unstall.runs.folder import BEST, CONFIG, LAST
from unstall.runs.metrics import logged_as


def closing_words(
    rows: list[dict[str, float]], folder: Path, program: str, stalled: bool = False, testable: bool = True
) -> list[str]:
    """What came of a run and how to go on, a line each.

    Args:
        rows: The run's metrics, a row per epoch.
        folder: The run's folder.
        program: What to type to run this program.
        stalled: Whether the run's diagnosis says that it stalled.
        testable: Whether there is a test to go on with.
    """
    words = []
    names = dict.fromkeys(name for row in rows for name in row)  # not every epoch need have a validation
    loss, accuracy = (logged_as(metric, names) for metric in ("val/loss", "val/accuracy"))
    if loss is not None:
        best = min(rows, key=lambda row: row[loss] if math.isfinite(row.get(loss, math.nan)) else math.inf)
        also = f", {accuracy} {best[accuracy]:.4f}" if accuracy in best else ""
        words.append(f"best epoch {best['epoch'] + 1:.0f} of {len(rows)}: {loss} {best[loss]:.4f}{also}")
    if stalled:
        words.append(f"what helps:  {program} diagnose {folder}")
        words.append(f"find a rate: {program} lr_find -c {folder / CONFIG} --fit=true")
    if testable:
        checkpoint = folder / (BEST if (folder / BEST).is_file() else LAST)
        words.append(f"to test it:  {program} test --ckpt_path={checkpoint}")
    return words
