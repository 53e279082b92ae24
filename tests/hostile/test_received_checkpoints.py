"""Checkpoints that somebody sends: none chooses a place, removes a file, takes long, or ends in a traceback."""

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hostile.commands import refusal, words
from unstall.cli.entry import main

Content = dict[str, Any]


def rewrite(run: Path, change: Callable[[Content], Any]) -> None:
    """Change what each checkpoint of a run holds."""
    for file in run.glob("checkpoints/*.ckpt"):
        content = torch.load(file, weights_only=True)
        change(content)
        torch.save(content, file)


def taken_out(run: Path, change: Callable[[Content], Any]) -> Path:
    """A checkpoint without its run, in the working folder."""
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    change(content)
    torch.save(content, "loose.ckpt")
    return Path("loose.ckpt")


MODULE = """
from pathlib import Path

import pytorch_lightning as pl, torch
from torch.utils.data import DataLoader, TensorDataset

class Keeper(pl.LightningModule):
    def __init__(self, data_dir: str = "here", notes: str = "mine", save_path: str = "out", lr: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(2, 1)
        Path("places.txt").write_text(f"{data_dir} {notes} {save_path} {lr}\\n")

    def loader(self):
        return DataLoader(TensorDataset(torch.ones(4, 2), torch.ones(4, 1)), batch_size=2)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = loader

    def training_step(self, batch, index):
        return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch, index):
        self.log("val/loss", self.training_step(batch, index))

    test_step = validation_step

    def predict_step(self, batch, index):
        return self.layer(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.hparams.lr)
"""


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint as plain Lightning writes it, whose hyper-parameters name places."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("keeper_of_places.py").write_text(MODULE)
    places = {"data_dir": "theirs", "notes": "../up", "save_path": "src/a.py", "lr": 0.5}
    torch.save(
        {
            "state_dict": {"layer.weight": torch.zeros(1, 2), "layer.bias": torch.zeros(1)},
            "optimizer_states": [torch.optim.SGD([torch.zeros(1), torch.zeros(1)], 0.5).state_dict()],
            **{"lr_schedulers": [], "callbacks": {}},
            **{"epoch": 0, "global_step": 2, "pytorch-lightning_version": "2.6.0", "hyper_parameters": places},
        },
        "plain.ckpt",
    )
    return Path("plain.ckpt")


@pytest.mark.parametrize("name", ["test", "validate", "predict", "fit"])
def test_hyper_parameters_choose_no_place(name: str, plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    typed = ["--model=keeper_of_places.Keeper", "--data=null", "--model.notes=typed", "--trainer.callbacks=null"]
    if name == "fit":
        typed += ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1"]
    main(words(name, plain, *typed))
    assert Path("places.txt").read_text().split() == ["here", "typed", "out", "0.5"]
    err = capfd.readouterr().err
    for place in ("model.data_dir=theirs", "model.notes=../up", "model.save_path=src/a.py"):
        assert place in err


def test_a_config_of_ones_own_does_not_bring_a_checkpoint(plain: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text(f"ckpt_path: {plain}\nmodel: keeper_of_places.Keeper\ndata: null\n")
    assert "ckpt_path=plain.ckpt: give it on the command line" in refusal(["fit", "-c", "mine.yaml"], capfd)
    assert not Path("places.txt").exists()


def test_no_place_hides_in_a_text(sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def change(content: Content) -> None:
        config = yaml.safe_load(content["config"])
        data = {"class_path": "lesson.MNISTDataModule", "init_args": {"data_dir": "/nowhere"}}
        content["config"] = yaml.safe_dump(config | {"data": yaml.safe_dump(data)})

    main(words("test", taken_out(sent, change)))
    assert "data_dir: /nowhere" in capfd.readouterr().err


def test_no_file_is_removed_that_is_not_a_checkpoint_of_the_run(
    sent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lightning removes what it takes for its former best checkpoint, with all that is in it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/dear").touch()
    (sent / "checkpoints/elsewhere").symlink_to(tmp_path / "victim")
    victims = ["elsewhere/dear", "../../../../victim"]
    for name in ("unstall.Checkpoints", "pytorch_lightning.callbacks.ModelCheckpoint"):
        for victim in victims:

            def change(content: Content, name: str = name, victim: str = victim) -> None:
                config = yaml.safe_load(content["config"])
                for callback in config["trainer"]["callbacks"]:
                    if callback["class_path"].endswith("Checkpoints"):
                        callback["class_path"] = name
                config["trainer"]["max_epochs"] = 9
                content["config"] = yaml.safe_dump(config)
                states = content["callbacks"]
                here, worst = "logs/sent/x/checkpoints", torch.tensor(1e9)
                path = f"{here}/{victim}"
                paths = dict.fromkeys(["kth_best_model_path", "best_model_path", "last_model_path"], path)
                scores = {"best_k_models": {path: worst}, "kth_value": worst, "best_model_score": worst}
                for key in [key for key, state in states.items() if "best_k_models" in state]:
                    renamed = key.replace("Checkpoints", name.rpartition(".")[2])
                    states[renamed] = states.pop(key) | paths | scores | {"dirpath": here}

            rewrite(sent, change)
            done = torch.load(sent / "checkpoints/last.ckpt", weights_only=True)["epoch"] + 1
            main(words("fit", sent, f"--trainer.max_epochs={done + 1}", "--trust"))
            assert (tmp_path / "victim/dear").exists(), (name, victim)


def test_no_link_leads_out_of_a_run(sent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dear").write_text("mine")
    for link in ("checkpoints/more", ".lock"):
        (sent / link).symlink_to(tmp_path / "dear")
        for name in ("fit", "test", "diagnose"):
            assert "leads out of the run" in refusal(words(name, sent), capfd)
    main(words("fit", sent, "--trust", "--trainer.max_epochs=4"))
    assert (tmp_path / "dear").read_text() == "mine"


def shared() -> list[Any]:
    value: list[Any] = ["x"] * 8
    for _ in range(30):
        value = [value] * 8
    return value


def in_itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    return value


ODD: dict[str, tuple[Callable[[Content], Any], str]] = {
    "values that multiply": (lambda content: content["hyper_parameters"].update(x=shared()), "values"),
    "a value in itself": (lambda content: content["hyper_parameters"].update(x=in_itself()), "in itself"),
    "nested too deep": (lambda content: content["hyper_parameters"].update(x=deep()), "levels"),
    "an optimizer that multiplies": (lambda content: content.update(optimizer_states=[{"x": shared()}]), "values"),
    "loops a list": (lambda content: content.update(loops=[1]), "loops"),
    "progress a text": (lambda content: content.update(loops={"fit_loop": {"epoch_progress": "x"}}), "loops"),
    "optimizers a number": (lambda content: content.update(optimizer_states=3), "optimizer_states"),
    "an optimizer a number": (lambda content: content.update(optimizer_states=[3]), "optimizer_states"),
    "callbacks a list": (lambda content: content.update(callbacks=[1]), "callbacks"),
    "a callback a number": (lambda content: content.update(callbacks={"History": 3}), "callbacks"),
    "schedulers a number": (lambda content: content.update(lr_schedulers=3), "lr_schedulers"),
    "a step beyond all": (lambda content: content.update(global_step=10**30), "global_step"),
    "an epoch before all": (lambda content: content.update(epoch=-3), "epoch"),
    "weights alone": (lambda content: [content.pop(key) for key in ("optimizer_states", "loops")], "weights"),
    "no version": (lambda content: content.update({"pytorch-lightning_version": "x.y"}), "version=x.y"),
}


@pytest.mark.parametrize("name", ODD)
def test_no_checkpoint_takes_long_or_ends_in_a_traceback(
    name: str, sent: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, named = ODD[name]
    loose = taken_out(sent, change)
    for which in ("fit",) if name == "weights alone" else ("test", "fit"):
        assert named in refusal(words(which, loose), capfd).replace("'", "")


UNFIT: dict[str, tuple[Content, str]] = {
    "loops of nothing": ({"loops": {}}, "fit_loop"),
    "a callback of nothing": ({"callbacks": {"History": {"class_counts": 3}}}, "samples_seen"),
    "an optimizer of another model": ({"optimizer_states": [{"state": {}, "param_groups": []}]}, "parameter group"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_taken_up_is_one_line_and_leaves_nothing(
    name: str, sent: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, named = UNFIT[name]
    loose = taken_out(sent, lambda content: content.update(change))
    before = sorted(Path("logs").rglob("*"))
    with pytest.raises(SystemExit) as end:
        main(words("fit", loose, "--trainer.max_epochs=4", "--trainer.enable_progress_bar=false"))
    notes, error, rest = capfd.readouterr().err.partition("unstall: error: ckpt_path=loose.ckpt: ")
    assert end.value.code == 2
    assert error
    assert named in rest
    assert notes.startswith("unstall: note: ")
    assert "Traceback" not in notes + rest
    assert sorted(Path("logs").rglob("*")) == before


def test_a_checkpoint_that_unpacks_to_more_than_it_is_is_refused(sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with zipfile.ZipFile(sent / "checkpoints/last.ckpt") as sound, zipfile.ZipFile("loose.ckpt", "w") as packed:
        for item in sound.infolist():
            packed.writestr(item.filename, sound.read(item), zipfile.ZIP_DEFLATED)
        packed.writestr("archive/data/more", bytes(50_000_000), zipfile.ZIP_DEFLATED)
    assert "loose.ckpt" in refusal(words("test", Path("loose.ckpt")), capfd)
