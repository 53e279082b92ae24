"""Runs of the version before the rooms: their class paths are translated; a config is told the present ones."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unstall.cli import main

OPTIONS = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


@pytest.fixture
def run(tmp_path: Path, tiny_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path("logs/former/20261125-130635")
    shutil.copytree(Path(__file__).parent / "former", tmp_path / folder)
    (tmp_path / "data").symlink_to(tiny_mnist_dir)
    monkeypatch.chdir(tmp_path)
    return folder


def test_it_is_evaluated_to_the_numbers_that_it_had(run: Path) -> None:
    main(["validate", f"--ckpt_path={run}", *OPTIONS])
    with (run / "metrics.csv").open() as stream:
        losses = [float(row["val/loss"]) for row in csv.DictReader(stream)]
    found = EventAccumulator(str(run)).Reload().Scalars("validate-val/loss")[-1].value
    assert found == pytest.approx(min(losses), rel=1e-5)


@pytest.mark.parametrize("given", ["", "checkpoints/last.ckpt"])
def test_it_is_tested(given: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["test", f"--ckpt_path={run / given}", *OPTIONS])
    assert Path(capsys.readouterr().out.splitlines()[-1]) == run
    assert (run / "confusion_matrix.png").is_file()


def test_it_goes_on_and_its_config_has_the_present_names(run: Path) -> None:
    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=3", *OPTIONS])
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 3
    config = (run / "config.yaml").read_text()
    assert yaml.safe_load(config)["model"]["class_path"] == "lesson.module.LitClassifier"
    assert "unstall.callbacks" not in config


def test_it_is_diagnosed_and_its_fix_trains(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["diagnose", str(run)])
    out = capsys.readouterr().out
    assert json.loads((run / "diagnosis.json").read_text())["cause"] == "learning rate too low"
    assert yaml.safe_load((run / "fix.yaml").read_text())["model"]["class_path"] == "lesson.module.LitClassifier"
    words = next(line for line in out.splitlines() if " fit -c " in line).split()
    main([*words[words.index("fit") :], "--trainer.max_epochs=1", *OPTIONS])
    again = Path(capsys.readouterr().out.splitlines()[-1])
    assert again != run
    rates = [yaml.safe_load((folder / "hparams.yaml").read_text())["learning_rate"] for folder in (run, again)]
    assert rates[0] == 1e-6 < 1e-4 < rates[1]


@pytest.mark.parametrize(
    ("config", "former", "present"),
    [
        ("model: {class_path: unstall.classifier.LitClassifier}", *("unstall.classifier.", "lesson.module.Lit")),
        ("model: {init_args: {network: {class_path: unstall.network.MLP}}}", *("unstall.network", "lesson.network.M")),
        ("data: {class_path: unstall.data.MNISTDataModule}", *("unstall.data.MN", "lesson.datamodule.MNISTDataModule")),
        ("trainer: {callbacks: [{class_path: unstall.monitor.Diagnosis}]}", *("unstall.monitor.", "unstall.Diagnosis")),
        ("trainer: {profiler: {class_path: unstall.trainer.NoProfiler}}", *("unstall.trainer.", "unstall.NoProfiler")),
    ],
)
def test_a_config_of_today_is_told_the_present_name(
    config: str, former: str, present: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("logs")
    Path("mine.yaml").write_text(config)
    with pytest.raises(SystemExit) as end:
        main(["fit", "-c", "mine.yaml", *OPTIONS])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert former in line
    assert present in line
    assert not Path("logs").exists()


def test_so_is_a_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--model.network=unstall.network.MLP", *OPTIONS])
    assert "is called lesson.network.MLP now" in capsys.readouterr().err
