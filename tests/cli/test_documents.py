"""One document on standard output, as docs/json.md has it, and everything else on standard error."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from unstall.cli.documents import alone_on_stdout, is_asked_for
from unstall.cli.entry import main

PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
SCHEMA = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "integer": int,
    "number": (int, float),
}


def faults(value: Any, schema: dict[str, Any], place: str = "$") -> list[str]:
    """What of a document is not as its schema says: the part of JSON Schema that ours uses."""
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], place)
    for several, least, most in ("oneOf", 1, 1), ("anyOf", 1, 99):
        if several in schema:
            found = [faults(value, each, place) for each in schema[several]]
            fitting = sum(not each for each in found)
            return [] if least <= fitting <= most else min(found, key=len) or [f"{place}: fits {fitting} of them"]
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{place}: {value!r} is none of {schema['enum']}"]
    kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    if not any(isinstance(value, KINDS[kind]) and (kind == "boolean") >= isinstance(value, bool) for kind in kinds):
        return [f"{place}: {value!r} is no {kinds}"]
    said: list[str] = []
    if isinstance(value, list):
        for index, each in enumerate(value):
            said += faults(each, schema.get("items", {"type": list(KINDS)}), f"{place}[{index}]")
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        said += [f"{place}: {name} is missing" for name in schema.get("required", []) if name not in value]
        for name, each in value.items():
            if name in known or isinstance(others, dict):
                said += faults(each, known.get(name, others), f"{place}.{name}")
            elif not others:
                said.append(f"{place}: {name} is not in the schema")
    return said


def test_the_schema_is_checked_at_all() -> None:
    whole = {"command": "fit", "error": "a", "exit_code": 2}
    assert faults(whole, SCHEMA) == []
    for wrong in (whole | {"more": 1}, whole | {"error": 3}, {"command": "fit"}, whole | {"exit_code": True}, []):
        assert faults(wrong, SCHEMA)


def document(words: list[str], capfd: pytest.CaptureFixture[str], code: int = 0) -> tuple[dict[str, Any], str]:
    if code:
        with pytest.raises(SystemExit) as end:
            main([*words, "--format=json"])
        assert end.value.code == code
    else:
        main([*words, "--format=json"])
    out, err = capfd.readouterr()
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert faults(found, SCHEMA) == []
    assert found["command"] == words[0]
    return found, err


def test_each_command_comes_to_one_document(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fit, err = document(["fit", "-c", "mine.yaml"], capfd)
    assert "epoch 2/2  train loss" in err
    assert fit["metrics"].keys() == {"train/loss", "train/accuracy", "val/loss", "val/accuracy"}
    assert (fit["epochs"], fit["steps"]) == (2, 20)
    assert fit["next"] == f"unstall test --ckpt_path={fit['run']}/checkpoints/best.ckpt"
    test, err = document(["test", "--ckpt_path=mine"], capfd)
    assert "test/accuracy" in err
    assert test["metrics"].keys() == {"test/loss", "test/accuracy"}
    assert (test["run"], test["checkpoint"]) == (fit["run"], fit["checkpoint"])
    error, err = document(["test", "--ckpt_path=nowhere"], capfd, code=2)
    assert error["error"].startswith("ckpt_path=nowhere: no such file")
    assert f"unstall: error: {error['error']}" in err
    assert error["exit_code"] == 2
    assert "config.yaml" in {file.name for file in Path(fit["run"]).iterdir()}
    assert "format" not in (Path(fit["run"]) / "config.yaml").read_text()


@pytest.mark.slow
def test_the_finder_and_the_diagnosis_come_to_one_document_too(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found, err = document(["lr_find", "-c", "mine.yaml", "--trainer.max_epochs=20"], capfd)
    assert "Constant rates" in err
    kept = json.loads((Path(found["run"]) / "lr_find.json").read_text())
    assert found["learning_rate"] == kept["learning_rate"]
    assert [rate["learning_rate"] for rate in found["race"]] == [rate["learning_rate"] for rate in kept["race"]]
    assert found["configured"] == pytest.approx(0.03)
    assert found["fit_steps"] == 200
    assert found["next"].startswith("unstall fit --config=")
    document(["fit", "-c", "mine.yaml", "--model.lr=1e-7", "--trainer.max_epochs=12", "--experiment=slow"], capfd)
    report, err = document(["diagnose", "slow"], capfd)
    assert "Smallest change that helps" in err
    kept = json.loads((Path(report["run"]) / "diagnosis.json").read_text())
    assert {name: report[name] for name in ("cause", "fix", "forks")} == {
        name: kept[name] for name in ("cause", "fix", "forks")
    }
    assert report["next"].startswith("unstall fit -c ")


def test_what_processes_print_is_not_in_the_document(capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess

    with alone_on_stdout() as say:
        print("of this process")
        subprocess.run(["echo", "of another"], check=True)
        say({"loss": float("nan")})
    out, err = capfd.readouterr()
    assert json.loads(out) == {"loss": None}
    assert err.splitlines() == ["of this process", "of another"] or sorted(err.splitlines()) == [
        "of another",
        "of this process",
    ]
    assert is_asked_for(["test", "--format", "json"])
    assert not is_asked_for(["test", "--format=json", "--format=text"])


def test_what_a_users_own_code_raises_is_in_the_document(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = (place / "mine.py").read_text()
    (place / "mine.py").write_text(
        code.replace(
            "def training_step(self, batch, batch_idx):", "def training_step(self, batch, batch_idx):\n        1 / 0"
        )
    )
    with pytest.raises(ZeroDivisionError):
        main(["fit", "-c", "mine.yaml", "--format=json"])
    found = json.loads(capfd.readouterr().out)
    assert found == {"command": "fit", "error": "ZeroDivisionError: division by zero", "exit_code": 1}
