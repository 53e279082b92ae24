"""Four forks: each passes its own checks, trains and finds a rate, with nothing of ours in it and nothing to mend."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import write_mnist
from environment import ROOT, copy_of_this, environment, install, others, run, wheel

pytestmark = pytest.mark.slow
pytest.importorskip("copier")

TITLE, AUTHOR = 'Owls & "Others"', "Ada O'Hara"
# Before and after `conftest` and `unstall` in the alphabet, as short and as long as can be: imports stay sorted, lines
# stay within their length.
PACKAGES = {
    (True, "vendored"): "zoo_of_the_southern_hemisphere",
    (True, "installed"): "a",
    (False, "vendored"): "utopian_owls",
    (False, "installed"): "bats2",
}
COPIER = (sys.executable, "-m", "copier")
# The lesson's configs promise a result, and its tests hold each of them to it.
CONFIG = """\
# One more config
#   command:  unstall fit -c configs/mine.yaml
#   duration: 1 s on a 2-core x86 CPU
#   expected: val/accuracy 0.0 to 1.0
experiment: mine
trainer: {max_epochs: 1}
"""


def commit(repository: Path, version: str) -> None:
    run("git", "init", "-q", "-b", "main", cwd=repository)
    run("git", "add", "-A", cwd=repository)
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    run("git", *identity, "commit", "-q", "-m", version, cwd=repository)
    run("git", "tag", version, cwd=repository)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this repository as a template, its wheel in `dist`, and the libraries."""
    place = tmp_path_factory.mktemp("workshop")
    others(place / "libraries")
    wheel(copy_of_this(place / "source"), place / "dist")
    commit(copy_of_this(place / "template"), "1.0.0")
    return place


def fork(workshop: Path, folder: Path, package: str, lesson: bool, instruments: str, *answers: str) -> Path:
    data = [f"package={package}", f"title={TITLE}", f"author={AUTHOR}", f"lesson={lesson}", *answers]
    words = [word for answer in [*data, f"instruments={instruments}"] for word in ("-d", answer)]
    run(*COPIER, "copy", "--trust", "--defaults", "-q", *words, workshop / "template", folder, cwd=workshop)
    return folder


def tracked(repository: Path) -> list[str]:
    return run("git", "ls-files", "-z", cwd=repository).stdout.split("\0")[:-1]


def traces(repository: Path, lesson: bool) -> list[str]:
    """Where something of ours is left that does not belong there, as `file: line`."""
    ours = r"\bUnstall\b|Why training stalls|shows why training stalls|benchmarks|\bdocs/|\[=|=\]|\[%"
    words = r"\b(from|import) lesson\b|\blesson\.[a-z_]|/lesson\b" if lesson else r"(?i)lesson|mnist|starter"
    pattern = re.compile(f"{words}|{ours}" if lesson else f"{words}|(?-i:{ours})")
    return [
        f"{name}: {line}"
        for name in tracked(repository)
        if not name.startswith("src/unstall/")
        for line in [name, *(repository / name).read_text().splitlines()]
        if pattern.search(line.replace("lesson: false", ""))  # the answer to copier's question
    ]


@pytest.mark.parametrize(("lesson", "instruments"), PACKAGES)
def test_a_fork_is_complete(lesson: bool, instruments: str, workshop: Path, tmp_path: Path) -> None:
    package = PACKAGES[lesson, instruments]
    (built,) = (workshop / "dist").glob("*.whl")
    home = fork(workshop, tmp_path / "home", package, lesson, instruments, f"requirement={built}")
    assert run("git", "rev-list", "--count", "HEAD", cwd=home).stdout == "1\n"

    # What it holds: theirs by name, a test for each module, the instruments only where they were asked for.
    assert not traces(home, lesson)
    assert AUTHOR in (home / "LICENSE").read_text()
    assert (home / "README.md").read_text().startswith(f"# {TITLE}\n")
    (_, ours), (whom, promised) = ((place / "SECURITY.md").read_text().split("\n\n## ", 1) for place in (ROOT, home))
    assert promised == ours
    assert AUTHOR in whom
    modules = {file.stem for file in (home / "src" / package).glob("[!_]*.py")}
    assert modules
    assert {f"test_{name}" for name in modules} <= {file.stem for file in (home / "tests" / package).glob("*.py")}
    if lesson:
        assert modules == {file.stem for file in (ROOT / "src/lesson").glob("[!_]*.py")}
    theirs, ours = (
        {name: (place / name).read_bytes() for name in tracked(place) if name.startswith("src/unstall/")}
        for place in (home, workshop / "template")
    )
    licence = {"src/unstall/LICENSE": (ROOT / "LICENSE").read_bytes()}
    assert theirs == ({**ours, **licence} if instruments == "vendored" else {})

    # What is imported: the fork's package, and the instruments of the tree or of the wheel; never this clone's.
    programs = environment(home / ".venv", workshop / "libraries")
    install(programs, *([built] if instruments == "installed" else []), "-e", home, cwd=home)
    code = f"import unstall, {package}; print(unstall.__file__, {package}.__file__, sep='\\n')"
    of_unstall, of_package = map(Path, run(programs / "python", "-c", code, cwd=tmp_path).stdout.split())
    assert of_package.is_relative_to(home / "src")
    assert of_unstall.is_relative_to(home / ("src" if instruments == "vendored" else ".venv"))

    # What it does, by its own commands, with a module and a config added in the obvious places.
    run("make", "check", cwd=home, MYPY_CACHE_DIR=str(workshop / "mypy"))
    (home / "src" / package / "mine.py").write_text('"""One more module."""\n')
    (home / "configs" / "mine.yaml").write_text(CONFIG)
    if (ROOT / "data/MNIST").is_dir():
        shutil.copytree(ROOT / "data/MNIST", home / "data/MNIST")
    run("make", "test-fast" if lesson else "test", cwd=home)
    options = ["--trainer.accelerator=cpu"]
    if lesson:
        options += [f"--data.data_dir={write_mnist(tmp_path / 'data')}", "--data.batch_size=64"]
    run(programs / "unstall", "fit", "-c", "configs/mine.yaml", *options, cwd=home)
    run(programs / "unstall", "lr_find", "--steps=140", *options, cwd=home)
    (fitted,) = (home / "logs/mine").iterdir()
    assert {"config.yaml", "metrics.csv", "checkpoints"} <= {file.name for file in fitted.iterdir()}
    assert list(home.glob("logs/*/*/lr_find.yaml"))
    if lesson:
        code = "from unstall.cli.project import commands; print(commands()['demo']().__module__)"
        assert run(programs / "python", "-c", code, cwd=home).stdout.strip() == f"{package}.demo"

    # What is left to do: nothing.
    (home / "src" / package / "mine.py").unlink()
    (home / "configs" / "mine.yaml").unlink()
    to_touch = run("git", "status", "--porcelain", cwd=home).stdout
    print(f"{package}: files that a forker still has to touch: {to_touch or 'none'}")
    assert not to_touch


def test_a_fork_takes_what_is_new_in_its_template(workshop: Path, tmp_path: Path) -> None:
    template = shutil.copytree(workshop / "template", tmp_path / "workshop/template")
    home = fork(template.parent, tmp_path / "home", "owls", True, "installed")
    requirement = f"unstall @ git+file://{template}"
    assert f'dependencies = ["{requirement}"]' in (home / "pyproject.toml").read_text()
    mine = (home / "src/owls/network.py").read_text() + "\n\nMINE = 1\n"
    (home / "src/owls/network.py").write_text(mine)
    (home / "configs/overfit.yaml").unlink()
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    run("git", *identity, "commit", "-q", "-a", "-m", "mine", cwd=home)

    (template / "src/lesson/schedule.py").write_text('"""New."""\n\nfrom lesson.network import MLP\n\nNEW = MLP\n')
    (template / "tests/lesson/test_schedule.py").write_text("from lesson.schedule import NEW\n")
    network = template / "src/lesson/network.py"
    network.write_text(network.read_text().replace('"""The network', '"""Still the network', 1))
    commit(template, "2.0.0")
    run(*COPIER, "update", "--trust", "--defaults", "-q", cwd=home)

    assert (home / "src/owls/schedule.py").read_text() == '"""New."""\n\nfrom owls.network import MLP\n\nNEW = MLP\n'
    assert (home / "tests/owls/test_schedule.py").read_text() == "from owls.schedule import NEW\n"
    assert (home / "src/owls/network.py").read_text() == mine.replace('"""The network', '"""Still the network', 1)
    changed = {line[3:] for line in run("git", "status", "--porcelain", cwd=home).stdout.splitlines()}
    new = {"src/owls/schedule.py", "tests/owls/test_schedule.py"}
    assert changed == {".copier-answers.yml", "src/owls/network.py", *new}
    assert run("git", "rev-list", "--count", "HEAD", cwd=home).stdout == "2\n"


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("package=unstall", "package=unstall"),
        ("package=my-owls", "package=my-owls"),
        ("package=class", "package=class"),
        ("author= ", "author"),
        ("requirement=dist/unstall.whl", "requirement=dist/unstall.whl"),
    ],
)
def test_an_answer_that_cannot_be_is_refused(answer: str, named: str, workshop: Path, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=named):
        fork(workshop, tmp_path / "home", "owls", False, "installed", answer)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("requirement", "dependency"),
    [
        (">=0.1", "unstall>=0.1"),
        ("unstall==0.1.0", "unstall==0.1.0"),
        ("/a place/unstall-0.1.0-py3-none-any.whl", "unstall @ file:///a%20place/unstall-0.1.0-py3-none-any.whl"),
    ],
)
def test_a_requirement_is_what_pip_takes(requirement: str, dependency: str, workshop: Path, tmp_path: Path) -> None:
    home = fork(workshop, tmp_path / "home", "owls", False, "installed", f"requirement={requirement}")
    assert f'dependencies = ["{dependency}"]' in (home / "pyproject.toml").read_text()
