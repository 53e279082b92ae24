"""What the README says is so: its files exist, its example trains, its commands are commands."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import unstall
from lesson.module import LitClassifier
from unstall.cli.commands import CLI
from unstall.cli.entry import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCS = [file.read_text() for file in (*ROOT.glob("docs/*.md"), ROOT / "benchmarks" / "README.md")]
ROOMS = ("cli", "sweep", "forks", "find", "watch", "causes", "audit", "trials", "runs", "data")


def block(name: str) -> str:
    """The fenced block that begins with a comment that names a file."""
    return next(text for text in re.findall(r"```\w+\n(.*?)```", README, re.DOTALL) if text.startswith(f"# {name}"))


def test_the_tree_lists_every_room_and_every_module_of_the_lesson() -> None:
    tree = README.split("## What is where")[1].split("```")[1]
    listed = set(re.findall(r"(\w+\.py)\b", tree))
    assert (
        {"network.py", "module.py", "datamodule.py"} <= listed <= {file.name for file in ROOT.glob("src/lesson/*.py")}
    )
    rooms = {folder.name for folder in ROOT.glob("src/unstall/[!_]*/")}
    assert set(re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)) == rooms
    instruments = tree.split("src/unstall/")[1]
    assert re.findall(r"^  (\w+)/ ", instruments, re.MULTILINE) == list(ROOMS)


def lesson_figures() -> dict[str, tuple[str, ...]]:
    """For each config its last training loss and validation accuracy, as `docs/lesson.md` has measured them."""
    rows = re.findall(r"^\| `(\w+)` \| .*? \| (.*?) \| .*? \| (.*?) \|$", (ROOT / "docs/lesson.md").read_text(), re.M)
    return {config: tuple(figures) for config, *figures in rows}


@pytest.mark.parametrize("name", ["README.md", "docs/README.zh.md"])
def test_the_lesson_s_figures_are_those_that_were_measured(name: str) -> None:
    measured = lesson_figures()
    text = (ROOT / name).read_text()
    told = re.findall(r"^\| `(\w+)` \| [\d.e-]+ \| (.*?) \| (.*?) \| .*\|$", text, re.MULTILINE)
    assert {config for config, *_ in told} == {"lr_too_high", "lr_too_low", "mnist", "linear_baseline"}
    assert {config: tuple(figures) for config, *figures in told} == {config: measured[config] for config, *_ in told}
    assert "2.301" in text


def test_every_page_is_linked_to_and_its_links_lead_somewhere() -> None:
    pages = {file.name: file.read_text() for file in ROOT.glob("docs/*.md")}
    linked = set(re.findall(r"\]\((?:docs/)?([\w.-]+\.md)\)", "".join([README, *pages.values()])))
    assert set(pages) <= linked
    for name, text in pages.items():
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / "docs" / link).exists(), f"{name}: {link}"


def test_keras_s_two_cells_are_the_two_configs(
    tmp_path: Path, tiny_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(# cells\.py\n.*?)```", (ROOT / "docs/from-keras.md").read_text(), re.DOTALL)
    base, too_high = (yaml.safe_load((ROOT / f"configs/{name}.yaml").read_text()) for name in ("mnist", "lr_too_high"))
    model, data = base["model"]["init_args"], base["data"]["init_args"]
    assert model["network"]["init_args"] == {"widths": [784, 512, 10], "activation": "relu", "init": "glorot_uniform"}
    assert model["optimizer"]["init_args"] == {"lr": 1e-2, "alpha": 0.9, "eps": 1e-7}
    assert (data["batch_size"], data["val_fraction"], base["trainer"]["max_epochs"]) == (128, 0.2, 10)
    assert too_high["model"] == {"init_args": {"optimizer": {"init_args": {"lr": 1.0}}}}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(tiny_mnist_dir)
    short = code.replace("max_epochs=10", "max_epochs=1, accelerator='cpu', enable_progress_bar=False")
    found: dict[str, object] = {}
    exec(compile(short, "cells.py", "exec"), found)
    assert re.findall(r"^rate (\S+): validation accuracy 0\.\d+$", capsys.readouterr().out, re.M) == ["1.0", "0.01"]
    module = found["module"]
    assert isinstance(module, LitClassifier)
    assert module.configure_optimizers().defaults == model["optimizer"]["init_args"]  # type: ignore[union-attr]


def test_its_python_uses_public_names() -> None:
    names = {name for text in (README, *DOCS) for name in re.findall(r"\bunstall\.([A-Za-z]\w*)", text)}
    assert {"find_learning_rate", "diagnose", "Diagnosis"} <= names
    assert names <= {*unstall.__all__, *ROOMS}


def test_files_it_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"configs/\w+\.yaml", README)
    assert links
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def test_its_subcommands_exist() -> None:
    commands = set(re.findall(r"^unstall (\w+)", README, re.MULTILINE)) | set(re.findall(r"`unstall (\w+)", README))
    assert commands <= {*CLI.subcommands(), "demo"}
    assert {"fit", "lr_find", "diagnose", "demo"} <= commands


def test_make_alone_lists_its_targets() -> None:
    done = subprocess.run(["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True)
    makefile = (ROOT / "Makefile").read_text()
    described = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert {line.split()[1] for line in done.stdout.splitlines()} == described
    assert {"demo", "test", "fork"} <= described


@pytest.mark.parametrize("text", [README, *DOCS])
def test_its_commands_can_be_pasted(text: str) -> None:
    commands = re.findall(r"^unstall .*", text, re.MULTILINE)
    assert not [line for line in commands if "<" in line.partition("#")[0]]


def test_its_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_first_result_comes_within_a_screen_and_a_half() -> None:
    assert README[: README.index("## The lesson")].count("\n") <= 60


def test_its_own_network_trains(
    tmp_path: Path, tiny_mnist_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(block("mine.py"))
    (tmp_path / "mine.yaml").write_text(block("mine.yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    main(["fit", "-c", "mine.yaml", f"--data.data_dir={tiny_mnist_dir}", "--trainer.max_epochs=1"])
    folder = Path(capsys.readouterr().out.splitlines()[-1])
    assert folder.parent.name == "mine"
    main(["test", f"--ckpt_path={folder}"])
    assert "test/accuracy" in capsys.readouterr().out


def test_the_table_of_causes_is_what_the_code_says(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("causes_table", ROOT / "benchmarks" / "causes.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main()
    assert (ROOT / "docs" / "causes.md").read_text() == capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
def test_the_example_in_python_finds_diagnoses_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"```python\n(# example\.py\n.*?)```", (ROOT / "docs/python.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    exec(compile(text, "example.py", "exec"), found)
    search, report, watch = found["search"], found["report"], found["watch"]
    assert isinstance(search, unstall.LearningRateSearch)
    assert isinstance(report, unstall.Report)
    assert isinstance(watch, unstall.Diagnosis)
    assert search.learning_rate > 1e-4
    assert report.verdict.cause == unstall.Cause.TOO_LOW
    assert report.fix is not None
    assert watch.verdict is not None
    assert not watch.verdict.stalled
    assert f"the pick: {search.learning_rate}" in capsys.readouterr().out
