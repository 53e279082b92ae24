"""Where everything comes from: declared, locked, and in CI by commit."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_imported_is_declared() -> None:
    extra = PROJECT["optional-dependencies"]["sweep"]  # whose absence is a line of its own
    declared = {plain(Requirement(text).name) for text in [*PROJECT["dependencies"], *extra]} | {"unstall"}
    distributions = packages_distributions()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in {name.partition(".")[0] for name in modules}:
                if module in sys.stdlib_module_names or module in ("unstall", "lesson", "tomli", "tomllib"):
                    continue
                assert declared & {plain(name) for name in distributions[module]}, f"{file}: {module}"


def test_the_lock_names_one_release_within_every_bound_by_hash() -> None:
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;\\]+)", LOCK, re.MULTILINE):
        locked.setdefault(plain(name), []).append(version)
    dev = PROJECT["optional-dependencies"]["dev"]
    for requirement in map(Requirement, [*PROJECT["dependencies"], *dev]):
        assert plain(requirement.name) in locked, f"{requirement}: run `make lock`"
        for version in locked[plain(requirement.name)]:
            assert requirement.specifier.contains(version), f"{requirement}, {version}: run `make lock`"
    entries = re.split(r"^(?=[\w.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_no_index_stands_in_the_lock() -> None:
    assert not re.search(r"://|index-url|find-links|trusted-host", LOCK)


@pytest.mark.parametrize("job", ["locked", "newest", "floor", "audit"])
def test_ci_runs_fixed_code_with_few_rights_and_ends(job: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    described = workflow["jobs"][job]
    assert described["timeout-minutes"] <= 60
    assert described.get("continue-on-error", False) == (job == "audit")
    for step in described["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
