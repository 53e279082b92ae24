"""What a diagnosis leaves behind: a table, `diagnosis.json`, `fix.yaml`, and a picture of the forks."""

import json
import math
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unstall.errors import UsageError
from unstall.forks.tried import Fork, Report
from unstall.runs import CONFIG, png, write, write_json
from unstall.trials import MATTERS, Score
from unstall.watch import Signals

VERDICT, FIX, PICTURE = "diagnosis.json", "fix.yaml", "diagnosis.png"


def read_signals(folder: Path) -> Signals | None:
    """Return the signals that the run's own callback left in `diagnosis.json`; None if it left none.

    Raises:
        UsageError: if the file is there but damaged.
    """
    file = folder / VERDICT
    if not file.exists():
        return None
    try:
        known = json.loads(file.read_text()).get("signals")
        if known is None:
            return None
        if not all(value is None or isinstance(value, (int, float)) for value in known.values()):
            raise TypeError("a signal is a number")
        return Signals(**known)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UsageError(f"{file}: not a diagnosis of this version; delete it and diagnose again") from None


def write_report(
    folder: Path, report: Report, signals: Signals | None = None, verified: Mapping[str, Any] | None = None
) -> None:
    """Write `diagnosis.json`, `diagnosis.png` and, if a change with a setting helps, `fix.yaml`.

    Args:
        folder: The run's folder.
        report: What `fork` returned.
        signals: What the run's own callback measured; kept in the file for the next diagnosis.
        verified: What a full run with the fix came to, such as
            `{"original": {"val/accuracy": 0.2}, "fixed": {"val/accuracy": 0.97}, "run": "logs/..."}`.
    """
    fix = report.fix.overlay if report.fix is not None else None
    if report.fix is not None and fix is not None:
        _write_fix(folder, report.fix, fix)
    else:
        (folder / FIX).unlink(missing_ok=True)  # an earlier diagnosis may have found one
    write(folder / PICTURE, png(picture(report)))
    write_json(folder / VERDICT, {**content_of(report, verified), "signals": signals})


def content_of(report: Report, verified: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a report as nested dictionaries without the signals; the arguments are those of `write_report`."""
    fix = report.fix.overlay if report.fix is not None else None
    verdict = report.verdict
    return {
        "cause": verdict.cause,
        "confidence": verdict.confidence,
        "runner_up": verdict.runner_up,
        "evidence": verdict.evidence,
        "forks": [
            {
                "change": fork.change,
                "loss_before": fork.before.loss,
                "loss_after": fork.after.loss,
                "accuracy_before": fork.before.accuracy,
                "accuracy_after": fork.after.accuracy,
            }
            for fork in report.forks
        ],
        "fix": fix,
        "verified": verified,
        "sentence": verdict.sentence,
        "remedy": report.fix.change if report.fix is not None else verdict.remedy,
        "open_question": report.open_question,
        "references": dict(report.references),
        "findings": [{"fault": each.fault, "sentence": each.where, "remedy": each.change} for each in report.findings],
        "step": verdict.step,
    }


def command(folder: Path, report: Report) -> list[str]:
    """Return the words of the command that trains with the fix; none if there is no setting to change."""
    if report.fix is None or report.fix.overlay is None:
        return []
    return ["fit", "-c", str(folder / CONFIG), "-c", str(folder / FIX)]


def rows_of(report: Report) -> list[tuple[str, Fork]]:
    """Return what is shown of the forks: a name and the fork; those that say the same are one row.

    A short trial goes without saying where the same change had a longer one. Learning rates that were tried alike and
    do not help are named together, with what the best of them came to.
    """
    changes = {fork.change for fork in report.forks}
    shown = [fork for fork in report.forks if re.sub(r", \d+ steps$", "", fork.change) not in changes - {fork.change}]
    groups: dict[object, list[tuple[str, Fork]]] = {}
    for fork in shown:
        rate = re.match(r"learning rate (\S+?)(?=,|$| from)", fork.change)
        if rate is None or fork.helps:
            groups[len(groups)] = [("", fork)]
        else:
            groups.setdefault((fork.change[rate.end() :], fork.before), []).append((rate[1], fork))
    rows = []
    for alike in groups.values():
        best = min(alike, key=lambda each: (-(each[1].after.accuracy or 0), each[1].after.loss))
        rates = ", ".join(rate for rate, _ in alike)
        name = best[1].change.replace(f"rate {best[0]}", f"rate {rates}", 1) + f" (best: {best[0]})"
        rows.append((name if len(alike) > 1 else best[1].change, best[1]))
    return rows


def table(report: Report) -> str:
    """Return the forks as a plain table "change, loss before, loss after"; those that help are marked.

    Accuracies stand beside the losses if the module's `training_step` logs any.
    """
    rows = rows_of(report)
    scores = [(fork.before, fork.after) for _, fork in rows]
    columns = {"loss before": [_number(before.loss) for before, _ in scores]}
    columns["loss after"] = [_number(after.loss) for _, after in scores]
    if any(score.accuracy is not None for pair in scores for score in pair):
        columns["accuracy before"] = [_share(before.accuracy) for before, _ in scores]
        columns["accuracy after"] = [_share(after.accuracy) for _, after in scores]
    width = max(map(len, ["change", *(name for name, _ in rows)]))
    lines = ["  ".join([f"{'change':{width}}", *columns])]
    for row, (change, tried) in enumerate(rows):
        cells = [f"{values[row]:>{len(name)}}" for name, values in columns.items()]
        lines.append("  ".join([f"{change:{width}}", *cells]) + _mark(tried, report))
    return "\n".join(lines)


def summary(folder: Path, report: Report, program: str = "unstall") -> str:
    """Return what the terminal shows: sentence, evidence, table, fix, command, and what is left open.

    Args:
        folder: The run's.
        report: On it.
        program: What to type to run this program.
    """
    verdict = report.verdict
    lines = [f"{verdict.cause.value} ({verdict.confidence:.0%} sure): {verdict.sentence}."]
    if verdict.runner_up is not None:
        lines.append(f"Next most likely: {verdict.runner_up.value}.")
    lines += [f"  {e.signal} = {e.value:.4g} (threshold {e.threshold:.4g})" for e in verdict.evidence]
    lines += ["", table(report), ""] if report.forks else []
    if report.references:
        beaten = ", ".join(f"{name} {reached:.3g}" for name, reached in report.references.items())
        lines.append(f"To be beaten, in accuracy (each class counts alike) or in variance explained: {beaten}.")
    if report.open_question:
        lines.append(f"Left open: {report.open_question}.")
    take = command(folder, report)
    if not report.forks:
        lines.append(f"What to do: {verdict.remedy}.")
    elif report.fix is None:
        lines.append(f"No change helped{': ' + verdict.remedy if verdict.remedy else ''}.")
    else:
        lines.append(f"Smallest change that helps: {report.fix.change}.")
    if take:
        lines.append(f"Take it:\n  {program} {shlex.join(take)}")
    return "\n".join(lines)


def show(report: Report, folder: Path) -> None:
    """Add the picture and the summary to the run's TensorBoard."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), filename_suffix=".diagnosis") as writer:
        writer.add_figure("diagnosis/forks", picture(report), report.verdict.step)
        text = summary(folder, report)
        writer.add_text("diagnosis", f"```\n{text}\n```", report.verdict.step)


def picture(report: Report) -> Any:
    """Return the figure: a line per change, from what the run came to without it to what it came to with it."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows, by_accuracy = rows_of(report)[::-1], accuracy_decides(report)
    figure = Figure(figsize=(8, 1.9 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()

    def value(score: Score) -> float | None:
        return score.accuracy if by_accuracy else score.loss if math.isfinite(score.loss) else None

    values = [found for _, fork in rows for found in map(value, (fork.before, fork.after)) if found is not None]
    worst = 0.0 if by_accuracy else 2 * max(values, default=1.0)
    for row, (_, tried) in enumerate(rows):
        before, after = value(tried.before), value(tried.after)
        ends = [worst if end is None else end for end in (before, after)]
        colour = "tab:green" if tried.helps else "tab:gray"
        axes.plot(ends, [row, row], color=colour, linewidth=3 if tried is report.fix else 1.5)
        axes.plot(ends[0], row, "|" if before is not None else "x", color="black", markersize=9)
        axes.plot(ends[1], row, "o" if after is not None else "x", color=colour)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows], fontsize=8)
    if by_accuracy:
        axes.set_xlabel("accuracy on held-out samples, which decides here: to the right is better")
        axes.set_xlim(-0.02, 1.02)
    else:
        axes.set_xlabel("loss on held-out samples: to the left is better")
        axes.set_xscale("log" if min(values, default=1.0) > 0 else "linear")
    title = f"{report.verdict.cause.value} ({report.verdict.confidence:.0%} sure)"
    helps = "" if report.fix is None else f"\nthe smallest change that helps: {report.fix.change}"
    figure.suptitle(f"{title}{helps}", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    marks = {
        "without the change": Line2D([], [], color="black", marker="|", linestyle=""),
        "with it": Line2D([], [], color="tab:gray", marker="o"),
        "with it, and it helps": Line2D([], [], color="tab:green", marker="o"),
        "the fix": Line2D([], [], color="tab:green", marker="o", linewidth=3),
        "diverged": Line2D([], [], color="tab:gray", marker="x", linestyle=""),
    }
    drawn = {
        "with it, and it helps": any(fork.helps for _, fork in rows),
        "the fix": report.fix is not None,
        "diverged": any(value(score) is None for _, fork in rows for score in (fork.before, fork.after)),
    }
    kept = {name: mark for name, mark in marks.items() if drawn.get(name, True)}
    figure.legend(kept.values(), kept.keys(), fontsize=8, loc="outside lower center", ncols=len(kept))
    return figure


def accuracy_decides(report: Report) -> bool:
    """Whether it is accuracy that tells the trials apart: it is known, and differs by as much as counts for `Judge`."""
    known = [score.accuracy for fork in report.forks for score in (fork.before, fork.after)]
    accuracies = [accuracy for accuracy in known if accuracy is not None]
    return len(accuracies) > len(known) / 2 and max(accuracies) - min(accuracies) > MATTERS


def _write_fix(folder: Path, fix: Fork, overlay: Mapping[str, Any]) -> None:
    effect = f"held-out loss {_number(fix.before.loss)} -> {_number(fix.after.loss)}"
    if fix.before.accuracy is not None and fix.after.accuracy is not None:
        effect += f", accuracy {fix.before.accuracy:.3f} -> {fix.after.accuracy:.3f}"
    words = shlex.join(["fit", "-c", str(folder / CONFIG), "-c", str(folder / FIX)])
    text = f"# unstall {words}\n# {fix.change}: {effect} in a short trial\n"
    write(folder / FIX, text + yaml.safe_dump(dict(overlay), sort_keys=False))


def _mark(fork: Fork, report: Report) -> str:
    mark = "  <- fix" if fork is report.fix else "  helps" if fork.helps else ""
    before, after = fork.before, fork.after
    if mark and not after.loss < before.loss:
        return f"{mark} (by accuracy, although the loss rises)"
    if mark and after.accuracy is not None and after.accuracy < (before.accuracy or 0):
        return f"{mark} (by loss, although the accuracy falls)"
    return mark


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "diverged"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
