"""The same from Python."""

import sys
from pathlib import Path

import pytest

import unstall


def test_run_a_command_and_diagnose_its_run(place: Path) -> None:
    run = unstall.run(["fit", "-c", "mine.yaml", "--model.lr=1e-7"])
    assert (run / "checkpoints" / "last.ckpt").is_file()
    report = unstall.diagnose(run)
    assert report.verdict.cause == unstall.Cause.TOO_LOW
    assert report.fix is not None
    assert (run / "fix.yaml").is_file()
    with pytest.raises(unstall.UsageError, match="not a run folder"):
        unstall.diagnose(place)


@pytest.mark.usefixtures("place")
def test_diagnose_a_module_that_was_built_in_python() -> None:
    import importlib

    mine = importlib.import_module("mine")
    module = mine.Classifier(lr=1e-7)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    report = unstall.diagnose(module, mine.Points())
    assert report.verdict.cause == unstall.Cause.TOO_LOW
    assert all(before[name].equal(weight) for name, weight in module.state_dict().items())
    assert "mine" in sys.modules
