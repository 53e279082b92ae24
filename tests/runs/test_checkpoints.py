"""Which checkpoint is meant, what is refused, what is remembered."""

import pickle
from pathlib import Path

import pytest
import torch

from unstall.errors import UsageError
from unstall.runs.checkpoints import Checkpoints, check_architecture, find_checkpoint, load_checkpoint
from unstall.runs.folder import BEST, CONFIG, LAST


def test_checkpoint_of_a_file_a_run_and_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(UsageError, match="not a run folder"):
        find_checkpoint(str(run), BEST)
    (run / CONFIG).write_text("")
    assert find_checkpoint(str(run), BEST) is None  # killed in its first epoch
    (run / LAST).write_bytes(b"")
    assert find_checkpoint(str(run), BEST) == run / LAST
    (run / BEST).write_bytes(b"")
    assert find_checkpoint(str(run), BEST) == run / BEST
    assert find_checkpoint(str(run), LAST) == run / LAST
    assert find_checkpoint(str(run / BEST), LAST) == run / BEST
    with pytest.raises(UsageError, match="no such file"):
        find_checkpoint(str(run / "other.ckpt"), LAST)


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
