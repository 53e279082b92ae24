"""The end of a training, as the terminal shows it."""

from pathlib import Path

import pytest

from unstall.cli.entry import main


def fit(*words: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(["fit", "-c", "mine.yaml", *words])
    return capsys.readouterr().out.splitlines()


def test_a_training_tells_each_epoch_then_its_result_the_constant_the_verdict_the_next_command_and_its_place(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = fit("--model.lr=1e-7", "--trainer.max_epochs=12", capsys=capsys)
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split("/12")[0].split()[1] for line in epochs] == [str(number) for number in range(1, 13)]
    assert all("train loss 0." in line and "accuracy 0." in line and "val loss 0." in line for line in epochs)
    assert not any("━" in line for line in lines)  # a bar is for a terminal
    *_, best, beaten, verdict, helps, find, test, folder = lines
    assert best.startswith("best epoch ")
    assert beaten.startswith("to be beaten: always the best constant reaches loss 0.69")
    assert "; a linear model of 200 samples reaches loss 0." in beaten  # of a product, of which it can learn nothing
    assert 0.3 < float(beaten.rpartition(" ")[2]) < 0.7
    assert verdict.startswith("verdict:     learning rate too low (")
    assert helps.endswith(f" diagnose {folder}")
    assert find.endswith(f" lr_find -c {folder}/config.yaml --fit=true")
    assert test.endswith(f" test --ckpt_path={folder}/checkpoints/best.ckpt")
    assert (place / folder / "config.yaml").is_file()


def test_a_rehearsal_and_a_few_batches_get_no_verdict(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = (place / "mine.py").read_text()
    (place / "mine.py").write_text(code.replace("self.loader(0, True)", "self.loader(0)"))
    *_, last = fit("--trainer.fast_dev_run=true", capsys=capsys)
    assert last.startswith("fast_dev_run=1: all that was asked for ran; nothing is kept")
    assert not (place / "logs").exists()
    lines = fit("--trainer.overfit_batches=1", "--trainer.max_epochs=60", "--model.lr=0.3", capsys=capsys)
    said = next(line for line in lines if line.startswith("Diagnosis"))
    assert "Only one batch, again and again: its loss went from 0." in said
    assert "verdict:     unsure" in lines
    assert not any(line.startswith("what helps") for line in lines)


def test_the_profiler_prints_its_table(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    main(["fit", "-c", "mine.yaml", "--trainer.profiler=simple", "--trainer.max_epochs=1"])
    assert "Profiler Report" in caplog.text  # by Lightning's logger, which writes to standard error
    assert "run_training_batch" in caplog.text
