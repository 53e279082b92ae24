"""Which checkpoint is meant, what is refused, what is remembered."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from unstall.errors import UsageError
from unstall.runs.checkpoints import (
    Checkpoints,
    WholeFiles,
    check_architecture,
    epochs_in,
    find_and_load,
    load_checkpoint,
    moved_here,
)
from unstall.runs.folder import BEST, LAST, Place, Run


def save(file: Path, epoch: int) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": {}, "epoch": epoch}, file)
    os.utime(file, (epoch, epoch))
    return file


def test_a_runs_checkpoint_is_the_preferred_one_or_its_last(tmp_path: Path) -> None:
    run = Place(Run(tmp_path))
    assert find_and_load(run, BEST) == (None, None)  # killed in its first epoch
    save(tmp_path / LAST, 3)
    assert find_and_load(run, BEST)[0] == tmp_path / LAST
    save(tmp_path / BEST, 2)
    assert find_and_load(run, BEST)[0] == tmp_path / BEST
    assert find_and_load(run, LAST)[0] == tmp_path / LAST


def test_a_damaged_one_gives_way_to_the_newest_sound_one_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, epoch in ("old", 1), ("new", 2), ("damaged", 3):
        save(tmp_path / LAST.with_name(f"{name}.ckpt"), epoch)
    whole = save(tmp_path / LAST, 4).read_bytes()
    for damaged in (LAST, LAST.with_name("damaged.ckpt")):
        (tmp_path / damaged).write_bytes(whole[: len(whole) // 2])
    os.utime(tmp_path / LAST.with_name("damaged.ckpt"), (3, 3))
    file, checkpoint = find_and_load(Place(Run(tmp_path)), LAST)
    assert file == tmp_path / LAST.with_name("new.ckpt")
    assert checkpoint is not None
    (line,) = capsys.readouterr().err.splitlines()
    assert "last.ckpt: cannot be read" in line
    assert "new.ckpt is taken, of 3 epochs" in line
    with pytest.raises(UsageError, match="cannot be read"):  # the one that was named, and no other
        find_and_load(Place(Run(tmp_path), tmp_path / LAST), LAST)


def test_how_many_epochs_a_checkpoint_has_finished() -> None:
    assert epochs_in({"epoch": 2}) == 3
    within = {"loops": {"fit_loop": {"epoch_progress": {"current": {"processed": 2}}}}}
    assert epochs_in({"epoch": 2, **within}) == 2


@pytest.mark.parametrize("given", ["a.ckpt", "within/a.ckpt"])
def test_a_checkpoint_is_written_beside_its_place_and_needs_no_other_folder(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    store, file = WholeFiles(), tmp_path / given
    store.save_checkpoint({"a": torch.ones(2)}, str(file))
    assert store.load_checkpoint(file)["a"].sum() == 2
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left") as error:
            store.save_checkpoint({"a": torch.zeros(2)}, str(file))
    assert error.value.filename == str(file)
    assert store.load_checkpoint(file)["a"].sum() == 2
    assert list(file.parent.iterdir()) == [file]


def test_best_score_is_remembered_in_a_moved_folder(tmp_path: Path) -> None:
    old, new = Checkpoints("old/checkpoints", monitor="val/loss"), Checkpoints(tmp_path, monitor="val/loss")
    old.best_model_score = torch.tensor(0.5)
    old.best_model_path = old.kth_best_model_path = f"{old.dirpath}/best.ckpt"
    old.best_k_models = {old.best_model_path: torch.tensor(0.5)}
    new.load_state_dict(old.state_dict())
    assert new.best_model_score is None  # no such file here
    (tmp_path / "best.ckpt").write_bytes(b"")
    new.load_state_dict(old.state_dict())
    assert new.best_model_score == 0.5
    assert list(new.best_k_models) == [str(tmp_path / "best.ckpt")] == [new.best_model_path]


def test_of_the_files_that_a_state_names_only_those_in_the_folder_are_kept(tmp_path: Path) -> None:
    here = tmp_path / "checkpoints"
    (here / "deep").mkdir(parents=True)
    for name in ("outside.ckpt", "checkpoints/best.ckpt", "checkpoints/deep/a.ckpt"):
        (tmp_path / name).touch()
    (here / "link.ckpt").symlink_to(tmp_path / "outside.ckpt")
    (here / "folder").symlink_to(tmp_path)
    names = ["x/best.ckpt", "x/deep/a.ckpt", "x/../outside.ckpt", "x/link.ckpt", "x/folder/outside.ckpt", "x/deep", "x"]
    state = {"dirpath": "x", "best_k_models": dict.fromkeys([*names, str(tmp_path / "outside.ckpt"), ""], 1)}
    found = moved_here(state | {"best_model_path": "x/best.ckpt", "last_model_path": "x/link.ckpt"}, here)
    assert found["best_k_models"] == {str(here / "best.ckpt"): 1, str(here / "deep/a.ckpt"): 1}
    assert (found["dirpath"], found["last_model_path"]) == (str(here), "")
    assert moved_here({"dirpath": "x", "best_k_models": 3}, here)["best_k_models"] == {}


def test_weights_of_another_shape_are_refused_by_name(tmp_path: Path) -> None:
    layer = torch.nn.Linear(2, 3)
    check_architecture(tmp_path, {"state_dict": layer.state_dict()}, layer)
    with pytest.raises(UsageError, match=r"bias is \(3,\) in the checkpoint and \(4,\) in the model"):
        check_architecture(tmp_path, {"state_dict": layer.state_dict()}, torch.nn.Linear(2, 4))
    with pytest.raises(UsageError, match=r"bias is missing in the checkpoint"):
        check_architecture(tmp_path, {"state_dict": {"weight": layer.weight}}, layer)


@pytest.mark.parametrize(("content", "message"), [(b"", "cannot be read"), (pickle.dumps(print), "refused")])
def test_what_is_no_checkpoint_is_refused_unexecuted(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_checkpoint(tmp_path / "a.ckpt")
