"""The table of docs/packages.md: what the instruments make of real packages' modules.

python benchmarks/package_table.py    # from benchmarks/data/packages.jsonl, which `make test-zoo` writes
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from measuring import replace_tables, table

ROOT = Path(__file__).parents[1]
ROWS, PAGE = ROOT / "benchmarks" / "data" / "packages.jsonl", ROOT / "docs" / "packages.md"
GOOD = 0.95
HEADER = "| package | module | `fit` | `lr_find`: pick, best of the grid, progress | rate too high | rate too low |"


def stall(seen: dict[str, Any]) -> str:
    """The cell of a diagnosis."""
    if not seen["stalls"]:
        return f"{seen['rate']:.1e} trains ({seen['progress']:.2f})"
    named = seen["cause"] if seen["right"] else f"**{seen['cause']}**"
    if seen["fix"] is None:
        return f"{named}; no change helped"
    return f"{named}; {seen['fix']}" + ("" if seen["mended"] is None else f": {seen['mended']:.2f}")


def cells(row: dict[str, Any]) -> Iterable[str]:
    """The cells of a package."""
    yield f"{row['package']} {row['version']}"
    yield f"`{row['module']}`"
    yield f"{row['steps']} steps"
    share = f"{row['progress']:.2f}" if row["progress"] >= GOOD else f"**{row['progress']:.2f}**"
    yield f"{row['pick']:.1e}, {row['best']:.0e}, {share}"
    yield from (stall(row["too_high"]), stall(row["too_low"]))


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The table, and what it comes to."""
    stalls = [row[name] for row in rows for name in ("too_high", "too_low") if row[name]["stalls"]]
    counts = [sum(row["progress"] >= GOOD for row in rows), sum(seen["right"] for seen in stalls)]
    mended = sum((seen["mended"] or 0) >= GOOD for seen in stalls)
    several = (f", {row['fits']} for each rate of {row['package']}" for row in rows if row.get("fits", 1) > 1)
    return [
        *table(HEADER, map(cells, sorted(rows, key=lambda row: str(row["package"])))),
        "",
        f"The pick is good in {counts[0]} of {len(rows)}; the rate is named in {counts[1]} of {len(stalls)} stalls, "
        f"and {mended} are as good with the fix, in a whole fit. One seed{''.join(several)}, "
        f"on a {rows[0]['machine']}.",
    ]


def main() -> None:
    """Write the table into the page."""
    replace_tables(
        PAGE, "package_table.py", "packages", lines([json.loads(line) for line in ROWS.read_text().splitlines()])
    )


if __name__ == "__main__":
    main()
