"""Processes side by side make the trials of one study, and what they cannot go on with is said once."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning.accelerators import CPUAccelerator

from unstall.cli import workers
from unstall.cli.entry import main

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")
SPACE = """
experiment: shared
method: grid
space:
  model.lr: [0.03, 0.01, 0.003, 0.001]
"""


@pytest.fixture
def command(place: Path) -> list[str]:
    (place / "space.yaml").write_text(SPACE)
    return ["sweep", "-c", "mine.yaml", "-c", "space.yaml"]


def runs(place: Path) -> list[Path]:
    return sorted(place.glob("logs/shared/2*"))


def test_processes_fill_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 8)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    trainer: Any = SimpleNamespace(accelerator=CPUAccelerator())
    assert workers.usual_workers(trainer) == 4
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert workers.usual_workers(trainer) == 1
    other: Any = SimpleNamespace(accelerator=object())
    assert workers.usual_workers(other) == 1


@pytest.mark.slow
@needs_optuna
def test_two_processes_share_the_trials(command: list[str], place: Path) -> None:
    main([*command, "--workers=2"])
    assert len(runs(place)) == 4
    assert (place / "logs/shared/sweep/best.yaml").is_file()


@pytest.mark.slow
@needs_optuna
def test_what_no_trial_can_be_judged_by_ends_all_of_them(
    command: list[str], place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--workers=2", "--metric=val/f1", "--mode=max"])
    assert ended.value.code == 2
    assert "metric=val/f1: is not logged, but" in capfd.readouterr().err


@pytest.mark.slow
@needs_optuna
def test_interrupted_it_leaves_a_study_to_go_on_with(command: list[str], place: Path) -> None:
    words = [sys.executable, "-m", "unstall", *command, "--workers=1", "--trainer.max_epochs=300"]
    started = subprocess.Popen(
        words,
        cwd=place,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        # A shell lets what it starts in the background ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type]
    )
    end = time.monotonic() + 300
    while len(list(place.glob("logs/shared/2*/config.yaml"))) < 2 and time.monotonic() < end:
        time.sleep(0.1)
    os.kill(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=300)
    assert started.returncode == 130
    assert err.splitlines()[-1].startswith("unstall: ended by SIGINT; what is finished is kept; to go on: ")
    before = len(runs(place))
    subprocess.run(words, cwd=place, check=True, capture_output=True, timeout=600)
    assert len(runs(place)) == 5  # the one that was ended is repeated, those that were finished are not
    assert before == 2
