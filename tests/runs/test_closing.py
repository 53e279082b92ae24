import shlex
from pathlib import Path

from unstall.runs.closing import closing_words


def test_closing_words_name_the_best_epoch_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    rows = [{"epoch": e, "val/loss": loss, "val/accuracy": 0.5} for e, loss in enumerate([2.0, 1.0, 1.5])]
    best, command = closing_words(rows, tmp_path, "unstall")
    assert best == "best epoch 2 of 3: val/loss 1.000, val/accuracy 0.5000"
    assert closing_words([*rows, {"epoch": 3}], tmp_path, "unstall")[0] == best.replace("of 3", "of 4")
    assert command.endswith(f"unstall test --ckpt_path={tmp_path}/checkpoints/best.ckpt")
    assert closing_words([], Path("r"), "unstall") == ["to test it:  unstall test --ckpt_path=r/checkpoints/last.ckpt"]
    assert closing_words([], Path("r"), "unstall", testable=False) == []


def test_a_run_without_a_validation_loss_ends_with_its_last_epoch() -> None:
    rows = [{"epoch": 0, "step": 5, "seed": 0, "val/mse": 3.0}, {"epoch": 1, "step": 10, "val/mse": 2.0}]
    assert closing_words(rows, Path("r"), "unstall", testable=False) == ["last epoch, 2: val mse 2.000"]


def test_what_is_to_be_beaten_and_the_verdict_are_said_and_commands_can_be_pasted() -> None:
    references = {"always the best constant": {"loss": 2.3026, "accuracy": 0.1}, "a linear model": {"accuracy": 0.92}}
    words = closing_words(
        [], Path("my logs/e/r"), "unstall", verdict="a verdict", doubtful=True, epochs=20, references=references
    )
    beaten, verdict, *commands = words
    assert beaten == (
        "to be beaten: always the best constant reaches loss 2.303, accuracy 0.1000; "
        "a linear model reaches accuracy 0.9200"
    )
    assert verdict == "verdict:     a verdict"
    assert [shlex.split(line.partition(":")[2]) for line in commands] == [
        ["unstall", "diagnose", "my logs/e/r"],
        ["unstall", "lr_find", "-c", "my logs/e/r/config.yaml", "--fit=true"],
        ["unstall", "fit", "--ckpt_path=my logs/e/r", "--trainer.max_epochs=20"],
        ["unstall", "test", "--ckpt_path=my logs/e/r/checkpoints/last.ckpt"],
    ]
