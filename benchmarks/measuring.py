"""How the benchmarks measure, and how they write down what they find. Needs nothing but Python."""

import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

ROOT = Path(__file__).resolve().parents[1]
MNIST_FOLDER = ROOT / "data"
RESULTS = Path(__file__).resolve().with_name("data")


def median_seconds(call: Callable[[], object], times: int) -> float:
    """Seconds that a call takes, the median over so many."""

    def timed() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return median(timed() for _ in range(times))


def median_and_range(values: Sequence[float], digits: int = 2) -> str:
    """Of repetitions on one machine: `median (lowest-highest)`."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def mean_and_deviation(values: Sequence[float], digits: int = 3) -> str:
    """Of seeds: `mean ± standard deviation`."""
    deviation = stdev(values) if len(values) > 1 else 0.0
    return f"{fmean(values):.{digits}f} ± {deviation:.{digits}f}"


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927)."""
    if not count:
        return 0.0, 1.0
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def share(values: Sequence[bool]) -> str:
    """Two cells of a table: the share with its counts, and its 95 % interval."""
    if not values:
        return "- | "
    low, high = wilson(sum(values), len(values))
    return f"{sum(values) / len(values):.2f} ({sum(values)}/{len(values)}) | {low:.2f}-{high:.2f}"


def table(header: str, rows: Iterable[Iterable[object]]) -> list[str]:
    """Lines of Markdown under a header that is written out: `| name | value |`."""
    lines = [header, "|" + "---|" * (header.count("|") - 1)]
    return lines + [f"| {' | '.join(map(str, cells))} |" for cells in rows]


def replace_tables(page: Path, script: str, name: str, lines: Sequence[str]) -> None:
    """Put lines of Markdown where a page has the marks of the script that made them."""
    begin, end = f"<!-- {name}: benchmarks/{script} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(before + begin + "\n".join(lines).rstrip() + "\n" + end + rest.partition(end)[2])


def machine() -> str:
    """The processor and the version of torch."""
    import torch

    info = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")]
    model = models[0] if models else platform.processor()
    threads = torch.get_num_threads()
    return f"{os.cpu_count()}-core {platform.machine()} CPU ({model}), {threads} threads, torch {torch.__version__}"
