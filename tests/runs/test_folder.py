"""Folders of runs: names, places, room on the disk."""

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.logger import Logger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unstall.errors import UsageError
from unstall.runs.folder import (
    BEST,
    CONFIG,
    LAST,
    Place,
    Run,
    RunLogger,
    check_writable,
    locate,
    log_dir,
    newest_checkpoint,
    newest_run,
    put_before_now,
    reserve,
    such_as,
)


def _reserve(experiment: Path, start: float, names: "multiprocessing.Queue[str]") -> None:
    while time.time() < start:
        pass
    for _ in range(5):
        names.put(reserve(experiment))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_names_never_collide_though_many_start_in_one_second(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    names: multiprocessing.Queue[str] = context.Queue()
    start = time.time() + 0.2
    processes = [context.Process(target=_reserve, args=(tmp_path / "e", start, names)) for _ in range(8)]
    for process in processes:
        process.start()
    reserved = [names.get(timeout=30) for _ in range(40)]
    for process in processes:
        process.join()
    assert len(set(reserved)) == 40
    assert sorted(reserved) == sorted(folder.name for folder in (tmp_path / "e").iterdir())


def test_names_sort_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = ["20251231-235959", "20260101-000000", "20260101-000000", "20260101-000000", "20260101-000001"]
    clock = iter(moments)
    monkeypatch.setattr("time.strftime", lambda _: next(clock))
    names = [reserve(tmp_path) for _ in moments]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


def test_logger_makes_no_folder_until_it_is_needed(tmp_path: Path) -> None:
    logger = RunLogger(tmp_path / "logs", "e")
    assert list(tmp_path.iterdir()) == []
    assert Path(logger.log_dir) == tmp_path / "logs" / "e" / logger.version
    assert Path(logger.log_dir).is_dir()
    assert logger.version == logger.version


def test_newest_checkpoint_is_the_run_trained_last(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    for age, name in enumerate(("b", "a")):
        file = tmp_path / "e" / name / BEST
        file.parent.mkdir(parents=True)
        file.write_bytes(b"")
        os.utime(file, (age, age))
    assert newest_checkpoint(tmp_path) == tmp_path / "e" / "a" / BEST


def test_the_newest_run_is_known_by_its_name_and_one_that_trained_comes_first(tmp_path: Path) -> None:
    assert newest_run(tmp_path) is None
    for name, files in {
        "e/20260101-000001": (CONFIG, LAST),
        "e/20260101-000002": (CONFIG, "hparams.yaml"),
        "e/20260101-000003": (CONFIG, "lr_find.yaml"),
        "f/20260101-000009": (CONFIG,),
        "g/20260101-000010": ("metrics.csv",),
    }.items():
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).touch()
    assert newest_run(tmp_path, "e") == tmp_path / "e" / "20260101-000002"
    assert newest_run(tmp_path, "e", trained=True) == tmp_path / "e" / "20260101-000001"
    assert newest_run(tmp_path, "f") == tmp_path / "f" / "20260101-000009"
    assert newest_run(tmp_path, "f", trained=True) is None
    assert newest_run(tmp_path, "g") is None


def test_an_example_is_something_that_is_there() -> None:
    assert such_as(Path("logs/e/r")) == ", such as logs/e/r"
    assert such_as(None) == "; there is none yet: unstall fit makes one"


def test_a_full_disk_is_refused_with_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "logs", 1000)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 2_000_000}))
    with pytest.raises(UsageError, match=r"logs_dir=.*2\.0 MB left.*5\.0 MB"):
        check_writable(tmp_path / "logs", 5_000_000)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in the working folder, which is the home folder."""
    folder = Path("logs/e/r")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (folder / "checkpoints").mkdir(parents=True)
    (folder / CONFIG).write_text("")
    (folder / LAST).write_bytes(b"")
    Path("link").symlink_to(folder)
    return folder


@pytest.mark.parametrize("path", ["logs/e/r", "logs/e/r/", "./logs/../logs/e/r", "link", "~/logs/e/r", "$HOME/link/"])
def test_a_run_is_the_same_however_it_is_written(path: str, run: Path) -> None:
    assert locate(path) == Place(Run(run))
    assert locate(f"{path}/checkpoints/last.ckpt") == Place(Run(run), run / LAST)


@pytest.mark.parametrize(
    ("within", "path"),
    [("", "."), ("checkpoints", ".."), ("..", "r"), ("checkpoints", "last.ckpt"), ("checkpoints", "./last.ckpt")],
)
def test_so_it_is_from_a_folder_within(within: str, path: str, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run.absolute()
    monkeypatch.chdir(run / within)
    place = locate(path)
    assert place.run is not None
    assert place.run.folder == folder
    assert place.checkpoint in (None, folder / LAST)
    assert (place.checkpoint is not None) == path.endswith("ckpt")


def test_a_checkpoint_that_was_taken_out_has_no_run_and_a_folder_that_is_none_is_refused(run: Path) -> None:
    Path(CONFIG).write_text("")  # a project's own
    Path("some").mkdir()
    for name in ("taken.ckpt", "some/taken.ckpt"):
        Path(name).write_bytes(b"")
        assert locate(f"../{Path.cwd().name}/{name}") == Place(None, Path(name))
    with pytest.raises(UsageError, match=r"run=logs/e: not a run folder"):
        locate("logs/e", "run")
    with pytest.raises(UsageError, match="no such file"):
        locate("logs/e/other")


def test_logs_in_a_folder_of_home_and_with_a_dollar_in_its_name(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("X", "y")
    assert Path(RunLogger("~/logs", "e").log_dir).parent == Path.home() / "logs" / "e"
    assert RunLogger("logs", "a$X", "r").log_dir == "logs/a$X/r"


def points(folder: Path) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [(event.step, event.value) for event in events.Scalars("a")]


def test_a_clock_that_was_set_back_hides_nothing_and_nothing_is_drawn_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment, first, purge in ((2e9, 0, None), (1e9, 3, 3), (1e9, 4, 4), (1.5e9, 5, 5)):
        with monkeypatch.context() as patch:
            patch.setattr("time.time", lambda moment=moment: moment)
            logger = RunLogger(tmp_path, "e", "r", purge_step=purge)
            for step in range(first, 7):
                logger.log_metrics({"a": first}, step)
                logger.log_metrics({"a": first}, step)
            logger.finalize("success")
    assert points(tmp_path / "e" / "r") == [(0, 0), (1, 0), (2, 0), (3, 3), (4, 4), (5, 5), (6, 5)]


def test_event_files_of_the_past_keep_their_names(tmp_path: Path) -> None:
    names = ["events.out.tfevents.1000000000.host.1.0", "events.out.tfevents.strange"]
    names += [f"events.out.tfevents.{moment}.host" for moment in ("9" * 99, "99999999999")]  # not as writers name them
    for name in names:
        (tmp_path / name).touch()
    put_before_now(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == set(names)


class Shared(Logger):
    """A logger of those that keep all runs in one folder, as W&B's does."""

    name, version = "project", "r1"

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder

    @property
    def save_dir(self) -> str | None:
        """Of all runs; None where they are kept elsewhere."""
        return None if self.folder is None else str(self.folder)

    def log_metrics(self, *_: Any, **__: Any) -> None:
        """Take anything."""

    log_hyperparams = log_metrics


def test_where_a_trainer_keeps_its_run(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"accelerator": "cpu", "default_root_dir": tmp_path / "root"}
    assert log_dir(pl.Trainer(logger=RunLogger(tmp_path, "e", "r"), **plain)) == tmp_path / "e" / "r"
    assert log_dir(pl.Trainer(logger=CSVLogger(tmp_path, "e", "r"), **plain)) == tmp_path / "e" / "r"
    assert log_dir(pl.Trainer(logger=Shared(tmp_path), **plain)) == tmp_path / "project" / "r1"
    assert log_dir(pl.Trainer(logger=Shared(None), **plain)) == tmp_path / "root" / "project" / "r1"
    assert log_dir(pl.Trainer(logger=False, **plain)) is None
    assert log_dir(pl.Trainer(logger=Shared(tmp_path), fast_dev_run=True, **plain)) is None


def test_a_folder_is_removed_if_no_training_was_begun_in_it(tmp_path: Path) -> None:
    given, made, begun = RunLogger(tmp_path, "e", "given"), RunLogger(tmp_path, "e"), RunLogger(tmp_path, "e")
    for logger in given, made, begun:
        Path(logger.log_dir).mkdir(parents=True, exist_ok=True)
        Path(logger.log_dir, "theirs.db").touch()
    Path(begun.log_dir, CONFIG).touch()
    for logger in given, made, begun, RunLogger(tmp_path, "f"):
        logger.discard()
    assert {path.name for path in (tmp_path / "e").iterdir()} == {"given", begun.version}
    assert not (tmp_path / "f").exists()
