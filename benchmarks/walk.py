"""A walk from an empty clone, as three readers make it: `docs/walk.md`, with the terminal's words.

`python benchmarks/walk.py` installs as the README says and takes some minutes; `--venv .venv` takes over an environment
that has the requirements (with those of docs/loggers.md), `--durations` says how long each command took. It walks what
is committed. The commands are the documents' own: one that they no longer hold is an error.
"""

import argparse
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PAGE, HELD = ROOT / "docs" / "walk.md", ROOT / "benchmarks" / "data" / "walk.yaml"
README, TABLE, LOGGERS = ((ROOT / name).read_text() for name in ("README.md", "docs/table.md", "docs/loggers.md"))
CLONE = "git clone <URL of this repository> unstall && cd unstall"
COLUMNS = "110"
"""Of the terminal: what a page of code shows in a browser."""

OPENING = """# A walk from an empty clone

Three readers, each from nothing to *understood*, by the commands that the documents hold, word for word and in their
order. `python benchmarks/walk.py` walks and writes this page. The words are the terminal's own, as they are where
nothing is a terminal (a line an epoch, no bar); of lines `epoch ...` in a row only the first and the last are kept,
`[...]` for those between; `PLACE` is the folder in which the walk began.
{notes}
"""

KERAS = """
## Who has read the Keras chapter

Knows `model.fit` and nothing of Lightning. The README's first block:

{first}

The picture that it leaves, `logs/lesson.png`, is that of the README with the runs just made. Then the README's second
block, and what the first training printed as the command to go on with:

{second}

A network of one's own, the two files under *Make it yours*, `mine.py` and `mine.yaml`, and the command in the second:

{yours}
"""

LIGHTNING = """
## Who has a Lightning project and logs to W&B

Has a module and data of their own: here the two files of [table.md](table.md), in a folder that has nothing of the
lesson. The first command is that page's, with the words for W&B of [loggers.md](loggers.md); the others are as they
stand there.

{first}

What lies in the run's folder after the first of them, W&B's files among it:

{files}
"""

TENSORBOARD = """
## Who opens TensorBoard

The first two readers' runs are there. In the clone:

{first}

At that address, without a click:

![Losses, accuracies, the rate and the evidence over epochs](tensorboard-glance.png)

Under *Text* the verdict comes first, under *HParams* what differs among runs, under *Time series* the finder's race:

![The verdict in words](tensorboard-text.png)

![Runs in a table](tensorboard-hparams.png)

![Loss over the rate](tensorboard-finder.png)

The pictures are of `unstall demo`, by `python benchmarks/screenshots.py`: [what is seen where](tensorboard.md).
"""

LEFT_OUT = """
## What was not walked

- The README's block without make: it comes to the same environment, and needs an index of CPU wheels.
- `copier copy` and `make fork` ask questions; `tests/test_fork.py` answers them and runs the tests of what is made.
- `unstall sweep`, `make test` and what is under `benchmarks/` take longer than a walk: [sweep.md](sweep.md).
- `unstall fit --ckpt_path=mnist` goes on from a training that was ended; `tests/test_resume.py` ends some.
"""


@dataclass(frozen=True)
class Told:
    """A command and what the terminal said: its lines, its exit code, and how long it took."""

    command: str
    lines: list[str]
    code: int
    seconds: float


class Shell:
    """One shell for all commands, so that a folder that is entered and an environment that is activated hold.

    Args:
        place: Where it begins.
        environment: Of its commands.
    """

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self.place, self.environment, self.state = place, environment, place.parent / "state"
        self.state.write_text(f"cd {shlex.quote(str(place))}\n")

    def run(self, command: str, shown: str | None = None) -> Told:
        """Run a command where the last one ended.

        Args:
            command: A line for bash.
            shown: What the page shows in its place, where something had to be filled in.

        Raises:
            SystemExit: if it fails: the walk ends there.
        """
        keep = f'{{ echo "cd $(printf %q "$PWD")"; export -p; }} > {shlex.quote(str(self.state))}'
        script = f". {shlex.quote(str(self.state))}\n{command}\ncode=$?\n{keep}\nexit $code\n"
        start = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        told = Told(shown or command, done.stdout.splitlines(), done.returncode, time.monotonic() - start)
        print(f"$ {told.command}  ({told.seconds:.0f} s)", flush=True)
        if told.code:
            raise SystemExit(f"{done.stdout}\n{told.command}: exit code {told.code}")
        return told


def blocks(text: str, kind: str) -> list[str]:
    """Return the fenced blocks of a document."""
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[str]:
    """Return the commands of a block, without what is said beside them."""
    lines = (re.sub(r"\s+# .*", "", line).strip() for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def files_of(text: str, place: Path, *names: str) -> None:
    """Write the blocks that begin with a comment that names a file."""
    for block in re.findall(r"```(?:python|yaml)\n(# .*?)```", text, re.DOTALL):
        name = block[2:].splitlines()[0].partition(":")[0]
        if name in names:
            (place / name).write_text(block)
    assert all((place / name).is_file() for name in names)


def take_over(venv: Path, clone: Path) -> None:
    """Make the clone's `.venv` one that has what another has, and the clone itself.

    Raises:
        SystemExit: if the other lacks what the walk needs.
    """
    python = venv.absolute() / "bin" / "python"
    look = "import sys, wandb; print(*sys.path[1:], sep='\\n')"
    found = subprocess.run([python, "-c", look], capture_output=True, text=True)
    if found.returncode:
        raise SystemExit(f"--venv={venv}: it needs what `pip install -e '.[dev,loggers]'` brings\n{found.stderr}")
    subprocess.run([python, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    (packages,) = clone.glob(".venv/lib/python*/site-packages")
    (packages / "taken_over.pth").write_text(f"{clone / 'src'}\n{found.stdout}")
    program = clone / ".venv" / "bin" / "unstall"
    lines = f"#!{program.with_name('python')}", "import sys", "from unstall.__main__ import main", "sys.exit(main())"
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)
    (clone / ".venv" / ".ready").touch()


def served(command: str, shell: Shell) -> Told:
    """Run a command that serves a page until its address answers, then end it."""
    port = "6006"
    start = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        script = f". {shlex.quote(str(shell.state))}\n{command}"
        process = subprocess.Popen(
            ["bash", "-c", script],
            env={**shell.environment, "PORT": port},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while b"at_a_glance" not in _answer(f"http://localhost:{port}/data/plugin/scalars/tags"):
                if process.poll() is not None or time.monotonic() - start > 300:
                    out.seek(0)
                    raise SystemExit(f"{out.read()}\n{command}: nothing at port {port}")
                time.sleep(1)
            seconds = time.monotonic() - start
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()
        out.seek(0)
        lines = out.read().split("make:")[0].splitlines()
    print(f"$ {command}  ({seconds:.0f} s)", flush=True)
    return Told(command, [line for line in lines if "TensorFlow installation not found" not in line], 0, seconds)


def _answer(address: str) -> bytes:
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:
            return bytes(answer.read())
    except OSError:
        return b""


def shortened(lines: list[str]) -> list[str]:
    """Return lines with only the first and the last of each row of epochs."""
    kept: list[str] = []
    for index, line in enumerate(lines):
        before, after = (
            0 <= other < len(lines) and lines[other].startswith("epoch ") for other in (index - 1, index + 1)
        )
        if not (line.startswith("epoch ") and before and after):
            kept.append(line)
        elif kept[-1] != "[...]":
            kept.append("[...]")
    return kept


def page_of(told: Sequence[Told], place: Path, durations: bool) -> str:
    """Return what a reader typed and saw, as a block."""
    lines = []
    for each in told:
        duration = f"   # {each.seconds:.0f} s" if durations else ""
        lines += [f"$ {each.command}{duration}", *(line.rstrip() for line in shortened(each.lines)), ""]
    text = "\n".join(lines).replace(str(place), "PLACE").strip()
    return f"```console\n{text}\n```"


def table_of_lines() -> str:
    """Return what was asked of a first hour, and the test that holds each line of it."""
    rows = [
        f"| {line} | {', '.join(f'`{test}`' for test in tests)} |"
        for line, tests in yaml.safe_load(HELD.read_text()).items()
    ]
    head = (
        "\n## What holds it\n\nEach line that these readers rest on, and the tests that fail when it does not hold.\n"
    )
    return "\n".join([head, "| what | held by |", "|---|---|", *rows, ""])


def walk(place: Path, venv: Path | None, durations: bool) -> str:
    """Walk, and return the page.

    Args:
        place: An empty folder.
        venv: An environment to take over; None to install as the README says.
        durations: Whether to say how long each command took.
    """
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"COLUMNS": COLUMNS, "WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    shell = Shell(place, environment)

    def show(*told: Told) -> str:
        return page_of(told, place, durations)

    first, _, three, *_ = map(commands, blocks(README, "console"))
    assert first[0] == CLONE
    cloned = shell.run(CLONE.replace("<URL of this repository>", shlex.quote(str(ROOT))), shown=CLONE)
    clone = place / "unstall"
    if venv is not None:
        take_over(venv, clone)
    made = [shell.run(command) for command in first[1:]]
    if venv is None:
        python = str(clone / ".venv" / "bin" / "python")
        uv = ["uv", "pip", "install", "--python", python]  # as make does, whose environment then has no pip
        install = uv if shutil.which("uv") else [python, "-m", "pip", "install", "--disable-pip-version-check"]
        subprocess.run([*install, "-q", "-e", ".[loggers]"], cwd=clone, check=True)
    used = []
    for command in three:
        used.append(shell.run(command))
        if command.startswith("unstall fit"):
            (next_command,) = [line.partition(":  ")[2] for line in used[-1].lines if line.startswith("to test it:")]
            used.append(shell.run(next_command))
    files_of(README, clone, "mine.py", "mine.yaml")
    (own,) = re.findall(r"^# mine\.yaml: (unstall fit .*)", README, re.MULTILINE)
    yours = shell.run(own)

    project = place / "bikes"
    project.mkdir()
    files_of(TABLE, project, "bikes.py", "bikes.yaml")
    shell.run(f"cd {shlex.quote(str(project))}")
    (table,) = map(commands, blocks(TABLE, "console"))
    (options,) = re.findall(r"^unstall fit (--trainer.logger=WandbLogger .*)", LOGGERS, re.MULTILINE)
    theirs = [shell.run(f"{table[0]} {options}")]
    run = Path(theirs[0].lines[-1])
    kept = "\n".join(sorted(str(file.relative_to(project)) for file in (project / run).rglob("*") if file.is_file()))
    theirs += [shell.run(command) for command in table[1:]]

    shell.run(f"cd {shlex.quote(str(clone))}")
    board = served("make tensorboard", shell)
    told = [*made, *used, yours, *theirs]
    print(f"{len(told)} commands, {sum(each.seconds for each in told):.0f} s")
    taken = "" if venv is None else "The environment was there already: nothing was installed."
    timed = "Durations are of this walk, with nothing else running." if durations else ""
    return "".join(
        [
            OPENING.format(notes=" ".join(filter(None, (taken, timed)))),
            KERAS.format(first=show(cloned, *made), second=show(*used), yours=show(yours)),
            LIGHTNING.format(first=show(*theirs), files=f"```text\n{kept}\n```"),
            TENSORBOARD.format(first=show(board)),
            LEFT_OUT,
            table_of_lines(),
        ]
    )


def main() -> None:
    """Walk, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--venv", type=Path, help="an environment to take over, instead of installing one")
    parser.add_argument("--durations", action="store_true", help="say how long each command took")
    parser.add_argument("--table", action="store_true", help="only write the table of tests anew")
    options = parser.parse_args()
    if options.table:
        PAGE.write_text(PAGE.read_text().partition("\n## What holds it")[0] + table_of_lines())
        return
    if shutil.which("git") is None or shutil.which("make") is None:
        raise SystemExit("git and make are needed")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve() / "place"
        place.mkdir()
        text = walk(place, options.venv, options.durations)
    PAGE.write_text(text)
    print(PAGE, file=sys.stderr)


if __name__ == "__main__":
    main()
