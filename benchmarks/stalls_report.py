"""The tables of `benchmarks/stalls.py`: how often what is said of a stall is right, and of a repaired one quiet."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from entries import COLLECTIONS, Entry
from faults import QUIET, WORDS, judge
from measuring import share, table

Row = dict[str, Any]
"""What was measured of one version of an entry: a line of the file."""

SPEAKERS = {"callback": "the callback's last word", "diagnose": "`diagnose`"}
REACHED = 0.05
"""A network is as good as the repaired one if it comes that close to its accuracy, recall or R2."""
NO_ACCUSATION = (*QUIET, "overfitting")
"""What may be said of a repaired run: many of the programs have a handful of samples, and do overfit."""

PUBLISHED = {
    "DEFault": ("17", "-"),
    "DeepFD": ("15", "-"),
    "UMLAUT": ("10", "8"),
    "AutoTrainer": ("5", "-"),
    "DeepLocalize": ("5", "15"),
    "deepmufl": ("-", "19"),
    "DeepDiagnosis": ("-", "17"),
    "NeuraLint": ("-", "11"),
}
WHAT_THEY_MEASURED = (
    "Published on programs of the same two collections, with their own data: whether one of the known faults of a "
    "faulty program is among those that a tool names. None of them reports what it says of corrected programs."
)


def read(file: Path) -> list[Row]:
    """Return the rows on disk."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def key(row: Row) -> tuple[str, str, bool]:
    """Return what tells a row from all others."""
    return row["collection"], row["entry"], row["fixed"]


def verdict(entry: Entry, row: Row, speaker: str) -> str:
    """Return which of `WORDS` holds for what was said of a faulty run; `named` if what is wrong is not known here."""
    said = row.get(speaker)
    if said is None:
        silent = "unsure" if speaker == "callback" and row.get("quality") is not None else "crash"
        return "crash" if "crash" in row else "refused" if "refused" in row else silent
    if not entry.kinds and said["cause"] not in QUIET:
        return "named"
    return judge(said["cause"], entry.kinds, entry.near)


def accused(row: Row, speaker: str) -> bool:
    """Return whether a repaired run is accused of anything; not to survive a diagnosis is an accusation, too."""
    said = row.get(speaker)
    return "crash" in row if said is None else said["cause"] not in NO_ACCUSATION


def bettered(row: Row) -> bool:
    """Return whether a repaired run that is accused gains by the fix, retrained in full, what makes a stall."""
    reached, before = row.get("retrained"), row.get("quality")
    return reached is not None and before is not None and reached - before > REACHED


def as_good(row: Row, repaired: Row, trial: bool = False) -> bool:
    """Return whether the fix, retrained, comes to what the repaired one comes to.

    Args:
        row: Of the faulty version.
        repaired: Of the other one.
        trial: Of a fix that is no setting and cannot be retrained from a file, take what its trial came to.
    """
    reached, wanted = row.get("retrained"), repaired.get("quality")
    said = row.get("diagnose")
    if reached is None and trial and said is not None and said["fix"] is None:
        reached = next((accuracy for change, _, accuracy in said["forks"] if change == said["remedy"]), None)
    return reached is not None and wanted is not None and reached >= wanted - REACHED


def report(entries: Sequence[Entry], rows: Sequence[Row]) -> Iterator[str]:
    """Yield lines of Markdown: the shares of both collections, the published figures, and a row for each entry."""
    known = {key(row): row for row in rows}
    for collection in COLLECTIONS:
        those = [entry for entry in entries if entry.collection == collection]
        pairs = [
            (entry, known.get((collection, entry.name, False)), known.get((collection, entry.name, True)))
            for entry in those
        ]
        measured = [(entry, faulty) for entry, faulty, _ in pairs if faulty is not None]
        repaired = [fixed for _, _, fixed in pairs if fixed is not None]
        if not measured and not repaired:
            continue
        yield f"**{collection}: {len(measured)} faulty and {len(repaired)} repaired, of {len(those)}**"
        yield ""
        yield from shares(measured, repaired, [(a, b) for _, a, b in pairs if a is not None and b is not None])
        yield ""
        yield from table(
            "| entry | what is wrong | callback | | `diagnose` | | quality: faulty, with the fix, repaired | of the "
            "repaired, callback | `diagnose` |",
            (said_of(entry, faulty or {}, fixed or {}) for entry, faulty, fixed in pairs if faulty or fixed),
        )
        yield ""
    yield WHAT_THEY_MEASURED
    yield ""
    yield from table(
        "| tool | of 25 of DeepLocalize's | of 56 of deepmufl's |", ([name, *hits] for name, hits in PUBLISHED.items())
    )


def shares(
    measured: Sequence[tuple[Entry, Row]], repaired: Sequence[Row], pairs: Sequence[tuple[Row, Row]]
) -> list[str]:
    """Return the table of one collection: counts with 95 % intervals for both speakers."""
    found = {name: [verdict(entry, row, name) for entry, row in measured] for name in SPEAKERS}
    words = [*WORDS, *(["named"] if any("named" in words for words in found.values()) else [])]
    lines: list[list[str]] = []
    for word in words:
        lines.append([_title(word), *(share([each == word for each in found[name]]) for name in SPEAKERS)])
        if word == "misleading":
            sure = (
                [
                    each == word and row[name]["confidence"] >= 0.95
                    for each, (_, row) in zip(found[name], measured, strict=True)
                ]
                for name in SPEAKERS
            )
            lines.append(["misleading at 95 % or more", *map(share, sure)])
    lines.append(["repaired, and accused", *(share([accused(row, name) for row in repaired]) for name in SPEAKERS)])
    idle = share([accused(row, "diagnose") and not bettered(row) for row in repaired])
    lines.append([f"the same, and the fix, retrained, brings less than {REACHED}", "- | ", idle])
    lines.append(
        [f"the fix, retrained, within {REACHED} of the repaired one", "- | ", share([as_good(*p) for p in pairs])]
    )
    lines.append(
        ["the same, or in its trial if it is no setting", "- | ", share([as_good(*p, trial=True) for p in pairs])]
    )
    return table(f"| | {' | | '.join(SPEAKERS.values())} | |", lines)


def said_of(entry: Entry, faulty: Row, fixed: Row) -> list[str]:
    """Return the cells of one entry: what was said, whether that is right, and how good the networks are."""
    cells = [entry.name, ", ".join(entry.kinds) or "?"]
    for speaker in SPEAKERS:
        cells += [_cause(faulty, speaker), verdict(entry, faulty, speaker) if faulty else "-"]
    numbers = faulty.get("quality"), faulty.get("retrained"), fixed.get("quality")
    cells.append(", ".join("-" if number is None else f"{number:.2f}" for number in numbers))
    return [*cells, *(_cause(fixed, speaker) for speaker in SPEAKERS)]


def _cause(row: Row, speaker: str) -> str:
    said = row.get(speaker)
    if said is None:
        return "-"
    offers = said["cause"] == "healthy" and said.get("remedy")
    return f"{said['cause']}, {said['confidence']:.0%}{', with an offer' if offers else ''}"


def _title(word: str) -> str:
    return {
        "right": "right: a true cause first",
        "near": "near: half right",
        "healthy": "called healthy",
        "refused": "refused to diagnose",
        "named": "named something; what is true is not known here",
    }.get(word, word)
