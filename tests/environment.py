"""Environments in which nothing of this clone can be imported, made of the present one at no cost."""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("unstall", "lesson", "__editable__")


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command with one thread and no Python path; what it printed is in the error if it fails."""
    # VENV, PYTHON and LOCK are what our Makefiles install into, and what: that of a fork must not be ours.
    left = ("PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "VENV", "PYTHON", "LOCK")
    inherited = {name: value for name, value in os.environ.items() if name not in left}
    environment = {**inherited, "OMP_NUM_THREADS": "1", **variables}
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


def others(folder: Path) -> Path:
    """Fill a folder with links to all that is installed here, but for this project."""
    folder.mkdir()
    for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(place).iterdir():
            if not entry.name.startswith(OURS):
                (folder / entry.name).symlink_to(entry)
    return folder


def environment(folder: Path, libraries: Path) -> Path:
    """Make a virtual environment with the libraries of `others`; return its folder of programs."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(f"{libraries}\n")
    (folder / "bin/ruff").symlink_to(Path(sysconfig.get_path("scripts"), "ruff"))  # its module looks for it there
    (folder / ".ready").touch()  # for our Makefiles: nothing is to be installed
    return folder / "bin"


def install(programs: Path, *packages: str | Path, cwd: Path) -> None:
    """Install as a user would, but from what is here."""
    python = programs / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--disable-pip-version-check"]
    installer = pip if importlib.util.find_spec("pip") else ["uv", "pip", "install", "--python", python]
    run(*installer, "-q", "--no-deps", "--no-index", "--no-build-isolation", *packages, cwd=cwd)


def copy_of_this(folder: Path) -> Path:
    """Copy what git tracks or would track."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():  # and not one that was deleted
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a copy of this repository."""
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    folder.mkdir(exist_ok=True)
    run(sys.executable, "-c", code, folder, cwd=source)
    (built,) = folder.glob("*.whl")
    return built
