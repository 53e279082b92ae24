"""Every file in configs/ opens with its command, its duration and what to expect, and keeps its word."""

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from unstall.cli.entry import main
from unstall.runs.history import read_metrics

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.yaml") if "#   expected:" in path.read_text())
"""Configs that promise something; one of your own need not."""
HEADER = re.compile(
    r"# .+\n"
    r"#   command:  unstall (?P<command>(?:fit|sweep) -c configs/(?P<name>\w+)\.yaml)\n"
    r"#   duration: \d+ s on a 2-core x86 CPU\n"
    r"#   expected: (?P<expected>\S+ [\d.]+ to [\d.]+(?:, \S+ [\d.]+ to [\d.]+)*)\n"
)
SWEEP = "sweep"
"""The one that is many runs: its word is about the best of them."""
OWN = {"space", "method", "metric"}
LESSON, SEEDS = ("lr_too_high", "mnist"), 5
"""What is held to its word for five seeds, the others for one."""


def header(name: str) -> re.Match[str]:
    found = HEADER.match((CONFIGS / f"{name}.yaml").read_text())
    assert found, f"configs/{name}.yaml does not open with its title, command, duration and expectation"
    return found


def expected(name: str) -> dict[str, tuple[float, float]]:
    ranges = [part.split() for part in header(name)["expected"].split(", ")]
    return {metric: (float(low), float(high)) for metric, low, _, high in ranges}


def train(name: str, folder: Path, mnist_dir: Path, *arguments: str) -> list[dict[str, float]]:
    """The rows of a run by exactly the header's command, but for where things lie."""
    command = shlex.split(header(name)["command"].replace("configs/", f"{CONFIGS}/"))
    places = [f"--data.data_dir={mnist_dir}", f"--logs_dir={folder}", "--trainer.enable_progress_bar=false"]
    main([*command, *places, "--trainer.accelerator=cpu", *arguments])
    tables = [read_metrics(table) for table in folder.glob("*/*/metrics.csv")]
    assert len(tables) == 1 or name == SWEEP
    return max(tables, key=lambda rows: max(row["val/accuracy"] for row in rows))


@pytest.mark.parametrize("name", NAMES)
def test_header_is_there_and_names_this_file(name: str) -> None:
    assert header(name)["name"] == name
    for low, high in expected(name).values():
        assert low < high


@pytest.mark.parametrize("name", NAMES)
def test_overlay_changes_little_and_is_an_experiment_of_its_own(name: str) -> None:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    assert config["experiment"] == name
    if name != "mnist":
        assert set(config) <= {"experiment", "model", "data", "trainer", *(OWN if name == SWEEP else ())}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), [*((name, 0) for name in NAMES), *itertools.product(LESSON, range(1, SEEDS))]
)
def test_command_keeps_its_word_on_real_mnist(name: str, seed: int, mnist_dir: Path, tmp_path: Path) -> None:
    if name == SWEEP:
        pytest.importorskip("optuna")
    rows = train(name, tmp_path, mnist_dir, *([f"--seed_everything={seed}"] if seed else []))
    for metric, (low, high) in expected(name).items():
        # A rate that is too high keeps the network down in every epoch, not only at the end.
        for row in rows if name == "lr_too_high" else rows[-1:]:
            assert low <= row[metric] <= high, (metric, row)
    if name == "lr_too_low":
        assert rows[-1]["train/loss"] > 0.85 * rows[0]["train/loss"]


def test_the_same_rate_stalls_under_one_config_and_trains_under_another() -> None:
    def rate(name: str) -> float:
        found = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
        return float(found["model"]["init_args"]["optimizer"]["init_args"]["lr"])

    assert rate("sgd_rate_one") == rate("lr_too_high")
    assert expected("sgd_rate_one")["val/accuracy"][0] > expected("lr_too_high")["val/accuracy"][1]
    # batch_too_small and batch_larger: the same samples seen, at the base's rate.
    names = "batch_too_small", "batch_larger"
    small, larger = (yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()) for name in names)
    assert small["trainer"] == larger["trainer"]
    assert small["data"]["init_args"]["train_samples"] == larger["data"]["init_args"]["train_samples"]
    assert expected("batch_larger")["val/accuracy"][0] > expected("batch_too_small")["val/accuracy"][1]
