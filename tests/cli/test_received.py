"""Which classes a run may name. Whole runs that were sent are in tests/hostile."""

from pathlib import Path

import pytest

from unstall.cli import signature
from unstall.cli.going_on import TakenUp
from unstall.cli.received import admit, disagreement
from unstall.cli.signature import signed
from unstall.errors import UsageError

NAMED = "model: {class_path: mine.Classifier}\n"


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of `place`'s own module, whose config is not signed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(place / "state"))
    folder = place / "logs/e/r"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints/last.ckpt").touch()
    (folder / "config.yaml").write_text(NAMED)
    return folder


def admitted(run: Path, *words: str) -> list[str]:
    args = ["fit", f"--ckpt_path={run}", *words]
    return admit(args, TakenUp(["fit", f"--config={run}/config.yaml", *words, f"--ckpt_path={run}"]))[0].args


def test_a_class_that_nothing_here_names_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match=r"config\.yaml: it names mine\.Classifier, .*--trust"):
        admitted(run)
    admitted(run, "--trust")


def test_a_run_that_was_made_here_needs_nothing(run: Path) -> None:
    (run / "config.yaml").write_text(signed(NAMED))
    admitted(run)
    signature.key_file().unlink()
    with pytest.raises(UsageError, match=r"mine\.Classifier"):
        admitted(run)


@pytest.mark.parametrize("words", [["--model=mine.Classifier"], ["--model", "mine.Classifier"], ["-c", "mine.yaml"]])
def test_what_is_typed_may_be_named(words: list[str], run: Path) -> None:
    assert set(words) <= set(admitted(run, *words))


def test_what_the_project_lists_or_starts_from_may_be_named(run: Path, place: Path) -> None:
    (place / "pyproject.toml").write_text('[tool.unstall]\nclasses = ["mine"]\n')
    admitted(run)
    (place / "pyproject.toml").write_text('[tool.unstall]\nconfig = "mine.yaml"\n')
    admitted(run)
    (place / "pyproject.toml").write_text('[tool.unstall]\nclasses = "mine"\n')
    with pytest.raises(UsageError, match=r"tool\.unstall\.classes=mine"):
        admitted(run)


def test_a_config_in_a_runs_folder_is_no_config_of_ones_own(run: Path) -> None:
    with pytest.raises(UsageError, match=r"mine\.Classifier"):
        admit(["fit", "-c", str(run / "config.yaml")], TakenUp(["fit", "-c", str(run / "config.yaml")]))


def test_places_are_told_and_taken_out(run: Path) -> None:
    (run / "config.yaml").write_text(
        "experiment: ../up\nlogs_dir: /x\ndata: {data_dir: /y}\nmodel: {class_path: a.B}\n"
    )
    words = ["fit", f"--config={run}/config.yaml"]
    taken, notes = admit(["fit", f"--ckpt_path={run}"], TakenUp(words))
    assert taken.args == ["fit", "--config=data: {}\nmodel:\n  class_path: a.B\n"]
    assert len(notes) == 1
    assert "experiment=../up, data.data_dir=/y" in notes[0]


def test_code_among_runs_is_refused_whoever_names_it(run: Path, place: Path) -> None:
    (place / "logs/own.py").write_text("raise AssertionError('imported')\n")
    for words in (["fit", "--model=logs.own.Net"], ["fit", "--model=logs.own.Net", "--trust"]):
        with pytest.raises(UsageError, match=r"logs\.own\.Net: lies in .*nothing is ever imported"):
            admit(words, TakenUp(words))


def test_hyper_parameters_are_compared_with_those_of_the_module() -> None:
    checkpoint = {"config": "", "hyper_parameters": {"lr": 0.1, "net": {"widths": [1, 2]}, "_instantiator": "x"}}
    assert disagreement("x.ckpt", checkpoint, {"lr": 0.1, "net": {"widths": [1, 2]}}) == []
    (said,) = disagreement("x.ckpt", checkpoint, {"lr": 0.2, "net": {"widths": [1, 2]}})
    assert "lr=0.1" in said
    assert "0.2" in said
    assert disagreement("x.ckpt", {"hyper_parameters": {"lr": 1}}, {"lr": 2}) == []
