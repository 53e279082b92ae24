"""Modules import one way, each has its tests, and nothing is imported that a command does not use."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unstall"
TESTS = Path(__file__).parent
MODULES = sorted(path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("__"))
# What a module may import from its own package when it is loaded; `errors` may always be imported.
LEAVES = {
    "errors",
    "batches",
    "metrics",
    "network",
    "optimizer",
    "download",
    "signals",
    "parallel",
    "classifier",
    "figures",
    "run",
}


def imports(module: str, *, lazy: bool) -> set[str]:
    """The siblings that a module imports, with or without those within functions and for types only."""
    tree = ast.parse((SOURCE / f"{module}.py").read_text())
    nodes = list(ast.walk(tree)) if lazy else tree.body
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module == "unstall":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unstall."):
            found.add((node.module or "").split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("unstall.")}
    return found


@pytest.mark.parametrize("module", sorted(LEAVES))
def test_leaves_import_no_sibling(module: str) -> None:
    assert imports(module, lazy=True) <= {"errors"}


def test_imports_go_one_way() -> None:
    graph = {module: imports(module, lazy=False) for module in MODULES}
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {module for module in graph if module not in done and graph[module] <= done}
        assert ready, f"a circle among {sorted(graph.keys() - done)}"
        done |= ready


@pytest.mark.parametrize("module", [name for name in MODULES if name not in ("network", "data", "download")])
def test_only_their_own_modules_know_the_network_and_the_data_set(module: str) -> None:
    assert "network" not in imports(module, lazy=True)
    tree = ast.parse((SOURCE / f"{module}.py").read_text())
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert not names & {"MLP", "MNISTDataModule"}


# These three are seen through the command line only: by test_bad_input, test_cli and test_configs.
@pytest.mark.parametrize("module", sorted(set(MODULES) - {"parser", "trainer"}))
def test_every_module_is_tested(module: str) -> None:
    tested = any(
        isinstance(node, ast.ImportFrom) and (node.module == f"unstall.{module}" or node.module == "unstall")
        and (node.module != "unstall" or module in {alias.name for alias in node.names})
        for file in TESTS.glob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
    )  # fmt: skip
    assert tested


@pytest.mark.slow
def test_the_command_line_imports_only_what_it_uses() -> None:
    heavy = ["matplotlib", "PIL", "torchvision", "pandas", "scipy", "sklearn", "unstall.lr_find", "unstall.forks"]
    code = f"import sys; import unstall.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    bare = "import sys, pytorch_lightning, pytorch_lightning.cli, pytorch_lightning.loggers; import torch.utils.data; "
    code = bare + f"print([name for name in {heavy} if name in sys.modules])"
    reference = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= set(ast.literal_eval(reference.stdout))
