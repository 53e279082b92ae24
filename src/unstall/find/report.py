"""What the learning-rate finder found, for readers: files, a picture, a table, TensorBoard."""

from __future__ import annotations

import csv
import io
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from unstall.find.pick import LearningRateSearch
from unstall.find.words import answer, explanation, is_configured, range_of, reason_for
from unstall.runs import png, write, write_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table
    from torch.utils.tensorboard import SummaryWriter

OVERLAY = "lr_find.yaml"
RANGE_TEST = "range test: loss (· of a step) while the rate rises"


def picture(search: LearningRateSearch) -> bytes:
    """Both curves over the rate, as a PNG file. To lay it out takes as long as a hundred steps: draw it once."""
    return png(draw(search))


def save(
    search: LearningRateSearch, run_dir: str | Path, drawn: bytes, overlay: Mapping[str, Any] | None = None
) -> None:
    """Write `lr_find.json`, `.csv` and `.png`, and, if there are settings for the pick, `lr_find.yaml`.

    Args:
        search: what was found.
        run_dir: an existing folder.
        drawn: its `picture`.
        overlay: the settings that train with the pick, for `unstall fit -c CONFIG -c OVERLAY`.
    """
    run_dir, tested = Path(run_dir), search.range_test
    points = zip(tested.learning_rates, tested.losses, tested.smoothed, strict=True)
    curve = [{"learning_rate": rate, "loss": loss, "smoothed_loss": mean} for rate, loss, mean in points]
    write_json(run_dir / "lr_find.json", {**vars(search), "range_test": curve})
    write(run_dir / "lr_find.csv", _csv(search))
    write(run_dir / "lr_find.png", drawn)
    if overlay is not None:
        usable = " to ".join(f"{rate:.1e}" for rate in search.usable)
        heading = f"# Found by unstall lr_find: {search.learning_rate:.1e}; rates that train well: {usable}.\n"
        if "model" not in overlay:
            heading += "# No argument of the model moves its rate: a callback sets it when the fit starts.\n"
        write(run_dir / OVERLAY, heading + yaml.safe_dump(dict(overlay), sort_keys=False))


def draw(search: LearningRateSearch) -> Figure:
    """Both curves over the rate; no window and no global state of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    axes = figure.subplots()
    alive = [rate for rate in search.race if not rate.diverged]
    longest = max(len(rate.losses) for rate in alive)
    low, high = _window(search)
    tested = search.range_test
    points = zip(tested.learning_rates, tested.losses, tested.smoothed, strict=True)
    inside = [point for point in points if low <= point[0] <= high]
    axes.plot([x for x, _, _ in inside], [y for _, y, _ in inside], ".", color="0.75", markersize=4)
    axes.plot([x for x, _, _ in inside], [y for _, _, y in inside], color="0.5", label=RANGE_TEST)
    axes.plot([rate.learning_rate for rate in alive], [rate.expected_loss for rate in alive], color="C0", alpha=0.5)
    for finalist, face, words in (True, "C0", "to the end"), (False, "white", "until dropped"):
        some = [rate for rate in alive if (len(rate.losses) == longest) == finalist]
        rates, losses = [rate.learning_rate for rate in some], [rate.expected_loss for rate in some]
        if some:
            label = f"race: loss at a constant rate, {words}"
            axes.plot(rates, losses, "o", color="C0", markerfacecolor=face, markersize=7, label=label)
    axes.axvspan(*search.usable, color="C2", alpha=0.15, label="trains well")
    axes.axvline(search.learning_rate, color="C2", linewidth=2.5, label="picked")
    if search.learning_rate < search.leader:
        axes.axvline(search.leader, color="C0", linestyle="--", label="won the race")
    marks = (
        (search.configured, "0.2", "configured"),
        (search.lightning_suggestion, "C1", "Lightning's own suggestion"),
        (search.diverges_at, "C3", "diverges from here on"),
    )
    for value, colour, words in marks:
        if value is None or (words == "configured" and is_configured(search.learning_rate, search)):
            continue
        if low <= value <= high:
            label = words if words == "configured" else f"{words}: {value:.1e}"  # which the heading names
            axes.axvline(value, color=colour, linestyle=":", linewidth=2, label=label)
        else:
            side = "left" if value < low else "right"
            axes.plot([], [], " ", label=f"{words}: {value:.1e}, off to the {side}")
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    if search.diverges_at is not None and search.diverges_at < high:
        axes.axvspan(search.diverges_at, high, color="C3", alpha=0.08)
    losses = [*(mean for _, _, mean in inside), *(rate.expected_loss for rate in alive)]
    if min(losses) > 0:  # a likelihood's logarithm need not be
        axes.set_ylim(0.8 * min(losses), 2 * max(tested.losses[0], *(rate.expected_loss for rate in alive)))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="y", which="minor", labelsize=7)
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.set_title("\n".join(textwrap.wrap(". ".join(explanation(search)), 110)), fontsize=8, loc="left")
    figure.suptitle(answer(search), fontsize=13, fontweight="bold")
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    return figure


def _window(search: LearningRateSearch) -> tuple[float, float]:
    """The rates to draw: those that raced, and where it diverges, if that is near."""
    raced = [rate.learning_rate for rate in search.race]
    highest = max([*raced, *([search.diverges_at] if search.diverges_at is not None else [])])
    return min([*raced, search.learning_rate]) / 2, min(highest, 10 * max(raced)) * 2


def table(search: LearningRateSearch) -> Table:
    """The race and the pick, for the terminal."""
    from rich.table import Table

    rows = Table(title="Constant rates, raced from the same weights on the same batches", title_style="")
    rows.add_column("learning rate", justify="right", no_wrap=True)
    rows.add_column("loss", justify="right", no_wrap=True)
    rows.add_column("why")
    if search.learning_rate not in [rate.learning_rate for rate in search.race]:
        why = "picked: did not race, but is the best for the whole fit by what was measured"
        rows.add_row(f"{search.learning_rate:.1e}", "-", why, style="bold green")
    for rate in search.race:
        loss = "-" if math.isinf(rate.expected_loss) else f"{rate.expected_loss:.3f}"
        style = "bold green" if rate.learning_rate == search.learning_rate else None
        rows.add_row(f"{rate.learning_rate:.1e}", loss, reason_for(rate, search), style=style)
    suggestion, diverges = search.lightning_suggestion, search.diverges_at
    said = [*explanation(search), f"Rates that train well: {range_of(search)}"]
    if diverges is not None and diverges not in [rate.learning_rate for rate in search.race]:
        said.append(f"While its rate rose, the range test diverged at {diverges:.1e}")
    said.append(f"Lightning's own suggestion: {'none' if suggestion is None else f'{suggestion:.1e}'}")
    rows.caption, rows.caption_justify = "\n".join(f"{sentence}." for sentence in said), "left"
    return rows


def show(search: LearningRateSearch, writer: SummaryWriter, drawn: bytes) -> None:
    """Add its `picture` and both curves to TensorBoard; the step of a scalar is 1000 log10 of the rate."""
    import numpy as np
    from PIL import Image

    with Image.open(io.BytesIO(drawn)) as image:
        writer.add_image("lr_find", np.asarray(image.convert("RGB")), dataformats="HWC")
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
