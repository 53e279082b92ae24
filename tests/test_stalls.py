"""The benchmark of reported stalls: its entries build, their versions differ where they should, and it counts right."""

import importlib.util
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

import unstall
from unstall import UsageError

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
entries, faults, program_data, stalls, stalls_report = (
    import_module(name) for name in ("entries", "faults", "program_data", "stalls", "stalls_report")
)
ALL = entries.our_entries()
WITHOUT_SCIKIT_LEARN = importlib.util.find_spec("sklearn") is None
pytestmark = pytest.mark.filterwarnings(  # that is what is wrong with some of them
    "ignore:Using a target size", "ignore:reduction. 'mean' divides the total loss"
)


def built(entry: Any, fixed: bool) -> tuple[pl.LightningModule, Any]:
    """The module, which logs nothing, and the data of a version."""
    if entry.needs_scikit_learn and WITHOUT_SCIKIT_LEARN:
        pytest.skip("scikit-learn is not installed")
    module, data = entries.build_both(entry.config(fixed))
    module.log = lambda *_, **__: None
    data.setup("fit")
    return module, data


def loss_of(module: pl.LightningModule, batch: Any) -> torch.Tensor:
    loss = module.training_step(batch, 0)
    assert isinstance(loss, torch.Tensor)
    return loss


@pytest.mark.parametrize("entry", ALL, ids=lambda entry: entry.name)
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:`training_step` returned `None`")
def test_every_entry_builds_and_makes_a_step(mnist_dir: Path, entry: Any) -> None:
    assert set(entry.kinds) | set(entry.near) <= set(faults.NAMES)
    if entry.needs_scikit_learn and WITHOUT_SCIKIT_LEARN:
        pytest.skip("scikit-learn is not installed")
    for fixed in (False, True):
        module, data = entries.build_both(entry.config(fixed))
        trainer = pl.Trainer(accelerator="cpu", fast_dev_run=1, enable_progress_bar=False, enable_model_summary=False)
        with unstall.quiet():
            trainer.fit(module, data)
        assert trainer.global_step == 1
        assert entry.config(fixed)["trainer"]["max_epochs"] > 0


OURS = [entry for entry in ALL if entry.collection.startswith(("reported", "fresh"))]
"""Rebuilt to differ in what was wrong; those that strangers have gathered are told apart by what they come to."""


@pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.name)
@pytest.mark.filterwarnings("ignore:Detected call of")  # of a schedule, before any step
def test_a_reported_stall_is_repaired_in_one_place(mnist_dir: Path, entry: Any) -> None:
    modules, samples = [], []
    for fixed in (False, True):
        module, data = built(entry, fixed)
        configured: Any = module.configure_optimizers()
        schedule: dict[str, Any] = {}
        if isinstance(configured, dict):
            schedule = configured["lr_scheduler"]
            configured = configured["optimizer"]
        group = configured.param_groups[0]
        inputs, labels = built(entry, True)[1].training[:64]
        loss = loss_of(module, (10 * inputs if inputs.is_floating_point() else inputs, labels))
        loss.backward()
        held = {id(weight) for each in configured.param_groups for weight in each["params"]}
        reached = [id(weight) in held for weight in module.parameters() if weight.grad is not None]
        for _ in range(30 if schedule else 0):
            schedule["scheduler"].step()
        facts = [group["lr"], group["weight_decay"], schedule.get("interval"), entry.config(fixed)["trainer"]]
        modules.append([str(module), loss.item(), len(held), reached, *facts])
        first = next(iter(data.train_dataloader()))[1]
        sums = [float(part.double().sum()) for part in data.training[:]]
        samples.append([len(data.training), *sums, data.training[0][0].sum().item(), len(first.unique()) > 1])
    assert (repr(modules[0]) != repr(modules[1])) + (repr(samples[0]) != repr(samples[1])) == 1


def test_a_corrected_program_has_the_fields_of_the_correction() -> None:
    for entry in (entry for entry in ALL if entry.collection == "programs"):
        facts = program_data.table()[entry.name]
        faulty, fixed = (program_data.version(entry.name, state) for state in (False, True))
        assert {name for name in fixed if fixed[name] != faulty.get(name)} <= set(facts["fixed"])
        assert faulty != fixed
        passes = fixed.get("passes", 1)
        assert entry.fixed["trainer"]["max_epochs"] * passes == fixed["epochs"]
        assert facts["reproduces"]


def test_every_word_of_the_tool_has_a_kind() -> None:
    words = {cause.value for cause in unstall.Cause} | set(unstall.FAULTS) | set(unstall.COURSE_FAULTS)
    assert words - set(faults.QUIET) <= faults.called(list(faults.NAMES))
    assert faults.NEAR.keys() | {kind for near in faults.NEAR.values() for kind in near} <= faults.NAMES.keys()


def test_a_verdict_is_judged_by_the_true_faults() -> None:
    assert faults.judge("softmax of one unit", ["loss", "last_activation"]) == "right"
    assert faults.judge("classes compared as numbers", ["last_activation"]) == "near"
    assert faults.judge("learning rate too low", ["loss"]) == "misleading"
    assert faults.judge("learning rate too low", ["loss"], near=["rate too low"]) == "near"
    assert [faults.judge(word, ["loss"]) for word in faults.QUIET] == ["healthy", "unsure"]
    with pytest.raises(ValueError, match="add it to NAMES"):
        faults.judge("bad weather", ["loss"])


def test_a_rate_is_wrong_in_one_direction() -> None:
    entry = {"faults": ["learning_rate", "batch_size"], "faulty": {"lr": 0.1, "batch_size": 8}}
    assert faults.kinds_of(entry) == ["learning_rate", "batch_size"]
    entry["fixed"] = {"lr": 0.01, "batch_size": 32}  # type: ignore[assignment]
    assert faults.kinds_of(entry) == ["rate too high", "batch too small"]
    entry["fixed"] = {"lr": 0.01, "optimizer": "adam", "batch_size": 1}  # type: ignore[assignment]
    assert faults.kinds_of(entry) == ["learning_rate", "batch too large"]


def word(cause: str, confidence: float = 0.9, **more: Any) -> dict[str, Any]:
    return {"cause": cause, "confidence": confidence, "fix": None, "remedy": "", "forks": [], **more}


def row(name: str, fixed: bool, **more: Any) -> dict[str, Any]:
    return {
        "collection": "reported",
        "entry": name,
        "fixed": fixed,
        "seconds": {},
        "quality": 0.9 if fixed else 0.1,
        **more,
    }


def test_the_report_counts() -> None:
    wrong = [entries.Entry("reported", name, {}, {}, ("dropout",)) for name in "abcdefg"]
    healthy, high = word("healthy"), word("learning rate too high", 0.97)
    rows = [
        row("a", False, callback=word("dropout too high"), diagnose=word("dropout too high"), retrained=0.86),
        row("b", False, callback=healthy, diagnose=high, retrained=0.5),
        row("c", False, callback=word("unsure"), diagnose=word("learning rate too high", 0.9)),
        row("d", False, callback=healthy, diagnose=healthy),
        row("e", False, callback=high, refused="diagnose: several optimizers"),
        row("f", False, callback=word("unsure"), crash="diagnose: ZeroDivisionError"),
        row("g", False, callback=None, diagnose=word("unsure", remedy="no", forks=[["no", 1.0, 0.9]])),
        row("a", True, callback=high, diagnose=healthy),
        row("b", True, callback=word("overfitting"), diagnose=word("unsure")),
        row("c", True, callback=healthy, crash="diagnose: ZeroDivisionError"),
        row("f", True, callback=healthy, diagnose=high, retrained=0.98),
        row("g", True, callback=healthy, diagnose=word("healthy", remedy="learning rate 0.1")),
    ]
    lines = list(stalls_report.report(wrong, rows))
    cells = {line.split(" | ")[0].strip("| "): [cell.strip() for cell in line.strip("|").split("|")] for line in lines}
    counts = {
        name: (cells[name][1].split(" ")[-1], cells[name][3].split(" ")[-1]) for name in cells if len(cells[name]) == 5
    }
    assert lines[0] == "**reported: 7 faulty and 5 repaired, of 7**"
    assert counts["right: a true cause first"] == ("(1/7)", "(1/7)")
    assert counts["misleading"] == ("(1/7)", "(2/7)")
    assert counts["misleading at 95 % or more"] == ("(1/7)", "(1/7)")
    assert counts["unsure"] == ("(3/7)", "(1/7)")
    assert counts["called healthy"] == ("(2/7)", "(1/7)")
    assert counts["refused to diagnose"] == ("(0/7)", "(1/7)")
    assert counts["crash"] == ("(0/7)", "(1/7)")
    assert counts["repaired, and accused"] == ("(1/5)", "(2/5)")
    assert counts["the same, and the fix, retrained, brings less than 0.05"][1] == "(1/5)"
    assert counts["the fix, retrained, within 0.05 of the repaired one"][1] == "(1/5)"
    assert counts["the same, or in its trial if it is no setting"][1] == "(2/5)"
    assert cells["b"][2:6] == ["healthy, 90%", "healthy", "learning rate too high, 97%", "misleading"]
    assert cells["b"][6:] == ["0.10, 0.50, 0.90", "overfitting, 90%", "unsure, 90%"]
    assert cells["g"][-2:] == ["healthy, 90%", "healthy, 90%, with an offer"]
    assert cells["DEFault"] == ["DEFault", "17", "-"]


def test_the_page_has_what_was_measured() -> None:
    page = (ROOT / "docs" / "stalls.md").read_text()
    lines = stalls_report.report(ALL, stalls_report.read(stalls.ROWS))
    assert "\n".join(lines).rstrip() in page, "python benchmarks/stalls.py report"


def test_what_is_not_known_to_be_wrong_is_not_judged() -> None:
    (line,) = (
        line
        for line in stalls_report.report(
            [entries.Entry("reported", "a", {}, {})], [row("a", False, callback=word("x"))]
        )
        if line.startswith("| a |")
    )
    assert line.startswith("| a | ? | x, 90% | named |")


def test_a_folder_of_other_cases(tmp_path: Path) -> None:
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "c01_mine.py").write_text("")
    (folder / "c01_mine.yaml").write_text(
        "# It stalls.\n#   repaired: the same with --model.fixed=true --trainer.max_epochs=7\n"
        "model: {class_path: cases.c01_mine.Model, init_args: {fixed: false}}\ntrainer: {max_epochs: 2}\n"
    )
    (folder / "truths.yaml").write_text("c01_mine: [loss]\n")
    (entry,) = entries.other_cases(folder)
    assert entry.kinds == ("loss",)
    assert entry.faulty["model"]["init_args"] == {"fixed": False}
    assert entry.fixed["model"]["init_args"] == {"fixed": True}
    assert entry.fixed["trainer"] == {"max_epochs": 7}


def test_other_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "programs.yaml"
    file.write_text(
        "- {id: mine, data: {kind: bits, val: same}, faults: [loss], fixed: {loss: mse, epochs: 8}, "
        "faulty: {layers: [dense 8], last: linear, loss: mae, optimizer: sgd, lr: 0.1, batch_size: 4, epochs: 6}}\n"
    )
    monkeypatch.setenv("PROGRAMS", "")  # so that it is restored
    (entry,) = entries.other_programs(file)
    assert (entry.name, entry.kinds) == ("mine", ("loss",))
    assert [entry.config(fixed)["trainer"]["max_epochs"] for fixed in (False, True)] == [6, 8]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("epoch,val/loss,val/accuracy\n0,1,0.2\n1,2,0.3\n", 0.3),
        ("epoch,val_loss,val_acc,val_recall\n0,1,0.9,0.5\n", 0.5),
        ("epoch,val/r2\n0,nan\n", None),
    ],
)
def test_quality_is_what_a_run_logs_last(tmp_path: Path, table: str, expected: float | None) -> None:
    (tmp_path / "metrics.csv").write_text(table)
    assert stalls.quality(tmp_path, {}) == expected


def test_quality_of_a_regression_that_logs_its_loss_alone(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,val_loss\n0,25\n")
    config = {"data": {"class_path": "reported.Weather", "init_args": {}}}
    targets = entries.build(config, "data").parts()[1][1]
    assert stalls.quality(tmp_path, config) == pytest.approx(1 - 25 / float(targets.var()), abs=1e-4)


def test_what_fails_is_noted() -> None:
    noted: dict[str, Any] = {"seconds": {}}

    def refuse() -> Path:
        raise UsageError("several optimizers")

    assert stalls._attempt(noted, "diagnose", refuse) is None
    assert noted["refused"] == "diagnose: several optimizers"
    assert stalls._attempt(noted, "fit", lambda: Path(str(1 / 0))) is None
    assert "ZeroDivisionError" in noted["crash"]
    assert noted["seconds"].keys() == {"diagnose", "fit"}


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "measure", lambda entry, fixed: row(entry.name, fixed))
    rows, some = tmp_path / "rows.jsonl", [entries.Entry("reported", name, {}, {}) for name in "ab"]
    for part in (some[:1], some):
        stalls.run(part, rows)
    kept = [json.loads(line) for line in rows.read_text().splitlines()]
    assert [(each["entry"], each["fixed"]) for each in kept] == [("a", False), ("a", True), ("b", False), ("b", True)]


def test_the_audit_looks_at_the_first_batch(mnist_dir: Path) -> None:
    (entry,) = (entry for entry in ALL if entry.name == "one_sigmoid_for_ten_classes")
    faulty, repaired, *summary = stalls.audit([entry])
    assert faulty.startswith("one_sigmoid_for_ten_classes (faulty, right): more classes than outputs!")
    assert repaired.startswith("one_sigmoid_for_ten_classes (repaired): ")
    assert summary[0] == "faulty, the first named: right 1"
