"""Does it name the stalls that people really have? 20 that were reported, and 34 Keras programs, faulty and repaired.

python benchmarks/stalls.py audit             # what one batch shows of each; a minute for all
python benchmarks/stalls.py run               # `fit`, `diagnose`, `fit` with the fix; hours, resumable, in parts
python benchmarks/stalls.py report            # the tables of docs/stalls.md, from data/stalls.jsonl, in seconds

python benchmarks/stalls.py run --only softmax --part 1/2
python benchmarks/stalls.py run --cases ../cases --programs ../programs.yaml --rows rows.jsonl   # of another folder
"""

import argparse
import contextlib
import copy
import importlib.util
import io
import json
import math
import os
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
import yaml
from torch.utils.data import DataLoader

import unstall
from entries import Entry, build, build_both, other_cases, other_programs, our_entries
from faults import judge
from measuring import RESULTS, ROOT, replace_tables
from stalls_report import Row, key, read, report
from unstall import Diagnosis, Finding, Fork, LearningRate, UsageError, quiet, read_metrics

Result = TypeVar("Result")
ROWS = RESULTS / "stalls.jsonl"
MEASURES = "recall", "accuracy", "acc", "r2"
"""What tells how good a network is, whatever its loss: the first of these that it logs in validation."""


def measure(entry: Entry, fixed: bool) -> Row:
    """Fit one version, diagnose the run, fit it with the fix; return what was said and how good the networks are."""
    row: Row = {"collection": entry.collection, "entry": entry.name, "fixed": fixed, "seconds": {}}
    config = entry.config(fixed)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "config.yaml")
        file.write_text(yaml.safe_dump(config))
        options = [f"--logs_dir={place}/logs", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
        run = _attempt(row, "fit", lambda: unstall.run(["fit", f"--config={file}", *options]))
        if run is None:
            return row
        row |= {"callback": last_word(run), "quality": quality(run, config)}
        report = _attempt(row, "diagnose", lambda: unstall.diagnose(run))
        if report is None:
            return row
        row["diagnose"] = last_word(run)
        if (run / "fix.yaml").is_file():
            again = ["fit", f"--config={run / 'config.yaml'}", f"--config={run / 'fix.yaml'}"]
            other = _attempt(row, "retrained", lambda: unstall.run(again))
            row["retrained"] = None if other is None else quality(other, config)
        elif report.fix is not None and report.fix.mended is not None and report.fix.measure is not None:
            fix = report.fix
            row["retrained"] = _attempt(row, "retrained", lambda: retrained(fix, config))
    return row


class Changed:
    """A loader whose batches are changed."""

    def __init__(self, loader: Any, change: Callable[[Any], Any]) -> None:
        self.loader, self.change = loader, change

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        return map(self.change, self.loader)


def retrained(fix: Fork, config: dict[str, Any]) -> float | None:
    """Train what a fix that is no setting has changed for as long as the run, and return how good it is.

    Measured as the forks are: accuracy in which each class counts alike, or R2, on the held-out samples.
    """
    mended = fix.mended
    assert mended is not None
    assert fix.measure is not None
    data = build(config, "data")
    data.setup("fit")
    loader = data.train_dataloader()
    if mended.shuffled:
        loader = DataLoader(loader.dataset, loader.batch_size, shuffle=True)
    options = {} if mended.options is None else {"gradient_clip_val": mended.options.gradient_clip_val}
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        trainer = pl.Trainer(
            accelerator="cpu",
            callbacks=[LearningRate(mended.rates[0])],
            max_epochs=config["trainer"]["max_epochs"] * mended.passes,
            default_root_dir=scratch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **{
                **{key: value for key, value in config["trainer"].items() if key.startswith("gradient_clip")},
                **options,
            },
        )
        module = copy.deepcopy(mended.module)
        trainer.fit(module, Changed(loader, mended.transform))
    reached = fix.measure(module.state_dict())
    return None if reached is None else round(reached, 4)


def _attempt(row: Row, stage: str, call: Callable[[], Result]) -> Result | None:
    """Call without a word; note the seconds and, if it came to nothing, why."""
    began = time.perf_counter()
    result = None
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            result = call()
    except UsageError as error:
        row["refused"] = f"{stage}: {error}"
    except (Exception, SystemExit):
        row["crash"] = f"{stage}: {traceback.format_exc(limit=-4)}"
    row["seconds"][stage] = round(time.perf_counter() - began, 1)
    return result


def last_word(run: Path) -> dict[str, Any] | None:
    """Return what `diagnosis.json` says: the cause, how sure, and what else is known; None if there is no such file."""
    file = run / "diagnosis.json"
    if not file.is_file():
        return None
    said = json.loads(file.read_text())
    word = {name: said.get(name) for name in ("cause", "confidence", "runner_up", "sentence", "remedy", "fix")}
    word["findings"] = [finding["fault"] for finding in said.get("findings", ())]
    word["forks"] = [[fork["change"], fork["loss_after"], fork["accuracy_after"]] for fork in said["forks"]]
    return word


def quality(run: Path, config: dict[str, Any]) -> float | None:
    """Return how good a run's network is at its end; None if that is no number.

    A regression that logs none of `MEASURES` is taken to log its mean squared error, of which R2 is made.
    """
    rows = read_metrics(run / "metrics.csv")
    last = rows[-1] if rows else {}
    names = (f"val{mark}{measure}" for measure in MEASURES for mark in "/_")
    found = next((last[name] for name in names if name in last), None)
    if found is None:
        loss = last.get("val_loss", last.get("val/loss", math.nan))
        data = build(config, "data")
        data.setup("fit")
        targets = torch.cat([batch[1].flatten().float() for batch in data.val_dataloader()])
        found = 1 - loss / float(targets.var())
    return round(found, 4) if math.isfinite(found) else None


def run(entries: Sequence[Entry], rows: Path) -> None:
    """Measure whatever is not yet in the file of rows, and append it."""
    done = {key(row) for row in read(rows)}
    for entry in entries:
        for fixed in (False, True):
            if (entry.collection, entry.name, fixed) in done:
                continue
            row = measure(entry, fixed)
            with rows.open("a") as lines:
                lines.write(json.dumps(row) + "\n")
            words = [f"{stage}: {row[stage]['cause']}" for stage in ("callback", "diagnose") if row.get(stage)]
            words += [f"{name}: {row[name]}" for name in ("quality", "retrained") if name in row]
            words += [row[name].strip().splitlines()[-1] for name in ("refused", "crash") if name in row]
            print(f"{entry.name} {'repaired' if fixed else 'faulty'}, {sum(row['seconds'].values()):.0f} s")
            print("  " + "; ".join(words), flush=True)


def findings(config: dict[str, Any]) -> list[Finding] | None:
    """Return what one batch shows of a configuration, as every `fit` looks at it; None if it could not look."""
    diagnosis = Diagnosis()
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()), quiet():
        module, data = build_both(config)
        trainer = pl.Trainer(
            accelerator="cpu",
            max_epochs=config["trainer"]["max_epochs"],
            max_steps=1,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            callbacks=[diagnosis],
            default_root_dir=scratch,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)
    return None if diagnosis.observation is None else diagnosis.audited


def audit(entries: Sequence[Entry]) -> Iterator[str]:
    """Yield a line for each version with what one batch shows of it (`!`: certain), and how often that is right."""
    verdicts: list[str] = []
    accused = {"certain": 0, "suspected": 0}
    for entry in entries:
        for fixed in (False, True):
            found = findings(entry.config(fixed))
            names = [f"{finding.fault}{'!' * finding.fault.certain}" for finding in found or ()]
            first = found[0].fault if found else None
            if not fixed:
                verdict = "silent" if first is None else judge(str(first), entry.kinds, entry.near)
                verdict = verdict if entry.kinds or first is None else "named"
                verdicts.append(verdict)
            elif first is not None:
                accused["certain" if first.certain else "suspected"] += 1
            state = "repaired" if fixed else f"faulty, {verdict}"
            yield f"{entry.name} ({state}): {', '.join(names) or '-' if found is not None else 'not looked at'}"
    yield f"faulty, the first named: {', '.join(f'{word} {verdicts.count(word)}' for word in sorted(set(verdicts)))}"
    yield f"repaired, accused: {accused['certain']} for certain, {accused['suspected']} suspected, of {len(verdicts)}"


def chosen(options: argparse.Namespace) -> list[Entry]:
    """Return the entries that the options name, without those whose data cannot be had here."""
    cases = list(other_cases(options.cases.resolve())) if options.cases else []
    found = [*cases, *(other_programs(options.programs) if options.programs else [])]
    if not options.cases and not options.programs:
        found = our_entries()
    found = [entry for entry in found if re.search(options.only, entry.name)]
    if options.command != "report" and importlib.util.find_spec("sklearn") is None:
        left_out = [entry.name for entry in found if entry.needs_scikit_learn]
        found = [entry for entry in found if not entry.needs_scikit_learn]
        if left_out:
            print(f"scikit-learn is not installed (pip install -e '.[benchmark]'): without {', '.join(left_out)}")
    return found[options.part[0] :: options.part[1]]


def part(text: str) -> tuple[int, int]:
    """Read `1/3`: the first of three."""
    number, count = map(int, text.split("/"))
    if not 1 <= number <= count:
        raise ValueError(text)
    return number - 1, count


def main() -> None:
    """Run, report or audit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["run", "report", "audit"])
    parser.add_argument("--only", default="", help="entries whose name has this pattern")
    parser.add_argument("--part", type=part, default=(0, 1), metavar="I/N", help="every N-th entry from the I-th")
    parser.add_argument("--cases", type=Path, help="a folder of other reported stalls, as modules with a YAML beside")
    parser.add_argument("--programs", type=Path, help="another file like data/programs.yaml")
    parser.add_argument("--rows", type=Path, help=f"where what was measured lies; {ROWS.name} of our own entries")
    options = parser.parse_args()
    if options.rows is None and (options.cases or options.programs) and options.command != "audit":
        parser.error("--rows: name the file for what is measured of other entries")
    rows = (options.rows or ROWS).resolve()
    entries = chosen(options)
    os.chdir(ROOT)  # the base configuration and data/ are here
    sys.path.insert(0, str(ROOT / "benchmarks"))
    if options.command == "run":
        run(entries, rows)
        return
    lines = []
    for line in report(entries, read(rows)) if options.command == "report" else audit(entries):
        print(line, flush=True)
        lines.append(line)
    if options.command == "report" and rows == ROWS and not options.only:
        replace_tables(ROOT / "docs" / "stalls.md", "stalls.py", "stalls", lines)


if __name__ == "__main__":
    main()
