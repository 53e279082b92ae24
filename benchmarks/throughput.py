"""How long an epoch takes, beside what people would use instead, all in one run.

    python benchmarks/throughput.py --keras_python=/path/to/an/environment/with/keras

Every contender is a process of its own, so that no thread pool disturbs another's. All are started first and then
take turns, an epoch each, while the others wait: what slows the machine down slows all of them. MNIST, 784-512-10
with Keras's RMSprop (rate 1e-2), batch 128, 48,000 samples trained and 12,000 validated (1,024 at once) per epoch.
Ours draws its progress bar as in a terminal; the others' bars are off. A contender that is not installed is left out.

Writes benchmarks/data/throughput.json, docs/speed.png and the tables of docs/speed.md. Run it alone: about ten minutes.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measuring import RESULTS, ROOT, machine, median_and_range, replace_tables, table
from turns import BATCH, HIDDEN, TRAIN, VAL, Contender, ask, take_turns
from unstall import png, write

CONTENDERS = {
    "ours": "`unstall fit`, everything on",
    "no_callbacks": "... without any callback or logger",
    "medium": "... with products in bfloat16 (`torch.set_float32_matmul_precision('medium')`)",
    "bare": "a bare PyTorch loop, the same tensors and optimizer",
    "bare_torch": "a bare loop with `torch.optim.RMSprop`",
    "torchvision": "Lightning, torchvision's `MNIST`, `ToTensor`, `DataLoader`",
    "keras_tensorflow": "Keras on TensorFlow",
    "keras_jax": "Keras on JAX",
}
STEPS = {"bare": "a bare loop", "empty": "Lightning, nothing on", "ours": "`unstall fit`, everything on"}
NEEDS = {"keras_tensorflow": ("keras", "tensorflow"), "keras_jax": ("keras", "jax")}


def installed(name: str, python: str) -> bool:
    """Whether an interpreter has what a contender needs."""
    code = f"from importlib.util import find_spec as f; raise SystemExit(any(f(m) is None for m in {NEEDS[name]!r}))"
    return subprocess.run([python, "-c", code], check=False).returncode == 0


def start_up(repeats: int) -> dict[str, list[float]]:
    """Seconds of the imports alone, of `fit --help`, and from the command to the first training step, in turn."""
    commands = {
        "imports": [sys.executable, "-c", "import torch, torchvision, pytorch_lightning"],
        "help": [sys.executable, "-m", "unstall", "fit", "--help"],
    }
    seconds: dict[str, list[float]] = {name: [] for name in (*commands, "first_step")}
    for _ in range(repeats):
        for name, command in commands.items():
            began = time.time()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
            seconds[name].append(time.time() - began)
        began = time.time()
        seconds["first_step"].append(ask("first_step")["first_step"] - began)
    return seconds


def curves() -> dict[str, list[tuple[int, float]]]:
    """Seconds of a warm epoch of ours over width, batch size and number of samples."""
    sweeps = {
        "width": ("--model.network.widths=[784,{},10]", (64, 256, 512, 1024, 2048)),
        "batch_size": ("--data.batch_size={}", (32, 64, 128, 512)),
        "train_samples": ("--data.train_samples={}", (6000, 12000, 24000, 48000)),
    }
    points: dict[str, list[tuple[int, float]]] = {}
    for name, (option, values) in sweeps.items():
        for value in values:
            seconds = take_turns([Contender("ours", 3, option.format(value))], 3)["ours"]["seconds"]
            points.setdefault(name, []).append((value, min(seconds[1:])))
    return points


def ratios(results: dict[str, dict[str, Any]], name: str, other: str) -> list[float]:
    """Epoch by epoch, the first apart."""
    mine, theirs = results[name]["seconds"][1:], results[other]["seconds"][1:]
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def tables(measured: dict[str, Any]) -> list[str]:
    """The tables of docs/speed.md."""
    epochs, parts, race = measured["epochs"], measured["shares"], measured["race"]
    lines = [
        f"{measured['machine']}; {epochs} epochs each, in turn; median (range) of all but the first.",
        "",
        *table_of_contenders(measured),
        "",
        f"The largest product of a step alone, {BATCH} x 784 by 784 x {HIDDEN}: {measured['gflops']:.0f} GFLOP/s.",
        "",
        *table("| bar | ratio | at most |", bars(measured)),
        "",
    ]
    by_part = [
        [part, f"{parts[part]:.3f}", f"{100 * parts[part] / sum(parts.values()):.1f} %"]
        for part in sorted(parts, key=lambda part: -parts[part])
    ]
    lines += table("| where an epoch's time goes, by stopwatch | s | share |", by_part)
    lines += ["", *table_of_a_step(measured["steps"])]
    for name, points in measured.get("curves", {}).items():
        lines += ["", *lying(name, "epoch, s", points)]
    return [*lines, "", *lying("rates in a race", "100 steps, s", [(row["rates"], row["seconds"]) for row in race])]


def table_of_a_step(steps: dict[str, dict[str, float]]) -> list[str]:
    """Microseconds of one step of training by part: a column for each loop, without validation and the epoch's end."""
    parts = sorted(steps["ours"], key=lambda part: -steps["ours"][part])
    rows: list[list[object]] = [
        [part, *(f"{step[part]:.0f}" if part in step else "" for step in steps.values())] for part in parts
    ]
    rows.append(["**all of a step**", *(f"**{sum(step.values()):.0f}**" for step in steps.values())])
    return table(f"| a step's μs, by stopwatch | {' | '.join(STEPS[name] for name in steps)} |", rows)


def lying(name: str, measure: str, points: list[tuple[int, float]]) -> list[str]:
    """A table of two rows: what was varied, and what came of it."""
    values = " | ".join(str(value) for value, _ in points)
    return table(f"| {name} | {values} |", [[measure, *(f"{seconds:.2f}" for _, seconds in points)]])


def table_of_contenders(measured: dict[str, Any]) -> list[str]:
    """A row for each."""
    results = measured["contenders"]
    # Per sample and weight 2 operations forward and 2 for the weights' gradient; the last layer's inputs have one too.
    weights = 784 * HIDDEN + HIDDEN * 10
    operations = TRAIN * (4 * weights + 2 * HIDDEN * 10) + VAL * 2 * weights
    rows = []
    for name, result in results.items():
        first, *later = result["seconds"]
        over = "" if name == "ours" or "ours" not in results else median_and_range(ratios(results, name, "ours"))
        rate = operations / median(later) / 1e9
        cells = [f"{first:.2f}", f"{rate:.0f}", f"{result['peak_gb']:.2f}", f"{result['accuracy']:.4f}"]
        rows.append([CONTENDERS[name], median_and_range(later), over, *cells])
    rows += [[CONTENDERS[name], "not installed | | | | |"] for name in measured["left_out"]]
    header = "| | epoch, s | over ours | first epoch, s | GFLOP/s | peak memory, GB | val/accuracy at the end |"
    return table(header, rows)


def bars(measured: dict[str, Any]) -> list[list[object]]:
    """What is to be at most how much."""
    results, parts, began, last = (measured[name] for name in ("contenders", "shares", "start_up", "race"))
    rows: list[list[object]] = []
    for label, name, other, bar in (
        ("an epoch over the bare loop's", "ours", "bare", 1.25),
        ("over that with `torch.optim.RMSprop`", "ours", "bare_torch", ""),
        ("over Lightning's own loop, without any callback or logger", "ours", "no_callbacks", 1.10),
        ("over Lightning with torchvision's", "ours", "torchvision", 0.35),
        ("over Keras on TensorFlow", "ours", "keras_tensorflow", 1.0),
        ("over Keras on JAX (goal)", "ours", "keras_jax", 1.0),
        ("without any callback or logger over the bare loop's", "no_callbacks", "bare", ""),
    ):
        if name in results and other in results:
            rows.append([label, median_and_range(ratios(results, name, other)), bar])
    for label, part, limit in (
        ("the diagnosis over everything else, by stopwatch", "the diagnosis", 1.03),
        ("TensorBoard and CSV over everything else, by stopwatch", "TensorBoard and CSV", 1.05),
    ):
        rows.append([label, f"{sum(parts.values()) / (sum(parts.values()) - parts[part]):.3f}", limit])
    if "ours" in results and measured["epochs"] >= 10:
        seconds = results["ours"]["seconds"]
        drift = median(seconds[7:10]) / median(seconds[1:4])  # one epoch alone is as noisy as the machine
        rows.append(["epochs 8 to 10 over epochs 2 to 4, medians", f"{drift:.2f}", 1.05])
    imports = median(began["imports"])
    for label, name, limit in (
        ("`unstall fit --help` over the imports alone", "help", 1.5),
        ("command to first training step over the imports alone", "first_step", 2.5),
    ):
        each = [a / b for a, b in zip(began[name], began["imports"], strict=True)]
        rows.append([f"{label} ({imports:.1f} s)", median_and_range(each), limit])
    if "ours" in results:
        rows.append(["peak memory, GB", f"{results['ours']['peak_gb']:.2f}", 1.2])
    return [*rows, [f"{last[-1]['rates']} rates in a race over one after another", f"{last[-1]['ratio']:.2f}", 0.8]]


def draw(measured: dict[str, Any], file: Path) -> None:
    """Seconds per epoch as bars."""
    from matplotlib.figure import Figure

    results = measured["contenders"]
    names = [name for name in CONTENDERS if name in results and not name.startswith("no_")]
    later = [results[name]["seconds"][1:] for name in names]
    middle = [median(seconds) for seconds in later]
    below = [m - min(s) for m, s in zip(middle, later, strict=True)]
    above = [max(s) - m for m, s in zip(middle, later, strict=True)]
    figure = Figure(figsize=(8, 0.5 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    labels = [CONTENDERS[name].replace("`", "").replace("... ", "ours, ").split(" (")[0] for name in names]
    colours = ["tab:blue" if name in ("ours", "medium") else "tab:grey" for name in names]
    axes.barh(labels, middle, xerr=[below, above], color=colours, height=0.6)
    axes.invert_yaxis()
    axes.set_xlabel("seconds per epoch (median and range)")
    axes.spines[["top", "right"]].set_visible(False)
    write(file, png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10, help="of each contender")
    parser.add_argument("--repeats", type=int, default=5, help="of the start-up times")
    parser.add_argument("--keras_python", default=sys.executable, help="interpreter of an environment that has Keras")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="CONTENDER")
    parser.add_argument("--curves", action="store_true", help="also over width, batch size and samples: 3 minutes more")
    parser.add_argument("--dry", action="store_true", help="print the tables, write nothing")
    arguments = parser.parse_args()
    left_out = [name for name in NEEDS if name in arguments.only and not installed(name, arguments.keras_python)]
    for name in left_out:
        print(f"left out, not installed: {CONTENDERS[name]}", file=sys.stderr)
    names = [name for name in arguments.only if name not in left_out]
    began = start_up(arguments.repeats)
    keras = {"script": "keras_contender.py", "python": arguments.keras_python}
    contenders = [Contender(name, arguments.epochs, **(keras if name in NEEDS else {})) for name in names]
    watched = max(2, min(6, arguments.epochs))
    shares = ask("shares", watched)
    step = shares.pop("step")
    measured: dict[str, Any] = {
        "machine": machine(),
        "epochs": arguments.epochs,
        "left_out": left_out,
        "contenders": take_turns(contenders, arguments.epochs),
        "start_up": began,
        **ask("ceiling"),
        **ask("race"),
        **shares,
        "steps": {
            "bare": ask("bare_shares", watched)["step"],
            "empty": ask("empty_shares", watched)["step"],
            "ours": step,
        },
    }
    if arguments.curves:
        measured["curves"] = curves()
    lines = tables(measured)
    print("\n".join(lines))
    if not arguments.dry:
        (RESULTS / "throughput.json").write_text(json.dumps(measured, indent=1) + "\n")
        draw(measured, ROOT / "docs" / "speed.png")
        replace_tables(ROOT / "docs" / "speed.md", "throughput.py", "tables", lines)


if __name__ == "__main__":
    main()
