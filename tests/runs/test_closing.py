from pathlib import Path

from unstall.runs.closing import closing_words


def test_closing_words_name_the_best_epoch_and_the_command(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.ckpt").touch()
    rows = [{"epoch": e, "val/loss": loss, "val/accuracy": 0.5} for e, loss in enumerate([2.0, 1.0, 1.5])]
    best, command = closing_words(rows, tmp_path, "unstall")
    assert best == "best epoch 2 of 3: val/loss 1.0000, val/accuracy 0.5000"
    assert closing_words([*rows, {"epoch": 3}], tmp_path, "unstall")[0] == best.replace("of 3", "of 4")
    assert command.endswith(f"unstall test --ckpt_path={tmp_path}/checkpoints/best.ckpt")
    assert closing_words([], Path("r"), "unstall") == ["to test it:  unstall test --ckpt_path=r/checkpoints/last.ckpt"]
    assert closing_words([], Path("r"), "unstall", testable=False) == []
