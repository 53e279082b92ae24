"""The table of docs/causes.md: every fault that is known, as the code has it.

python benchmarks/causes.py > docs/causes.md
"""

from collections.abc import Iterable, Mapping

import unstall
from entries import our_entries
from stalls import ROWS
from stalls_report import read, verdict

PROOF = {
    "output": "the last layer's output with the loss that the targets ask for",
    "inputs": "inputs standardised",
    "order": "samples shuffled",
    "balance": "the loss that the targets ask for, rare classes weighted",
    "activation": "a ReLU after each layer but the last",
    "dropout": "dropout 0.1",
    "schedule": "no schedule",
    "clip": "no clipping",
    "decay": "weight decay 1e-4",
    "held": "an optimizer of all parameters",
    "frozen": "nothing frozen",
    "modes": "batch normalization with a momentum of 0.1",
    "optimizer": "Adam",
    "longer": "more epochs",
}
HEAD = """# What can be wrong, and how it shows

Made from the code by `python benchmarks/causes.py`. A *certain* fault is wrong whatever comes of it, and is said before
the first step; a *suspicion* is named beside a stall only, and `unstall diagnose` puts it to the test: the fork mends a
copy and trains it. Where there is no fork, the cause is named without one. Beside these are the causes that signals and
forks find by themselves ([diagnosis](diagnosis.md)): learning rates, batch, initial weights, capacity, overfitting.

*Right*: of the faulty runs of which `fit` or `diagnose` said it first, among the 136 of [stalls.md](stalls.md), how
many had that fault. *False*: of the 136 repaired ones, how many were accused of it.
"""


def counted() -> dict[str, tuple[int, int, int]]:
    """Return how often each cause was said of faulty runs, how often that was right, and how often of repaired ones."""
    entries = {(entry.collection, entry.name): entry for entry in our_entries()}
    found: dict[str, tuple[int, int, int]] = {}
    for row in read(ROWS):
        for cause in {said["cause"] for speaker in ("callback", "diagnose") if (said := row.get(speaker))}:
            speakers = [name for name in ("callback", "diagnose") if row.get(name) and row[name]["cause"] == cause]
            entry = entries[row["collection"], row["entry"]]
            right = not row["fixed"] and verdict(entry, row, speakers[0]) == "right"
            named, hits, wrong = found.get(cause, (0, 0, 0))
            found[cause] = named + (not row["fixed"]), hits + right, wrong + row["fixed"]
    return found


def table(title: str, faults: Iterable[unstall.Fault], known: Mapping[str, tuple[int, int, int]]) -> list[str]:
    """Return a title and a row for each fault, with how often it was said."""
    head = ["| fault | how it shows | said as | proved by | right | false |", "|---|---|---|---|---|---|"]
    rows = ["", f"## {title}", "", *head]
    for fault in faults:
        shows = " ".join((fault.check.__doc__ or "").split())
        said = "certain" if fault.certain else "suspicion"
        named, hits, wrong = known.get(str(fault), (0, 0, 0))
        right = f"{hits} of {named}" if named else "-"
        rows.append(f"| {fault} | {shows} | {said} | {PROOF[fault.mend] if fault.mend else '-'} | {right} | {wrong} |")
    return rows


def main() -> None:
    """Print the page."""
    known = counted()
    lines = table("In one training step, on a copy (three passes forward and one back)", unstall.FAULTS, known)
    course = "In the course of a training (a sum a step, and two passes forward on a copy at its end)"
    lines += table(course, unstall.COURSE_FAULTS, known)
    lines += table("By trial alone, in `unstall diagnose`, where nothing above shows", unstall.TRIED_FAULTS, known)
    print(HEAD.rstrip())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
