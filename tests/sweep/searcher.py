"""Processes of a study: `python searcher.py URL RECORD SECONDS TRIALS PROCESSES`, with a training that only waits.

They are forked from one, which has imported what is slow to import. Each trial adds two lines to the record: that it
begins, and that it is done.
"""

import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from unstall.sweep import database, study
from unstall.sweep.study import Plan, open_study
from unstall.sweep.trial import Watch
from unstall.sweep.worker import work

SPACE = {"a.lr": {"low": 1e-3, "high": 1.0, "log": True, "points": 2}, "b": [1, 2]}


def plan(url: str, method: str = "random", trials: int | None = 4, space: Any = None) -> Plan:
    """A study of a small space."""
    return Plan(
        name="tiny",
        storage=url,
        space=space or SPACE,
        base={"seed_everything": 0},
        method=method,
        trials=None if method == "grid" else trials,
        metric="val/loss",
        maximize=False,
        pruner="none",
        epochs=None,
        seed=0,
    )


def search(url: str, record: str, seconds: str, trials: str, processes: str) -> None:
    """Make trials until none is left."""
    # Of eight on a busy machine one may be silent for a while; where one is killed, nobody should wait for long.
    study.BEAT = database.BEAT = 1
    database.SILENCE = 60 if int(processes) == 8 else 3

    def note(word: str, number: int, settings: dict[str, Any]) -> None:
        with Path(record).open("a") as stream:
            stream.write(f"{word} {number} {sorted(settings.items())} {os.getpid()}\n")

    def train(settings: dict[str, Any], watch: Watch) -> None:
        note("begins", watch.trial.number, settings)
        time.sleep(float(seconds))
        watch.best = settings["a.lr"] + settings["b"]
        note("done", watch.trial.number, settings)

    with open_study(plan(url, trials=int(trials))) as shared:
        shared.fill()
        work(shared, train)


def main(*words: str) -> int:
    """Fork; return 0 if all that were forked have ended so."""
    for _ in range(int(words[-1])):
        if os.fork() == 0:
            code = 1
            try:
                search(*words)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
    codes = [os.wait()[1] for _ in range(int(words[-1]))]
    return int(any(codes))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
