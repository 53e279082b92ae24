"""The page of the walk is of today's documents, and the tests that it names are there."""

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "walk.md").read_text()
DOCUMENTS = [(ROOT / name).read_text() for name in ("README.md", "docs/table.md", "docs/loggers.md")]


@pytest.fixture(scope="module")
def walk() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walk", ROOT / "benchmarks" / "walk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_its_commands_are_those_of_the_documents(walk: ModuleType) -> None:
    blocks = walk.blocks(PAGE, "console")
    walked = [re.sub(r"   # \d+ s$", "", line[2:]) for block in blocks for line in re.findall(r"^\$ .*", block, re.M)]
    printed = re.findall(r"^(?:to test it: +|\$ (?=\.venv/bin/))(.*)", PAGE, re.M)  # by a training, and by the demo
    for command in walked:
        first, logger, options = command.partition(" --trainer.logger=")
        known = [text for text in DOCUMENTS if first in text and f"{logger}{options}" in "".join(DOCUMENTS)]
        assert known or command in printed, command
    first, _, three, *_ = (walk.commands(block) for block in walk.blocks(DOCUMENTS[0], "console"))
    asked = [*first, *three, *walk.commands(walk.blocks(DOCUMENTS[1], "console")[0])[1:], "make tensorboard"]
    assert [command for command in walked if command in asked] == asked


def test_lines_are_left_out_by_the_rule_that_is_said(walk: ModuleType) -> None:
    lines = ["a", *(f"epoch {number}/4  b" for number in range(1, 5)), "c", "epoch 1/2", "epoch 2/2", "d", "epoch 1/1"]
    shown = ["a", "epoch 1/4  b", "[...]", "epoch 4/4  b", "c", "epoch 1/2", "epoch 2/2", "d", "epoch 1/1"]
    assert walk.shortened(lines) == shown
    assert walk.commands("make a   # says\n\n# no command\nmake b\n") == ["make a", "make b"]


def test_the_tests_that_hold_each_line_exist(walk: ModuleType) -> None:
    assert PAGE.endswith(walk.table_of_lines()), "python benchmarks/walk.py --table writes it anew"
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 50
    for file, test in named:
        functions = [node.name for node in ast.parse((ROOT / file).read_text()).body if hasattr(node, "name")]
        assert test in functions, f"{file}::{test}"
