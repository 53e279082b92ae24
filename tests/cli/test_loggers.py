"""Other makers' loggers, the real ones: every command works, and the run's folder holds all that a run keeps."""

import csv
import importlib.util
import sys
from pathlib import Path

import pytest
import yaml
from jsonargparse import Namespace
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from unstall.cli.entry import main
from unstall.cli.loggers import build_loggers
from unstall.errors import UsageError
from unstall.runs import RunLogger

CSV = "CSVLogger"
WANDB = "{class_path: WandbLogger, init_args: {offline: true, project: mine}}"
MLFLOW_HERE = "MLFlowLogger"
MLFLOW = "{class_path: MLFlowLogger, init_args: {tracking_uri: 'sqlite:///mlflow.db'}}"
TOGETHER = "[unstall.RunLogger, CSVLogger]"
KEPT = {"config.yaml", "metrics.csv", "diagnosis.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}


@pytest.fixture
def alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's folder; nothing leaves this machine, and W&B says nothing."""
    for name, value in {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_CONSOLE": "off"}.items():
        monkeypatch.setenv(name, value)
    return place


def command(words: list[str]) -> None:
    """Run a command as a process of its own would: at its end W&B's run is over."""
    main(words)
    if "wandb" in sys.modules:
        sys.modules["wandb"].finish()


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: pip install -e '.[loggers]'")


def last_line(capsys: pytest.CaptureFixture[str]) -> Path:
    return Path(capsys.readouterr().out.splitlines()[-1])


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("setting", "theirs"),
    [("false", None), (CSV, "lightning_logs/version_0/metrics.csv"), (TOGETHER, "events.out.tfevents.*")],
)
def test_a_run_has_its_folder_with_any_loggers_and_without(
    alone: Path, setting: str, theirs: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=1", f"--trainer.logger={setting}"])
    run = last_line(capsys)
    assert files_in(run) >= KEPT
    assert theirs is None or list(run.glob(theirs))
    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=2"])
    assert last_line(capsys) == run
    assert len((run / "metrics.csv").read_text().splitlines()) == 1 + 2
    main(["test", f"--ckpt_path={run}"])
    assert last_line(capsys) == run
    assert {path.name for path in alone.iterdir()} <= {"logs", "mine.py", "mine.yaml", "pyproject.toml", "__pycache__"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "theirs"),
    [
        ("false", None),
        (CSV, "lightning_logs/version_*/metrics.csv"),
        (TOGETHER, "lightning_logs/version_*/metrics.csv"),
        pytest.param(WANDB, "wandb/offline-run-*/*.wandb", marks=needs("wandb")),
        pytest.param(MLFLOW, "../../../mlflow.db", marks=needs("mlflow")),
        pytest.param(MLFLOW_HERE, "mlflow.db", marks=needs("mlflow")),
        pytest.param(f"[{MLFLOW}, {WANDB}]", "wandb/offline-run-*/*.wandb", marks=[needs("wandb"), needs("mlflow")]),
    ],
)
@pytest.mark.filterwarnings("ignore")  # theirs, which are not ours to mend
def test_every_command_works_with_it(
    alone: Path, setting: str, theirs: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = f"--trainer.logger={setting}"
    command(["lr_find", "-c", "mine.yaml", "--steps=140", logger])
    assert files_in(last_line(capsys)) >= {"lr_find.yaml", "lr_find.png", "config.yaml"}
    command(["lr_find", "-c", "mine.yaml", "--steps=140", "--fit=true", logger])
    assert files_in(last_line(capsys)) >= {*KEPT, "lr_find.yaml"}
    command(["fit", "-c", "mine.yaml", "--model.lr=1e-7", logger])
    run = last_line(capsys)
    assert files_in(run) >= KEPT
    assert theirs is None or list(run.glob(theirs))
    for stage in "validate", "test":
        command([stage, f"--ckpt_path={run}"])
        assert last_line(capsys) == run
    command(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=3"])
    assert last_line(capsys) == run
    command(["diagnose", str(run)])
    assert last_line(capsys) == run
    command(["diagnose", str(run), "--verify=true"])
    out = capsys.readouterr().out
    assert "verified: val/loss" in out
    assert len(list(Path("logs/mine").iterdir())) == 4
    stray = {path.name for path in alone.iterdir()} - {"mine.py", "mine.yaml", "pyproject.toml", "__pycache__"}
    assert stray <= {"logs", *(["mlflow.db", "mlruns"] if MLFLOW in setting else [])}


def test_a_logger_keeps_the_folder_that_it_is_given(alone: Path) -> None:
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=1", f"--trainer.logger={CSV}", "--trainer.logger.save_dir=c"])
    with Path("c/lightning_logs/version_0/metrics.csv").open() as stream:
        assert any(row.get("val/loss") for row in csv.DictReader(stream))
    (run,) = Path("logs/mine").iterdir()
    assert files_in(run) >= KEPT
    assert not (run / "lightning_logs").exists()
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["save_dir"] == "c"


def test_a_run_s_config_names_no_run(alone: Path) -> None:
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=1", f"--trainer.logger={CSV}"])
    (run,) = Path("logs/mine").iterdir()
    assert yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["save_dir"] == "."


def test_a_package_that_is_missing_is_one_line_and_leaves_nothing(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone / "missing_logger.py").write_text(
        "from pytorch_lightning.loggers import CSVLogger\n\n\nclass Missing(CSVLogger):\n"
        "    def __init__(self, save_dir: str = 'kept', offline: bool = False) -> None:\n"
        "        import a_package_of_nobody\n"
    )
    monkeypatch.syspath_prepend(str(alone))
    for command in ["fit"], ["lr_find", "--fit=true"]:
        with pytest.raises(SystemExit) as left:
            main([*command, "-c", "mine.yaml", "--trainer.logger=missing_logger.Missing"])
        assert left.value.code == 2
        assert capsys.readouterr().err == (
            "unstall: error: trainer.logger=missing_logger.Missing: No module named 'a_package_of_nobody'; install it "
            "(pip install a_package_of_nobody) or leave the logger out: --trainer.logger=true is TensorBoard\n"
        )
        assert not list(alone.glob("logs/*"))


@pytest.mark.slow
def test_a_run_is_diagnosed_where_its_logger_is_missing(
    alone: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (alone / "leaving_logger.py").write_text(
        "import os\n\nfrom pytorch_lightning.loggers import CSVLogger\n\n\nclass Leaving(CSVLogger):\n"
        "    def __init__(self, save_dir: str = '.') -> None:\n"
        "        super().__init__(save_dir)\n"
        "        if 'GONE' in os.environ:\n            import a_package_of_nobody\n"
    )
    monkeypatch.syspath_prepend(str(alone))
    main(["fit", "-c", "mine.yaml", "--model.lr=1e-7", "--trainer.logger=leaving_logger.Leaving"])
    run = last_line(capsys)
    assert (run / "lightning_logs" / "version_0" / "metrics.csv").is_file()
    monkeypatch.setenv("GONE", "1")
    for words in ["diagnose", str(run), "--verify=true"], ["test", f"--ckpt_path={run}"]:
        with pytest.raises(SystemExit) as left:
            main(words)
        assert left.value.code == 2
        assert "a_package_of_nobody" in capsys.readouterr().err
    main(["diagnose", str(run)])
    assert last_line(capsys) == run
    assert (run / "fix.yaml").is_file()


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_lightning_s_own_for_a_package_that_is_missing(
    alone: Path, package: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"pytorch_lightning.loggers.{package}")
    kind = {"wandb": "WandbLogger", "mlflow": "MLFlowLogger"}[package]
    available = {name for name in vars(module) if name.endswith("_AVAILABLE")}
    for name in available:
        monkeypatch.setattr(module, name, type(getattr(module, name))("a_package_of_nobody>=1.0"))
    with pytest.raises(SystemExit) as left:
        main(["fit", "-c", "mine.yaml", f"--trainer.logger={kind}"])
    assert left.value.code == 2
    err = capsys.readouterr().err
    assert f"{kind}: " in err
    assert "pip install -U a_package_of_nobody" in err.replace("'", "")
    assert len(err.splitlines()) == 1
    assert not list(alone.glob("logs/*/*"))


def test_what_fails_later_leaves_no_folder_of_a_logger_s(alone: Path) -> None:
    with pytest.raises(ValueError, match="batch_size"):  # the loader's own
        main(["fit", "-c", "mine.yaml", f"--trainer.logger={CSV}", "--data.batch_size=0"])
    assert not list(alone.glob("logs/*/*"))


def test_a_default_folder_lies_in_the_run_s_folder_and_another_stays(tmp_path: Path) -> None:
    run = RunLogger(tmp_path, "e")
    theirs = [
        Namespace(class_path="pytorch_lightning.loggers.CSVLogger", init_args=Namespace(save_dir=".")),
        Namespace(class_path="pytorch_lightning.loggers.TensorBoardLogger", init_args=Namespace(save_dir="there")),
        Namespace(class_path="unstall.RunLogger", init_args=Namespace(save_dir=".")),
    ]
    table, board, own = build_loggers(theirs, run)
    assert isinstance(table, CSVLogger)
    assert Path(table.save_dir) == Path(run.log_dir)
    assert isinstance(board, TensorBoardLogger)
    assert board.save_dir == "there"
    assert own is run
    assert theirs[0].init_args.save_dir == "."
    assert build_loggers(True, run) == build_loggers(None, run) == [run]
    assert build_loggers(False, run) == []


def test_a_logger_that_names_no_store_gets_a_database_in_the_run_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stored_logger.py").write_text(
        "from pytorch_lightning.loggers import CSVLogger\n\n\nclass Stored(CSVLogger):\n"
        "    def __init__(self, tracking_uri=None, save_dir='./mlruns', artifact_location=None) -> None:\n"
        "        super().__init__(save_dir)\n        self.store = tracking_uri, artifact_location\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    run, names = RunLogger(tmp_path, "e"), ("tracking_uri", "save_dir", "artifact_location")

    def store(*given: str | None) -> tuple[str, str]:
        settings = Namespace(dict(zip(names, given, strict=True)))
        setting = Namespace(class_path="stored_logger.Stored", init_args=settings)
        (logger,) = build_loggers(setting, run)
        assert isinstance(logger, sys.modules["stored_logger"].Stored)
        return logger.store  # type: ignore[no-any-return]

    there = Path(run.log_dir)
    assert store(None, "./mlruns", None) == (f"sqlite:///{there}/mlflow.db", f"file://{there}/mlruns")
    assert store(None, str(tmp_path / "a"), "s3://b") == (f"sqlite:///{tmp_path}/a/mlflow.db", "s3://b")
    assert store("http://c", "./mlruns", None) == ("http://c", None)


def test_a_logger_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    wrong = Namespace(class_path="pytorch_lightning.loggers.CSVLogger", init_args=Namespace(save_dir=".", nothing=1))
    with pytest.raises(UsageError, match=r"trainer.logger=pytorch_lightning.loggers.CSVLogger: .*nothing"):
        build_loggers(wrong, RunLogger(tmp_path, "e"))
