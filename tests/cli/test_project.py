"""What a project brings to the command line."""

from pathlib import Path

import pytest
import yaml

from unstall.cli.project import BASE_CONFIG, RENAMED, base_configs, commands, former_name_in, with_present_names
from unstall.errors import UsageError


def test_base_of_a_project_is_found_from_any_folder_in_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert base_configs() == [str(BASE_CONFIG)]
    (place / "pyproject.toml").write_text('[tool.unstall]\nconfig = "mine.yaml"\n')
    assert base_configs() == [str(BASE_CONFIG), str(place / "mine.yaml")]
    inner = place / "a" / "b"
    inner.mkdir(parents=True)
    (place / "a" / "pyproject.toml").write_text("[project]\n")  # not one of ours
    monkeypatch.chdir(inner)
    assert base_configs() == [str(BASE_CONFIG), str(place / "mine.yaml")]


@pytest.mark.parametrize(
    ("text", "message"),
    [('[tool.unstall]\nconfig = "gone.yaml"', r"tool\.unstall\.config=gone\.yaml"), ("[tool", "not TOML")],
)
def test_a_damaged_project_is_named(text: str, message: str, place: Path) -> None:
    (place / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError, match=f"pyproject\\.toml: .*{message}|pyproject\\.toml: {message}"):
        base_configs()


def test_base_names_public_classes_only() -> None:
    import unstall

    content = yaml.safe_load(BASE_CONFIG.read_text())
    parts = [content["trainer"]["profiler"], *content["trainer"]["callbacks"]]
    assert {part["class_path"].partition(".")[2] for part in parts} <= set(unstall.__all__)
    assert set(content) == {"trainer"}  # no model, no data: a project brings its own


def test_former_names_have_present_ones_that_exist() -> None:
    import unstall

    assert {present.partition(".")[2] for present in RENAMED.values()} <= set(unstall.__all__)
    text = "callbacks: [{class_path: unstall.monitor.Diagnosis}]  # not my.unstall.monitor.Diagnosis"
    assert with_present_names(text) == text.replace("class_path: unstall.monitor.D", "class_path: unstall.D")
    assert former_name_in("--x=unstall.monitor.Diagnosis") == ("unstall.monitor.Diagnosis", "unstall.Diagnosis")
    assert former_name_in("unstall.monitor.Diagnosis2, my.unstall.monitor.Diagnosis") is None


def test_commands_are_loaded_when_they_are_asked_for() -> None:
    assert all(callable(load) for load in commands().values())
