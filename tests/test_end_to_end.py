"""The command line end to end, in this process, on a small generated set."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from conftest import FIT
from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from unstall.cli.entry import main
from unstall.runs.history import read_metrics

CPU = "--trainer.accelerator=cpu"
QUIET = "--trainer.enable_progress_bar=false"
ONE_EPOCH = [*FIT, QUIET, "--trainer.max_epochs=1", "--model.network.widths=[784,16,10]"]


@pytest.fixture
def place(tmp_path: Path, tiny_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory with data."""
    (tmp_path / "data").symlink_to(tiny_mnist_dir)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(place: Path, trained: Path) -> Path:
    """A copy of the trained run, in the working directory."""
    folder = Path("logs") / "first" / trained.name
    shutil.copytree(trained, folder)
    return folder


def runs(place: Path) -> list[str]:
    return sorted(str(file.parent.relative_to(place)) for file in place.glob("logs/*/*/config.yaml"))


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def only_run(logs: Path) -> Path:
    (run,) = logs.glob("*/*")
    return run


def test_fit_ends_with_the_command_to_test_and_the_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ONE_EPOCH, "--experiment=mine", "--logs_dir=elsewhere"])
    lines = capsys.readouterr().out.splitlines()
    run = only_run(place / "elsewhere")
    assert place / lines[-1] == run
    assert run.parent.name == "mine"
    command = lines[-2].partition(":  ")[2].split()
    main([*command[command.index("test") :], CPU])
    assert capsys.readouterr().out.splitlines()[-1] == lines[-1]
    assert sorted(path.name for path in place.iterdir()) == ["data", "elsewhere"]


@pytest.mark.parametrize(
    ("stage", "given"), [("test", "folder"), ("validate", "file"), ("predict", "folder"), ("test", "absolute folder")]
)
def test_a_checkpoint_is_enough(
    stage: str, given: str, place: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = {"folder": run, "file": run / "checkpoints/best.ckpt", "absolute folder": run.resolve()}[given]
    before = {file: file.read_bytes() for file in (run / "config.yaml", run / "metrics.csv", run / "hparams.yaml")}
    main([stage, f"--ckpt_path={path}", CPU, QUIET])
    out = capsys.readouterr().out
    assert Path(out.splitlines()[-1]).resolve() == run.resolve()
    assert runs(place) == [str(run)]
    assert sorted(path.name for path in place.iterdir()) == ["data", "logs"]
    assert {file: file.read_bytes() for file in before} == before


def test_validate_repeats_the_best_epochs_numbers(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["validate", f"--ckpt_path={run}", CPU, QUIET])
    with (run / "metrics.csv").open() as stream:
        best = min(csv.DictReader(stream), key=lambda row: float(row["val/loss"]))
    events = EventAccumulator(str(run)).Reload()
    assert len(events.Scalars("val/loss")) == len((run / "metrics.csv").read_text().splitlines()) - 1
    assert events.Scalars("validate-val/loss")[-1].value == pytest.approx(float(best["val/loss"]), rel=1e-4)


def test_predictions_are_those_of_the_loaded_module(run: Path) -> None:
    main(["predict", f"--ckpt_path={run}", CPU, QUIET])
    data = MNISTDataModule(data_dir="data", batch_size=100)
    data.setup("test")
    ((inputs, _),) = data.test_dataloader()
    module = LitClassifier.load_from_checkpoint(run / "checkpoints" / "best.ckpt").eval()
    expected = module(inputs).softmax(1).detach()
    with (run / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["item"] for row in rows] == [str(index) for index in range(100)]
    assert [row["label"] for row in rows] == [str(int(k)) for k in expected.argmax(1)]
    written = torch.tensor([[float(row[f"probability_{k}"]) for k in range(10)] for row in rows])
    torch.testing.assert_close(written, expected, atol=2e-6, rtol=0)


def test_predict_takes_a_folder_of_images_of_any_size_and_colour(
    place: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place / "pictures"
    folder.mkdir()
    for label in (2, 7):  # the generated set's classes: a bright bar at height 4 + 2 x label
        image = Image.new("L", (28, 28))
        image.paste(255, (0, 4 + 2 * label, 28, 6 + 2 * label))
        image.convert("RGB").resize((56, 56), Image.Resampling.NEAREST).save(folder / f"{label}.png")
    shutil.rmtree(place / "logs" / "nothing", ignore_errors=True)
    (place / "data").unlink()  # no MNIST is needed for images of one's own, nor fetched
    monkeypatch.setattr("lesson.download.ensure", lambda *_: pytest.fail("MNIST is fetched"))
    main(["predict", f"--ckpt_path={run}", f"--data.predict_dir={folder}", CPU, QUIET])
    with (run / "predictions.csv").open() as stream:
        rows = {row["item"]: row["label"] for row in csv.DictReader(stream)}
    assert rows == {"2.png": "2", "7.png": "7"}


def test_a_checkpoint_moved_elsewhere_still_works(place: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = place / "moved.ckpt"
    (run / "checkpoints/best.ckpt").rename(moved)
    shutil.rmtree(place / "logs")
    main(["test", "--ckpt_path=moved.ckpt", CPU, QUIET])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert (folder / "confusion_matrix.png").is_file()
    assert not (folder / "checkpoints").exists()


def test_same_seed_same_weights_another_seed_others(place: Path) -> None:
    # A network without dropout, and another process' worth of random numbers drawn before.
    for logs, seed in (("a", 5), ("b", 5), ("c", 6)):
        torch.rand(seed)
        main([*ONE_EPOCH, f"--logs_dir={logs}", f"--seed_everything={seed}"])
    first, again, other = (weights(only_run(place / logs)) for logs in "abc")
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert not torch.equal(value, other[name])


NETWORK = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10))
"""


def test_more_epochs_by_checkpoint_are_the_same_as_at_once(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "with_dropout.py").write_text(NETWORK)
    arguments = [*ONE_EPOCH[:-1], "--model.network=with_dropout.Net"]
    long = "--trainer.max_epochs=3"
    main([*arguments, "--logs_dir=a", long])
    main([*arguments, "--logs_dir=b"])
    run = only_run(place / "b")
    capsys.readouterr()
    main(["fit", f"--ckpt_path={run}", long, QUIET])
    assert Path(capsys.readouterr().out.splitlines()[-1]).resolve() == run
    expected = weights(only_run(place / "a"))
    for name, value in weights(only_run(place / "b")).items():
        assert torch.equal(value, expected[name])
    tables = [(only_run(place / logs) / "metrics.csv").read_text() for logs in "ab"]
    assert tables[0] == tables[1]


def test_last_checkpoint_is_of_the_last_epoch_though_an_earlier_one_was_better(place: Path) -> None:
    main([*ONE_EPOCH, "--trainer.max_epochs=3", "--model.optimizer=SGD", "--model.optimizer.lr=0.0"])
    run = only_run(place / "logs")
    epochs = [torch.load(run / "checkpoints" / name, weights_only=True)["epoch"] for name in ("best.ckpt", "last.ckpt")]
    assert epochs == [0, 2]


def test_config_overlays_flags_and_print_config(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "over.yaml").write_text("model: {init_args: {optimizer: {init_args: {lr: 0.25}}}}\n")
    arguments = ["-c", "over.yaml", "--data.batch_size=32", "--model.optimizer=Adam"]
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *arguments, "--print_config"])
    assert exit_.value.code in (0, None)
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["init_args"]["optimizer"]["class_path"] == "torch.optim.Adam"
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.25
    assert config["data"]["init_args"]["batch_size"] == 32
    assert sorted(path.name for path in place.iterdir()) == ["data", "over.yaml"]
    (place / "printed.yaml").write_text(yaml.safe_dump(config))
    main([*ONE_EPOCH, "-c", "printed.yaml", "--data.data_dir=data", "--trainer.max_epochs=1"])


def test_fast_dev_run_leaves_nothing_behind(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([*ONE_EPOCH, "--trainer.fast_dev_run=true"])
    assert "ckpt" not in capsys.readouterr().out
    assert [path.name for path in place.iterdir()] == ["data"]


def test_no_logger_and_no_checkpoints_leave_tables(place: Path) -> None:
    main([*ONE_EPOCH, "--trainer.logger=false", "--trainer.enable_checkpointing=false"])
    assert {path.name for path in only_run(place / "logs").iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "diagnosis.json",
    }


def test_help_names_the_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    assert exit_.value.code in (0, None)
    out = capsys.readouterr().out
    for name in ("--experiment", "--logs_dir", "--trainer.max_epochs", "--ckpt_path"):
        assert name in out


@pytest.mark.slow
def test_console_script_finds_modules_in_the_working_directory(place: Path) -> None:
    (place / "mine.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n"
        "    def __init__(self) -> None:\n        super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    )
    script = Path(sys.executable).with_name("unstall")
    command = [str(script), *FIT, QUIET, "--trainer.max_epochs=1", "--model.network=mine.Net"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (place / done.stdout.splitlines()[-1] / "config.yaml").is_file()


@pytest.mark.slow
def test_diagnose_verify_trains_in_full_with_the_fix_and_says_what_came_of_it(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([*FIT, QUIET, "--trainer.max_epochs=10", "--model.optimizer.lr=1e-7", "--experiment=stalled"])
    run = only_run(place / "logs")
    before = read_metrics(run / "metrics.csv")
    capsys.readouterr()
    main(["diagnose", str(run), "--verify=true", QUIET, CPU])
    out = capsys.readouterr().out
    content = json.loads((run / "diagnosis.json").read_text())
    assert content["cause"] == "learning rate too low"
    again = Path(content["verified"]["run"])
    assert again != run
    after = read_metrics(again / "metrics.csv")
    assert len(after) == len(before)
    assert content["verified"]["original"]["val/accuracy"] == before[-1]["val/accuracy"]
    assert content["verified"]["fixed"]["val/accuracy"] == after[-1]["val/accuracy"]
    assert after[-1]["val/loss"] < 0.5 * before[-1]["val/loss"]
    assert f"verified: val/loss {before[-1]['val/loss']:.4g} -> {after[-1]['val/loss']:.4g}" in out
    fixed = yaml.safe_load((again / "config.yaml").read_text())
    assert fixed["model"]["init_args"]["optimizer"]["init_args"]["lr"] == after[0]["learning_rate"] > 1e-7
