"""What is answered before anything is loaded."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from unstall import usage
from unstall.cli.commands import CLI

ROOT = Path(__file__).parents[1]


def test_it_lists_every_command_of_the_command_line_and_of_projects() -> None:
    assert set(usage.COMMANDS) == set(CLI.subcommands())
    said = usage.answer(["--help"])
    assert said is not None
    text, code = said
    assert code == 0
    registered = importlib.metadata.entry_points(group="unstall.commands")
    listed = {line.split()[0] for line in text.splitlines() if line.startswith("  ") and line.strip()[0].islower()}
    assert {*usage.COMMANDS, *(entry.name for entry in registered)} <= listed


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["fitt"], "fitt: no such command; the nearest one is fit"),
        (["xyz"], "xyz: no such command; give one of fit, validate,"),
        ([], "no command; give one of fit, validate,"),
    ],
)
def test_a_mistyped_command_is_one_line(words: list[str], line: str) -> None:
    said = usage.answer(words)
    assert said is not None
    assert said[0].startswith(f"unstall: error: {line}")
    assert "\n" not in said[0]
    assert said[1] == 2


@pytest.mark.parametrize("words", [["fit", "--help"], ["diagnose"], ["-c", "a.yaml", "fit"], ["--print_config"]])
def test_a_command_is_left_to_the_command_line(words: list[str]) -> None:
    assert usage.answer(words) is None


def test_a_projects_own_command_is_described_by_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "usage_of_mine").mkdir()
    (tmp_path / "usage_of_mine" / "tool.py").write_text(
        'raise RuntimeError("not to be imported")\ndef main(options):\n    """Sort the galaxies.\n\n    More."""\n'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    entries = [
        importlib.metadata.EntryPoint("mine", f"usage_of_mine.{place}:main", "unstall.commands")
        for place in ("tool", "nowhere")
    ]
    assert [usage._first_line(entry) for entry in entries] == ["Sort the galaxies.", "of usage_of_mine.nowhere"]
    monkeypatch.setattr(usage, "entry_points", lambda group: entries[:1])
    assert usage.answer(["mine", "--help"]) is None
    assert "  mine       Sort the galaxies." in usage.usage().splitlines()


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--version", 0), ("fitt", 2)])
def test_nothing_heavy_is_imported_for_it(word: str, code: int) -> None:
    heavy = ["torch", "pytorch_lightning", "jsonargparse", "yaml", "rich", "unstall.cli", "lesson"]
    script = (
        "import sys\nfrom unstall.__main__ import main\n"
        f"sys.argv = ['unstall', {word!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n"
        f"    print([name for name in {heavy} if name in sys.modules], end.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"[] {code}"
    assert len(done.stderr.splitlines()) == (1 if code else 0)
