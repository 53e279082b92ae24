"""Whatever command is printed can be pasted: the command line's own parser takes it, with the folders that it names."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from unstall.causes import COURSE_FAULTS, FAULTS, TRIED_FAULTS
from unstall.cli.display import program
from unstall.cli.entry import main


def commands_in(text: str) -> list[list[str]]:
    """The words of every command of ours: after this program's name, or between backticks."""
    started = re.escape(program())
    said = [line.partition("  #")[0] for line in re.findall(rf"{started} (.*)", text)]
    quoted = re.findall(r"`(?:unstall )?((?:fit|test|validate|predict|lr_find|sweep|diagnose) .*?)`", text)
    return [shlex.split(words) for words in [*said, *quoted]]


def taken(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Parse a command, with the files that it names, and do nothing of it."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        main(words if "--help" in words else [*words, "--print_config"])
    out, err = capsys.readouterr()
    assert end.value.code in (0, None), (words, err)
    assert out


RUNS = {
    "too low": ["--model.lr=1e-7", "--trainer.max_epochs=12"],
    "too high": ["--model.lr=30", "--trainer.max_epochs=12"],
    "healthy": ["--model.lr=0.03", "--trainer.max_epochs=25"],
    "few epochs": ["--model.lr=0.006", "--trainer.max_epochs=10"],
    "few steps": ["--trainer.max_steps=5", "--trainer.max_epochs=-1"],
    "nothing to test": ["--trainer.enable_checkpointing=false", "--trainer.max_epochs=1"],
    "a rehearsal": ["--trainer.fast_dev_run=true"],
    "a place to quote": ["--logs_dir=my logs", "--experiment=a b", "--model.lr=1e-7", "--trainer.max_epochs=12"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_what_a_training_prints(name: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "-c", "mine.yaml", *RUNS[name]])
    out, err = capsys.readouterr()
    found = commands_in(out + err)
    assert bool(found) == (name not in ("a rehearsal", "nothing to test"))
    assert name != "few epochs" or "--trainer.max_epochs=20" in [word for words in found for word in words]
    for words in found:
        taken(words, capsys)


@pytest.mark.slow
def test_what_the_finder_and_the_diagnosis_print(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["lr_find", "-c", "mine.yaml", "--steps=140", "--experiment=a b"])
    found = commands_in(capsys.readouterr().out)
    assert [words[0] for words in found] == ["fit"]
    main(["fit", "-c", "mine.yaml", "--model.lr=1e-7", "--experiment=a b"])
    run = capsys.readouterr().out.splitlines()[-1]
    main(["diagnose", run])
    found += commands_in(capsys.readouterr().out)
    assert len(found) > 1
    for words in found:
        taken(words, capsys)


@pytest.mark.parametrize(
    "words", [["fit", "-c", "mine.yaml", "--modle.lr=3"], ["diagnose"], ["test"], ["fit", "--ckpt_path=nowhere"]]
)
def test_what_an_error_advises(words: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    for found in commands_in(capsys.readouterr().err):
        taken(found, capsys)


def test_settings_that_a_remedy_names_exist(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = " ".join(f"{fault.remedy} {fault.example}" for fault in (*FAULTS, *COURSE_FAULTS, *TRIED_FAULTS))
    assert "--" not in told  # a remedy is for whoever has no command line, too
    settings = set(re.findall(r"\b(gradient_clip_val|max_epochs|batch_size)\b", told))
    taken(["fit", "-c", "mine.yaml"], capsys)
    with pytest.raises(SystemExit):
        main(["fit", "-c", "mine.yaml", "--print_config"])
    known = str(yaml.safe_load(capsys.readouterr().out))
    assert settings
    assert all(name in known for name in settings)
