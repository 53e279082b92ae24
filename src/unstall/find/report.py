"""What the learning-rate finder found, for readers: files, a picture, a table, TensorBoard."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unstall.find.pick import LearningRateSearch
from unstall.runs import png, write, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table
    from torch.utils.tensorboard import SummaryWriter

OVERLAY = "lr_find.yaml"


def save(search: LearningRateSearch, run_dir: str | Path, overlay: Mapping[str, Any] | None = None) -> None:
    """Write `lr_find.json`, `.csv` and `.png`, and, if there are settings for the pick, `lr_find.yaml`.

    Args:
        search: what was found.
        run_dir: an existing folder.
        overlay: the settings that train with the pick, for `unstall fit -c CONFIG -c OVERLAY`.
    """
    run_dir, tested = Path(run_dir), search.range_test
    points = zip(tested.learning_rates, tested.losses, tested.smoothed, strict=True)
    curve = [{"learning_rate": rate, "loss": loss, "smoothed_loss": mean} for rate, loss, mean in points]
    write_json(run_dir / "lr_find.json", {**vars(search), "range_test": curve})
    write(run_dir / "lr_find.csv", _csv(search))
    write(run_dir / "lr_find.png", png(draw(search)))
    if overlay is not None:
        usable = " to ".join(f"{rate:.1e}" for rate in search.usable)
        heading = f"# Found by unstall lr_find: {search.learning_rate:.1e}; rates that train well: {usable}.\n"
        if "model" not in overlay:
            heading += "# No argument of the model moves its rate: a callback sets it when the fit starts.\n"
        write(run_dir / OVERLAY, heading + yaml.safe_dump(dict(overlay), sort_keys=False))


def draw(search: LearningRateSearch) -> Figure:
    """Both curves over the rate; no window and no global state of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    tested = search.range_test
    axes.plot(tested.learning_rates, tested.losses, ".", color="0.75", markersize=3)
    axes.plot(tested.learning_rates, tested.smoothed, color="0.5", label="range test: loss while the rate rises")
    alive = [rate for rate in search.race if not rate.diverged]
    axes.plot(
        [rate.learning_rate for rate in alive],
        [rate.expected_loss for rate in alive],
        "o-",
        color="C0",
        label="race: loss of constant rates",
    )
    for rate in alive:
        note = f"{len(rate.losses)}"
        axes.annotate(note, (rate.learning_rate, rate.expected_loss), (0, 6), textcoords="offset points", fontsize=7)
    axes.axvspan(*search.usable, color="C2", alpha=0.15, label="trains well")
    axes.axvline(search.learning_rate, color="C2", label=f"pick {search.learning_rate:.1e}")
    if search.learning_rate < search.leader:
        axes.axvline(search.leader, color="C0", linestyle=":", label=f"won, with {search.noise:.0%} of its loss noise")
    if search.lightning_suggestion is not None:
        label = f"Lightning's suggestion {search.lightning_suggestion:.1e}"
        axes.axvline(search.lightning_suggestion, color="C1", linestyle="--", label=label)
    if search.diverges_at is not None:
        axes.axvline(search.diverges_at, color="C3", linestyle=":", label=f"diverges at {search.diverges_at:.1e}")
    losses = [*tested.smoothed, *(rate.expected_loss for rate in alive)]
    axes.set_xscale("log")
    if min(losses) > 0:  # a likelihood's logarithm need not be
        axes.set_ylim(0.8 * min(losses), 2 * max(tested.losses[0], *(rate.expected_loss for rate in alive)))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss (beside the points: steps raced)")
    axes.legend(fontsize=8)
    return figure


def table(search: LearningRateSearch) -> Table:
    """The race and the pick, for the terminal."""
    from rich.table import Table

    rows = Table(title="The same weights, the same batches")
    for name in ("learning rate", "steps", "expected loss", ""):
        rows.add_column(name, justify="left" if not name else "right")
    low, high = search.usable
    if search.learning_rate not in [rate.learning_rate for rate in search.race]:
        rows.add_row(f"{search.learning_rate:.1e}", "0", "-", "picked", style="bold green")
    remarks = {search.leader: "led", search.learning_rate: "picked"}
    for rate in search.race:
        remark = "diverges" if rate.diverged else "trains well" if low <= rate.learning_rate <= high else ""
        remark = remarks.get(rate.learning_rate, remark)
        loss = "-" if math.isinf(rate.expected_loss) else f"{rate.expected_loss:.3f}"
        style = "bold green" if remark == "picked" else None
        rows.add_row(f"{rate.learning_rate:.1e}", str(len(rate.losses)), loss, remark, style=style)
    suggestion, diverges = search.lightning_suggestion, search.diverges_at
    rows.caption = (
        f"Lightning's own suggestion: {'none' if suggestion is None else f'{suggestion:.1e}'}; "
        f"diverges at: {'not seen' if diverges is None else f'{diverges:.1e}'}"
    )
    if search.learning_rate < search.leader:
        noise = f"{search.noise:.0%} of the loss is noise, which the whole fit would feel"
        rows.caption = f"At {search.leader:.1e}, {noise}. {rows.caption}"
    return rows


def show(search: LearningRateSearch, writer: SummaryWriter) -> None:
    """Add the picture and both curves to TensorBoard; the step of a scalar is 1000 log10 of the rate."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(draw(search))
    canvas.draw()  # type: ignore[no-untyped-call]
    picture = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    writer.add_image("lr_find", picture[..., :3], dataformats="HWC")
    tested = search.range_test
    curves: dict[str, list[tuple[float, float]]] = {
        "range_test": list(zip(tested.learning_rates, tested.smoothed, strict=True)),
        "race": [(rate.learning_rate, rate.expected_loss) for rate in search.race if math.isfinite(rate.expected_loss)],
    }
    for name, points in curves.items():
        for rate, loss in points:
            writer.add_scalar(f"lr_find/{name}_loss_over_1000_log10_rate", loss, round(1000 * math.log10(rate)))
    writer.add_text("lr_find", f"picked **{search.learning_rate:.1e}**, usable {search.usable}")
    writer.flush()


def _csv(search: LearningRateSearch) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["curve", "learning_rate", "step", "loss"])
    tested = search.range_test
    for step, (rate, loss) in enumerate(zip(tested.learning_rates, tested.losses, strict=True)):
        rows.writerow(["range_test", rate, step, loss])
    for raced in search.race:
        rows.writerows(["race", raced.learning_rate, step, loss] for step, loss in enumerate(raced.losses))
    return text.getvalue()
