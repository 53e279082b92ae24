"""The table of docs/causes.md: every fault that is known, as the code has it.

python benchmarks/causes.py > docs/causes.md
"""

from collections.abc import Iterable

import unstall

PROOF = {
    "output": "the last layer's output with the loss that the targets ask for",
    "inputs": "inputs standardised",
    "order": "samples shuffled",
    "dropout": "dropout 0.1",
    "schedule": "no schedule",
    "clip": "no clipping",
    "decay": "weight decay 1e-4",
    "held": "an optimizer of all parameters",
    "optimizer": "Adam",
    "longer": "more epochs",
}
HEAD = """# What can be wrong, and how it shows

Made from the code by `python benchmarks/causes.py`. A *certain* fault is wrong whatever comes of it, and is said before
the first step; a *suspicion* is named beside a stall only, and `unstall diagnose` puts it to the test: the fork mends a
copy and trains it. Where there is no fork, the cause is named without one. Beside these are the causes that signals and
forks find by themselves ([diagnosis](diagnosis.md)): learning rates, batch, initial weights, capacity, overfitting.
"""


def table(title: str, faults: Iterable[unstall.Fault]) -> list[str]:
    """Return a title and a row for each fault."""
    rows = ["", f"## {title}", "", "| fault | how it shows | said as | proved by |", "|---|---|---|---|"]
    for fault in faults:
        shows = " ".join((fault.check.__doc__ or "").split())
        said = "certain" if fault.certain else "suspicion"
        rows.append(f"| {fault} | {shows} | {said} | {PROOF[fault.mend] if fault.mend else '-'} |")
    return rows


def main() -> None:
    """Print the page."""
    lines = table("In one training step, on a copy (three passes forward and one back)", unstall.FAULTS)
    lines += table("In the course of a training (a sum a step)", unstall.COURSE_FAULTS)
    lines += table("By trial alone, in `unstall diagnose`, where nothing above shows", unstall.TRIED_FAULTS)
    print(HEAD.rstrip())
    print("\n".join(lines))


if __name__ == "__main__":
    main()
