"""What is in a run's folder, and which settings are places."""

from pathlib import Path
from typing import Any

import pytest

from unstall.cli.places import link_out_of, run_around, without_places


def test_a_run_is_known_by_what_it_holds(tmp_path: Path) -> None:
    run = tmp_path / "logs/e/r"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").touch()
    assert run_around(run) is None  # any project may have a config of that name
    (run / "checkpoints/last.ckpt").touch()
    assert run_around(run) == run_around(run / "code/evil.py") == run.resolve()
    assert run_around(run.parent) is None
    (tmp_path / "link").symlink_to(run)
    assert run_around(tmp_path / "link/evil.py") == run.resolve()


@pytest.mark.parametrize(
    "value",
    [
        "/etc",
        "~/x",
        "a/../../b",
        "..",
        "C:\\x",
        "\\\\host\\x\\y",
        "s3://bucket",
        "file:///etc",
        ["a", "../b"],
        [["a", ["~/b"]]],
        ("/a",),
        {"/a"},
        '{"class_path": "a.B", "init_args": {"data_dir": "x"}}',
        "save_path: x",
        '\'[{"a": "../b"}]\'',
    ],
)
def test_what_leads_away_is_left_out(value: Any) -> None:
    config = {"model": {"init_args": {"anything": value, "lr": 0.1}}}
    assert without_places(config) == ({"model": {"init_args": {"lr": 0.1}}}, {"model.init_args.anything": value})


def test_what_is_called_a_place_is_one_and_the_name_of_a_class_is_none() -> None:
    kept = {"model": {"class_path": "a.B", "_class_path": "a.B", "profile": "x", "save_files": True}}
    config = {"model": kept["model"] | {"save_path": "x", "weights_file": "y", "out_dirs": ["z"], "path": "w"}}
    found, left_out = without_places(config)
    assert found == kept
    assert left_out.keys() == {"model.save_path", "model.weights_file", "model.out_dirs", "model.path"}


def test_a_link_that_leads_out_is_found(tmp_path: Path) -> None:
    (tmp_path / "run/in").mkdir(parents=True)
    (tmp_path / "run/within").symlink_to("in")
    assert link_out_of(tmp_path / "run") is None
    (tmp_path / "run/in/out").symlink_to(tmp_path)
    assert link_out_of(tmp_path / "run") == tmp_path / "run/in/out"


def test_folders_are_left_out_by_name_and_all_else_is_kept() -> None:
    kept = {
        "experiment": "mine",
        "seed_everything": 3,
        "trainer": {
            "callbacks": [{"class_path": "a.B", "init_args": {"filename": "{epoch}..{step}", "dirpath": None}}]
        },
        "trainer.callbacks+": [{"class_path": "a/b"}],
    }
    config = {
        **kept,
        "logs_dir": "logs",
        "ckpt_path": "x.ckpt",
        "weights_only": False,
        "data": {"data_dir": "data", "num_workers": 2},
        "trainer": {**kept["trainer"], "default_root_dir": "x"},  # type: ignore[dict-item]
    }
    found, left_out = without_places(config)
    assert found == {**kept, "data": {"num_workers": 2}}
    assert left_out.keys() == {"logs_dir", "ckpt_path", "weights_only", "data.data_dir", "trainer.default_root_dir"}
