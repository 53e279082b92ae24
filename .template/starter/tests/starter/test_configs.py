"""Every file in configs/ trains, and the base keeps its word."""

import re
from pathlib import Path

import pytest

from unstall import read_metrics, run

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "moons.yaml"


def fit(config: Path, folder: Path, *options: str) -> dict[str, float]:
    """The last row of a run's metrics."""
    return read_metrics(run(["fit", f"--config={config}", f"--logs_dir={folder}", *options]) / "metrics.csv")[-1]


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_one_epoch_of_it_runs(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    assert {"train/loss", "val/loss"} <= fit(config, tmp_path, "--trainer.max_epochs=1").keys()


@pytest.mark.slow
def test_the_base_reaches_what_its_header_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(CONFIGS.parent)
    found = re.search(r"expected: (\S+) ([\d.]+) to ([\d.]+)", BASE.read_text())
    assert found
    assert float(found[2]) <= fit(BASE, tmp_path)[found[1]] <= float(found[3])
