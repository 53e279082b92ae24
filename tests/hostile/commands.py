"""Commands about what was received, and how they refuse it."""

from pathlib import Path

import pytest

from unstall.cli.entry import main


def words(command: str, subject: Path, *more: str) -> list[str]:
    """A command line about a run or a checkpoint."""
    named = str(subject) if command == "diagnose" else f"--ckpt_path={subject}"
    return [command, named, "--trainer.accelerator=cpu", *more]


def refusal(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    """Run a command that ends in one line and code 2; return the line."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    out, err = capfd.readouterr()
    assert end.value.code == 2, err
    assert out == ""
    assert err.count("\n") == 1, err
    return err
