"""What is put before the words that were typed. Whole runs that go on are in tests/test_resume.py."""

from pathlib import Path

import pytest
import torch
import yaml

from unstall.cli.going_on import (
    TakenUp,
    check_agreement,
    folder_of,
    logs_in,
    take_up,
    take_up_for_diagnosis,
    with_newest_runs,
    with_run_configs,
)
from unstall.errors import UsageError

FORMER = "trainer: {callbacks: [{class_path: unstall.monitor.Diagnosis}]}\n"
PRESENT = FORMER.replace("unstall.monitor.", "unstall.")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "logs" / "e" / "r"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(FORMER)
    whole = {"state_dict": {}, "config": FORMER, "epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.6.6"}
    whole |= {"optimizer_states": [], "lr_schedulers": []}
    torch.save(whole, folder / "checkpoints" / "last.ckpt")
    return folder


def test_a_checkpoint_brings_its_config_and_its_place(run: Path) -> None:
    file = run / "checkpoints" / "last.ckpt"
    taken = take_up(["fit", "--ckpt_path", str(run), "--trainer.max_epochs=9"], str(run))
    place = [f"--logs_dir={run.parent.parent}", "--experiment=e"]
    assert taken.args == ["fit", f"--config={PRESENT}", *place, "--trainer.max_epochs=9", f"--ckpt_path={file}"]
    assert (taken.run_name, taken.checkpoint and taken.checkpoint["epoch"]) == ("r", 1)
    assert taken.lock is not None
    taken.lock.release()
    moved = file.rename(run.parent / "moved.ckpt")
    taken = take_up(["test", f"--ckpt_path={moved}"], str(moved))
    assert taken.args == ["test", f"--config={PRESENT}", f"--ckpt_path={moved}"]
    assert taken.run_name is None


def test_a_run_without_a_checkpoint_begins_again_under_its_name(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "last.ckpt").unlink()
    taken = take_up(["fit", f"--ckpt_path={run}"], str(run))
    place = [f"--logs_dir={run.parent.parent}", "--experiment=e"]
    assert taken.args == ["fit", f"--config={run}/config.yaml", *place]
    assert (taken.run_name, taken.step) == ("r", 0)  # what it had logged is forgotten
    assert capsys.readouterr().out == f"{run} has no checkpoint yet: it starts again\n"
    assert taken.lock is not None
    taken.lock.release()
    with pytest.raises(UsageError, match="no checkpoint yet"):
        take_up(["test", f"--ckpt_path={run}"], str(run))


@pytest.mark.parametrize("words", [["{}"], ["--run={}"], ["--run", "{}"], ["{}", "--verify=true"]])
def test_a_run_to_diagnose_in_any_form(words: list[str], run: Path) -> None:
    taken = take_up_for_diagnosis(["diagnose", *(word.format(run) for word in words)])
    more = ["--verify=true"] if "--verify=true" in words else []
    assert taken.args == ["diagnose", f"--config={run / 'config.yaml'}", f"--run={run}", *more]
    assert taken.checkpoint is not None
    assert folder_of(run / "checkpoints" / "last.ckpt") == run


def test_no_run_to_diagnose(tmp_path: Path) -> None:
    for words in (["diagnose"], ["diagnose", "--verify=true"]):
        with pytest.raises(UsageError, match="run: diagnose needs a run"):
            take_up_for_diagnosis(words)
    with pytest.raises(UsageError, match="not a run folder"):
        folder_of(tmp_path)


@pytest.mark.parametrize("form", [["-c", "{}"], ["--config", "{}"], ["--config={}"], ["-c={}"]])
def test_configs_in_a_runs_folder_are_told_the_present_names_and_no_others(form: list[str], run: Path) -> None:
    mine = run.parent / "mine.yaml"
    mine.write_text(FORMER)
    for given, wanted in ((run / "config.yaml", PRESENT), (mine, mine), ("a: 1", "a: 1")):
        words = [word.replace("{}", str(given)) for word in form]
        assert with_run_configs(TakenUp(["fit", *words])).args == ["fit", *(w.replace("{}", str(wanted)) for w in form)]


def test_what_contradicts_the_checkpoint_is_refused_but_for_places() -> None:
    config = {"model": {"init_args": {"lr": 0.1}}, "data": {"init_args": {"batch_size": 2, "data_dir": "a"}}}
    checkpoint = {"config": yaml.safe_dump(config), "epoch": 1}

    def check(stage: str, lr: float = 0.1, batch_size: int = 2, max_epochs: int | None = None) -> None:
        data = {"init_args": {"batch_size": batch_size, "data_dir": "elsewhere"}}
        ours = {"model": {"init_args": {"lr": lr}}, "data": data}
        check_agreement(stage, "x.ckpt", checkpoint, yaml.safe_dump(ours), max_epochs)

    check("fit")
    check("test", batch_size=3)
    with pytest.raises(UsageError, match=r"data\.batch_size=3 contradicts 2"):
        check("fit", batch_size=3)
    with pytest.raises(UsageError, match=r"model\.lr=0.2 contradicts 0.1"):
        check("test", lr=0.2)
    check("fit", max_epochs=3)
    check("fit", max_epochs=-1)
    with pytest.raises(UsageError, match=r"max_epochs=2: .* give more, such as --trainer.max_epochs=4"):
        check("fit", max_epochs=2)
    checkpoint = {"config": "{model: {x: .nan}}", "epoch": 1, "global_step": 20}
    check_agreement("fit", "x.ckpt", checkpoint, "{model: {x: .nan}, trainer: {max_steps: 21}}", None)
    with pytest.raises(UsageError, match=r"max_steps=20: .* trained for 20 steps; .* --trainer.max_steps=40"):
        check_agreement("fit", "x.ckpt", checkpoint, "{model: {x: .nan}, trainer: {max_steps: 20}}", None)
    check_agreement("fit", "x.ckpt", {"epoch": 5}, "{}", 1)  # plain Lightning's: it says nothing of a config


def test_an_experiment_means_its_newest_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parents[2])
    (run.parent / "s").mkdir()
    (run.parent / "s" / "config.yaml").write_text(FORMER)  # newer, and a mere search
    for words, replaced in [
        (["diagnose", "e"], ["diagnose", "logs/e/r"]),
        (["diagnose", "logs/e", "--verify=true"], ["diagnose", "logs/e/r", "--verify=true"]),
        (["diagnose", "--run=e"], ["diagnose", "--run=logs/e/r"]),
        (["test", "--ckpt_path", "e"], ["test", "--ckpt_path", "logs/e/r"]),
        (["fit", "--ckpt_path=e"], ["fit", "--ckpt_path=logs/e/r"]),
    ]:
        found, (note,) = with_newest_runs(words)
        assert found == replaced
        assert note.endswith(": its newest run, logs/e/r")
    for words in (["diagnose", "logs/e/r"], ["test", "--ckpt_path=nothing"], ["diagnose", ".."], ["fit", "-c", "e"]):
        assert with_newest_runs(words) == (words, [])


def test_experiments_lie_where_the_command_line_or_the_base_config_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text("logs_dir: elsewhere\n")
    (tmp_path / "pyproject.toml").write_text('[tool.unstall]\nconfig = "base.yaml"\n')
    assert logs_in(["fit"]) == Path("elsewhere")
    assert logs_in(["fit", "--logs_dir=here"]) == Path("here")
