"""A base config brings nothing to a class that it was not written for."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonargparse import Namespace

from unstall.cli.classes import classes_given, why_not_loaded, without_foreign_arguments
from unstall.cli.entry import main

BASE = """
model:
  class_path: mine.Classifier
  init_args: {hidden: 4, lr: 0.5}
data:
  class_path: mine.Points
  init_args: {batch_size: 7}
trainer: {accelerator: cpu, max_epochs: 1, enable_progress_bar: false}
"""
OTHERS = """
import mine
import torch


class Parts(mine.Classifier):
    def __init__(self, network: torch.nn.Module, optimizer="adam", lr: float = 0.03) -> None:
        super().__init__(2, lr)


class Gelu(torch.nn.Linear):
    def __init__(self, activation: str = "gelu", width: int = 3) -> None:
        super().__init__(width, width)


class Relu(torch.nn.Linear):
    def __init__(self, activation: str = "relu", width: int = 5) -> None:
        super().__init__(width, width)


class Other(mine.Classifier):
    pass


class OtherPoints(mine.Points):
    pass
"""


@pytest.fixture
def based(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose base config names classes of its own."""
    import sys

    (place / "pyproject.toml").write_text('[tool.unstall]\nconfig = "base.yaml"\n')
    (place / "base.yaml").write_text(BASE)
    (place / "others.py").write_text(OTHERS)
    monkeypatch.delitem(sys.modules, "others", raising=False)
    return place


def resolved(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    with pytest.raises(SystemExit):
        main(["fit", *words, "--print_config"])
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.usefixtures("based")
def test_ones_own_class_has_its_own_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    config = resolved(capsys, "--model=others.Other", "--data=others.OtherPoints")
    assert config["model"] == {"class_path": "others.Other", "init_args": {"hidden": 16, "lr": 0.03}}
    assert config["data"]["init_args"] == {"batch_size": 20}
    config = resolved(capsys, "--model=others.Other", "--model.lr=0.2")
    assert config["model"]["init_args"] == {"hidden": 16, "lr": 0.2}
    assert config["data"]["init_args"] == {"batch_size": 7}, "the base's class was not replaced"


def test_so_it_is_from_a_file_and_where_the_base_is_named_as_well(
    based: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (based / "own.yaml").write_text(
        "model: {class_path: others.Other, init_args: {hidden: 5}}\ndata: others.OtherPoints"
    )
    for words in (["-c", "own.yaml"], ["-c", "base.yaml", "--config=own.yaml"]):
        config = resolved(capsys, *words)
        assert config["model"]["init_args"] == {"hidden": 5, "lr": 0.03}
        assert config["data"]["init_args"] == {"batch_size": 20}


@pytest.mark.usefixtures("based")
def test_the_bases_class_keeps_its_arguments_however_it_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--model=mine.Classifier"], ["--model.class_path=mine.Classifier"], ["--model.lr=0.5"]):
        assert resolved(capsys, *words)["model"]["init_args"] == {"hidden": 4, "lr": 0.5}


def test_a_part_that_is_replaced_has_its_own_defaults_too(based: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {"network": {"class_path": "others.Relu", "init_args": {"activation": "relu", "width": 9}}}
    optimizer: dict[str, Any] = {"class_path": "torch.optim.RMSprop", "init_args": {"lr": 0.5, "eps": 1e-3}}
    base = yaml.safe_load(BASE)
    base["model"] = {"class_path": "others.Parts", "init_args": {**parts, "optimizer": optimizer}}
    (based / "base.yaml").write_text(yaml.safe_dump(base))
    arguments = resolved(capsys, "--model.network=others.Gelu")["model"]["init_args"]
    assert arguments["network"] == {"class_path": "others.Gelu", "init_args": {"activation": "gelu", "width": 3}}
    assert arguments["optimizer"]["init_args"].items() >= optimizer["init_args"].items(), "what is not replaced stays"
    arguments = resolved(capsys, "--model=others.Parts", "--model.network.width=2")["model"]["init_args"]
    assert arguments["network"]["init_args"] == {"activation": "relu", "width": 2}


def test_words_and_files_say_which_classes_are_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("model: {class_path: m.A, init_args: {network: {class_path: m.N}, lr: 1}}\ndata: m.D")
    words = ["-c", str(file), "--model.init_args.optimizer", "AdamW", "--data.class_path=m.E", "--trainer.max_epochs=3"]
    given = classes_given(words)
    assert {name: given[name] for name in ("model", "model.network", "model.optimizer", "data")} == {
        "model": "m.A",
        "model.network": "m.N",
        "model.optimizer": "AdamW",
        "data": "m.E",
    }
    assert classes_given(["-c", "gone.yaml", "--config", "a: [", "-c"]) == {}


def test_one_class_by_two_names_is_one_class() -> None:
    def defaults() -> Namespace:
        adam = Namespace(class_path="torch.optim.adam.Adam", init_args=Namespace(lr=1.0))
        return Namespace(model=Namespace(class_path="m.M", init_args=Namespace(optimizer=adam)))

    for name in ("Adam", "torch.optim.Adam", "torch.optim.adam.Adam"):
        assert without_foreign_arguments(defaults(), {"model.optimizer": name}) == defaults()
    for name in ("AdamW", "torch.optim.AdamW", "collections.Counter"):
        other = without_foreign_arguments(defaults(), {"model.optimizer": name}).model.init_args.optimizer
        assert "lr" not in other.init_args, "no argument is left to the class in its place"
    assert without_foreign_arguments(defaults(), {"model": "collections.Counter"}).model is None
    assert without_foreign_arguments(defaults(), {"model": "no.such.Class"}) == defaults(), "the parser says so"
    assert without_foreign_arguments(defaults(), {"model.lr": "1", "no.such": "x"}) == defaults()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import no_such_package_x",
            "line 1: ModuleNotFoundError: No module named 'no_such_package_x'; install no_such_p",
        ),
        ("\n\ndef f(a: Optionl): pass", "line 3: NameError: name 'Optionl' is not defined; mend it"),
        ("class Net(", "line 1: SyntaxError: '(' was never closed; mend it"),
        ("def g():\n    1 / 0\ng()", "line 2: ZeroDivisionError: division by zero; mend it"),
    ],
)
def test_a_module_that_does_not_load_is_told_with_its_place(
    code: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "broken_of_mine.py").write_text(code)
    for words in (["--model=broken_of_mine.Net"], ["-c", "more.yaml"]):
        (place / "more.yaml").write_text("model: {class_path: broken_of_mine.Net}")
        with pytest.raises(SystemExit) as end:
            main(["fit", "-c", "mine.yaml", *words])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"unstall: error: model=broken_of_mine.Net: broken_of_mine.py, {said}")
    assert not (place / "logs").exists()


def test_a_module_that_is_not_there_or_loads_has_no_such_reason() -> None:
    assert why_not_loaded({"model": "no_such_module_x.Net", "data": "collections.abc.Nothing", "x": "a b.c"}) is None
