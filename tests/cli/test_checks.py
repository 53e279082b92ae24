"""Settings that no run could be made of. The command line as a whole is in tests/test_bad_input.py."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from lightning_utilities.core.rank_zero import rank_zero_only
from torch.utils.data import DataLoader, TensorDataset

from unstall.cli.checks import (
    blamed,
    check_alone,
    check_checkpoint,
    check_loader,
    check_name,
    check_settings,
    first_batch,
    shortage_in,
)
from unstall.errors import UsageError
from unstall.trials import quiet

GOOD: dict[str, Any] = {
    "logs_dir": "logs",
    "experiment": "e",
    "seed_everything": 2**32 - 1,
    "trainer": {"max_epochs": -1},
    "model": {"lr": 1e38},
}


def test_what_can_be_run_passes() -> None:
    check_settings(GOOD)
    check_settings({**GOOD, "model": None, "trainer": {"max_epochs": None, "val_check_interval": 0.25}})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed_everything": 2**32}, "seed_everything=4294967296"),
        ({"experiment": None}, "experiment=None"),
        ({"experiment": "a/" + "b" * 256}, "experiment=bbb"),
        ({"logs_dir": "a\0b"}, "logs_dir='a"),
        ({"trainer": {"accumulate_grad_batches": 0}}, r"trainer\.accumulate_grad_batches=0: give at least 1"),
        ({"trainer": {"gradient_clip_val": float("nan")}}, r"trainer\.gradient_clip_val=nan"),
        ({"trainer": {"val_check_interval": -1}}, r"trainer\.val_check_interval=-1"),
        ({"model": {"init_args": {"lr": -1e39}}}, r"model\.lr=-1e\+39"),
    ],
)
def test_what_cannot_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        check_settings({**GOOD, **change})


def test_a_link_to_nothing_anywhere_in_a_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(UsageError, match="is a link to nothing"):
        check_name("logs_dir", str(tmp_path / "link/a/b"))
    (tmp_path / "target").mkdir()
    check_name("logs_dir", str(tmp_path / "link/a/b"))


def test_a_checkpoint_that_lacks_what_lightning_reads() -> None:
    whole = {"state_dict": {"w": torch.ones(1)}, "epoch": 1, "global_step": 2, "pytorch-lightning_version": "2.6.6"}
    assert check_checkpoint("x.ckpt", whole) is whole
    for name in ("epoch", "global_step", "pytorch-lightning_version"):
        with pytest.raises(UsageError, match=f"ckpt_path=x.ckpt: .*no {name}"):
            check_checkpoint("x.ckpt", {key: value for key, value in whole.items() if key != name})
    with pytest.raises(UsageError, match="w in its state_dict is a int"):
        check_checkpoint("x.ckpt", {**whole, "state_dict": {"w": 3}})
    for version in ("2.7.0.dev20260101", "1.5.0rc1", "2.6.6+cpu", "2.6.0.post0"):
        check_checkpoint("x.ckpt", whole | {"pytorch-lightning_version": version})
    with pytest.raises(UsageError, match="weights alone"):
        check_checkpoint("x.ckpt", whole, to_go_on=True)
    check_checkpoint("x.ckpt", whole | {"optimizer_states": [{}], "lr_schedulers": []}, to_go_on=True)


def test_loaders_without_a_batch() -> None:
    full, empty = (DataLoader(TensorDataset(torch.zeros(count, 1))) for count in (2, 0))
    check_loader(full, "train_dataloader")
    check_loader(object(), "train_dataloader")
    assert first_batch(full, "train_dataloader")[0].tolist() == [[0.0]]
    for check in (check_loader, first_batch):
        with pytest.raises(UsageError, match=r"train_dataloader.. gives no batch"):
            check(empty, "train_dataloader")


def test_the_setting_that_lightning_complains_of() -> None:
    trainer = {"accelerator": "cpu", "devices": -1, "num_nodes": 0}
    assert blamed(ValueError("`num_nodes` must be positive"), trainer).startswith("trainer.num_nodes=0: ")
    assert blamed(ValueError("no tpu"), trainer).startswith("trainer.accelerator=cpu, trainer.devices=-1: ")


def test_what_torch_says_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    assert "4000000000000000" in (shortage_in(error.value) or "")
    assert shortage_in(RuntimeError("shapes differ")) is None


SLURM = {"JOB_ID": "1", "NTASKS": "2", "NTASKS_PER_NODE": "1", "PROCID": "0", "NODEID": "0", "LOCALID": "0"}
TWO: dict[str, Any] = {"accelerator": "cpu", "devices": 2, "strategy": "ddp", "logger": False}


def trainer(**given: Any) -> pl.Trainer:
    with quiet():
        return pl.Trainer(enable_progress_bar=False, **{**TWO, **given})


def test_an_instrument_works_in_one_process_for_a_fit_in_several() -> None:
    check_alone("lr_find", trainer(), trains_after=False)
    check_alone("diagnose", trainer(), trains_after=False)
    for one in (trainer(devices=1), trainer(devices=1, strategy="auto")):
        check_alone("lr_find", one, trains_after=True)
        check_alone("sweep", one, trains_after=False)


@pytest.mark.parametrize(
    ("command", "after", "said"),
    [
        ("lr_find", True, "trainer.devices=2: lr_find works in one process .* leave out --fit"),
        ("diagnose", True, "trainer.devices=2: diagnose works in one process"),
        ("sweep", False, "trainer.devices=2: a trial trains in one process"),
    ],
)
def test_it_is_refused_where_it_would_wait_for_the_others_for_ever(command: str, after: bool, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_alone(command, trainer(), after)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "a"}, "TorchEl"),
        ({f"SLURM_{name}": number for name, number in SLURM.items()}, "SLURM"),
    ],
)
def test_it_is_refused_in_each_process_of_a_launcher(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("shutil.which", lambda _: None)  # where `srun` is installed, Lightning asks whether it was used
    rank = rank_zero_only.rank
    launched = trainer(num_nodes=2, devices=1)
    rank_zero_only.rank = rank
    with pytest.raises(UsageError, match=f"lr_find: trains in one process, and each of 2 was started with it .{said}"):
        check_alone("lr_find", launched, trains_after=False)
