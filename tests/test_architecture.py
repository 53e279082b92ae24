"""The house: imports point down the list of rooms, rooms are entered by their faces, and nothing grows too long."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unstall

ROOT = Path(__file__).parents[1]
SOURCE, TESTS = ROOT / "src", ROOT / "tests"
ROOMS = ("cli", "sweep", "forks", "find", "watch", "causes", "audit", "trials", "runs", "data", "errors")
"""An import points down this list."""
FILES = sorted(SOURCE.rglob("*.py"))
MODULES = [file for file in FILES if not file.stem.startswith("__")]
LONGEST_MODULE, LONGEST_CLASS, LONGEST_LESSON = 300, 150, 800


def name_of(file: Path) -> str:
    return str(file.relative_to(SOURCE).with_suffix("")).replace("/", ".")


def imports(file: Path) -> Iterator[tuple[str, str, bool]]:
    """Each name that a file imports: the module, the name, and whether that happens when the file is loaded."""
    tree = ast.parse(file.read_text())
    loaded = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.module or "", alias.name, id(node) in loaded
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", id(node) in loaded


def room_of(module: str) -> str | None:
    """The room of a module of the instruments; None for other modules."""
    parts = module.split(".")
    return parts[1] if parts[0] == "unstall" and len(parts) > 1 else None


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down_and_enter_by_the_face(file: Path) -> None:
    own = room_of(name_of(file))
    if name_of(file) in ("unstall.__init__", "unstall.__main__"):  # the doors
        return
    for module, name, _ in imports(file):
        if module.partition(".")[0] not in ("unstall", "lesson"):
            continue
        if own is None:  # the lesson, and any project of one's own
            assert module == "unstall" or module.startswith("lesson"), f"{module}.{name} is not public"
        else:
            assert not module.startswith("lesson"), "the instruments do not know the lesson"
            room = room_of(module)
            assert room in ROOMS, f"{module}: import from a room"
            assert ROOMS.index(room) >= ROOMS.index(own), f"{own} must not import {room}"
            if room != own:
                assert module == f"unstall.{room}", f"{module}: enter by the face of {room}"


def test_imports_within_a_room_go_one_way() -> None:
    graph = {
        name_of(file): {
            module for module, _, loaded in imports(file) if loaded and room_of(module) and module.count(".") > 1
        }
        for file in MODULES
    }
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {module for module in graph if module not in done and graph[module] <= done}
        assert ready, f"a circle among {sorted(graph.keys() - done)}"
        done |= ready


def test_the_instruments_do_not_name_the_lesson() -> None:
    for file in [*SOURCE.glob("unstall/**/*.py"), *SOURCE.glob("unstall/**/*.yaml")]:
        text = file.read_text().lower()
        assert "mnist" not in text, file
        assert "import lesson" not in text, file
        assert "from lesson" not in text, file


@pytest.mark.parametrize("room", ROOMS[:-1])
def test_a_room_has_a_face(room: str) -> None:
    face = (SOURCE / "unstall" / room / "__init__.py").read_text()
    tree = ast.parse(face)
    words = ast.get_docstring(tree) or ""
    assert "In: " in words
    assert "Out: " in words
    assert "question" in words
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body), "a face holds no code"


def test_the_public_interface_is_what_the_faces_offer() -> None:
    tree = ast.parse((SOURCE / "unstall" / "__init__.py").read_text())
    (for_types,) = (node for node in tree.body if isinstance(node, ast.If))
    declared = {
        (node.module, alias.name) for node in for_types.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    rooms = {room: names.split() for room, names in unstall._ROOMS.items()}
    assert declared == {(f"unstall.{room}", name) for room, names in rooms.items() for name in names}
    assert set(unstall.__all__) == {name for names in rooms.values() for name in names}
    for name in unstall.__all__:
        assert getattr(unstall, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = unstall.nonsense


def test_importing_it_costs_nothing() -> None:
    code = "import sys, time; start = time.perf_counter(); import unstall; "
    code += "print(time.perf_counter() - start, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, torch = done.stdout.split()
    assert float(seconds) < 0.1
    assert torch == "False"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_too_long(file: Path) -> None:
    text = file.read_text()
    lines = text.splitlines()
    if len(lines) > LONGEST_MODULE:
        assert f"Over {LONGEST_MODULE} lines, because " in text
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and (node.end_lineno or 0) - node.lineno >= LONGEST_CLASS:
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert f"# Over {LONGEST_CLASS} lines, because " in lines[first - 2], node.name


def test_the_lesson_reads_in_twenty_minutes() -> None:
    tree = (ROOT / "README.md").read_text().split("## What is where")[1].split("```")[1]
    ours = ["__init__.py", *re.findall(r"\w+\.py", tree)]  # a module that somebody adds is theirs
    assert sum(len((SOURCE / "lesson" / name).read_text().splitlines()) for name in ours) <= LONGEST_LESSON


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_every_module_is_tested_in_a_file_of_its_name(file: Path) -> None:
    if file.stem == "errors" or "lesson" in file.parts:  # seen in every room; and what somebody adds there is theirs
        return
    test = TESTS / file.parent.relative_to(SOURCE / "unstall") / f"test_{file.stem}.py"
    assert test.is_file(), f"{test.relative_to(ROOT)} is missing"


@pytest.mark.parametrize("file", sorted(TESTS.glob("*/test_*.py")), ids=lambda file: str(file.relative_to(TESTS)))
def test_tests_mirror_the_rooms_and_import_downwards(file: Path) -> None:
    own = file.parent.name
    assert own in (*ROOMS, "lesson", "zoo", "packages", "hostile")
    for module, _, _ in imports(file):
        if own in ROOMS:
            assert not module.startswith("lesson"), "the instruments' tests do not need the lesson"
            room = room_of(module)
            below = room is None or (own in ROOMS and ROOMS.index(room) >= ROOMS.index(own))
            assert below, f"tests/{own} must not import {room}"


@pytest.mark.parametrize("file", sorted(ROOT.glob("benchmarks/*.py")), ids=lambda file: file.name)
def test_benchmarks_use_public_names_only(file: Path) -> None:
    for module, name, _ in imports(file):
        if module.partition(".")[0] == "unstall":
            assert module == "unstall", f"{module}.{name} is not public"


@pytest.mark.slow
def test_the_command_line_imports_only_what_it_uses() -> None:
    heavy = [
        "matplotlib",
        "PIL",
        "torchvision",
        "pandas",
        "scipy",
        "sklearn",
        "unstall.find",
        "unstall.forks",
        "lesson",
    ]
    code = f"import sys; import unstall.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare = "import sys, pytorch_lightning, pytorch_lightning.cli, pytorch_lightning.loggers; import torch.utils.data; "
    code = bare + f"print([name for name in {heavy} if name in sys.modules])"
    reference = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= set(ast.literal_eval(reference.stdout))
