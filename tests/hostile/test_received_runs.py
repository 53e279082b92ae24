"""Run folders that somebody sends: whatever they name, nothing in them is executed, and nothing chooses a place."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from hostile.commands import refusal, words
from unstall.cli.entry import main

Change = Callable[[dict[str, Any]], None]


def network(path: str) -> Change:
    return lambda config: config["model"]["init_args"].update(network={"class_path": path})


def network_as_text(config: dict[str, Any]) -> None:
    config["model"]["init_args"]["network"] = '{"class_path": "logs.sent.x.ev\\u0069l.Net"}'


def bare_network(config: dict[str, Any]) -> None:
    config["model"]["init_args"]["network"] = "logs.sent.x.evil.Net"


def module(config: dict[str, Any]) -> None:
    config["model"] = {"class_path": "logs.sent.x.evil.Module"}


def data(config: dict[str, Any]) -> None:
    config["data"] = {"class_path": "logs.sent.x.evil.Data"}


def callback(config: dict[str, Any]) -> None:
    config["trainer"]["callbacks"].append({"class_path": "logs.sent.x.evil.Callback"})


def optimizer(config: dict[str, Any]) -> None:
    config["model"]["init_args"]["optimizer"] = "logs.sent.x.evil.optimizer"


def from_a_file(config: dict[str, Any]) -> None:
    config["data"] = "logs/sent/x/data.yaml"


def from_a_pickle(config: dict[str, Any]) -> None:
    arguments = {"checkpoint_path": "logs/sent/x/evil.ckpt", "weights_only": False}
    path = "pytorch_lightning.LightningModule.load_from_checkpoint"
    config["model"] = {"class_path": path, "init_args": arguments}


def a_process(config: dict[str, Any]) -> None:
    """An argument without a type is built of whatever class it names."""
    arguments = {"entrypoint": "touch", "args": ["owned"], "env": {}, "stdout": None, "stderr": None}
    path = "torch.distributed.elastic.multiprocessing.subprocess_handler.SubprocessHandler"
    process = {"class_path": path, "init_args": {**arguments, "local_rank_id": 0, "numa_options": None}}
    sizes = {"in_features": 784, "out_features": 10, "bias": True, "dtype": None}
    config["model"]["init_args"]["network"] = {
        "class_path": "torch.nn.Linear",
        "init_args": {**sizes, "device": process},
    }


def a_command(config: dict[str, Any]) -> None:
    config["trainer"]["logger"] = {"class_path": "unstall.cli.commands.CLI", "init_args": {"args": ["fit"]}}


def from_the_hub(config: dict[str, Any]) -> None:
    config["model"]["init_args"]["optimizer"] = {"class_path": "torch.hub.load", "init_args": {"source": "local"}}


WAYS: dict[str, tuple[Change, str]] = {
    "network": (network("logs.sent.x.evil.Net"), "logs.sent.x.evil"),
    "network, a name alone": (bare_network, "logs.sent.x.evil"),
    "network, in a text": (network_as_text, "logs.sent.x.evil"),
    "network, beside the run": (network("beside.evil.Net"), "beside.evil.Net"),
    "network, of the working folder": (network("evil.Net"), "evil.Net"),
    "module": (module, "logs.sent.x.evil"),
    "data": (data, "logs.sent.x.evil"),
    "data, by a file": (from_a_file, "data.yaml"),
    "callback": (callback, "logs.sent.x.evil"),
    "optimizer": (optimizer, "logs.sent.x.evil"),
    "import with an effect": (network("this.Net"), "this.Net"),
    "import that opens a browser": (network("antigravity.fly"), "antigravity.fly"),
    "a class's own loader": (from_a_pickle, "load_from_checkpoint"),
    "a class that starts a process": (a_process, "SubprocessHandler"),
    "a class that is a command line": (a_command, "unstall.cli.commands.CLI"),
    "a library's own loader": (from_the_hub, "torch.hub.load"),
    "what a library has imported": (network("torch.hub.Path"), "torch.hub.Path"),
    "a script of the standard library": (network("idlelib.idle.Net"), "idlelib.idle"),
}
COMMANDS = ("test", "validate", "predict", "fit", "diagnose")


def rewrite(run: Path, change: Change) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    text = yaml.safe_dump(config)
    (run / "config.yaml").write_text(text)
    for file in run.glob("checkpoints/*.ckpt"):
        torch.save(torch.load(file, weights_only=True) | {"config": text}, file)


def rewrite_checkpoint(run: Path, change: Change) -> Path:
    """Make a checkpoint that is not in a run, and says nothing but what is changed."""
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    change(content)
    torch.save(content, run / "loose.ckpt")
    return run / "loose.ckpt"


def refused(arguments: list[str], capfd: pytest.CaptureFixture[str]) -> str:
    before = set(sys.modules)
    err = refusal(arguments, capfd)
    assert not Path("owned").exists()
    assert not {"this", "antigravity", "evil", "logs.sent.x.evil", "beside.evil"} & (set(sys.modules) - before)
    return err


@pytest.mark.parametrize("way", WAYS)
def test_what_a_config_names_is_not_imported(way: str, sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change, named = WAYS[way]
    rewrite(sent, change)
    for command in COMMANDS if way == "network" else ("test", "diagnose"):
        assert named in refused(words(command, sent.relative_to(Path.cwd())), capfd)
    assert named in refused(["fit", "-c", "logs/sent/x/config.yaml"], capfd)
    assert named in refused(["fit", "-clogs/sent/x/config.yaml"], capfd)


@pytest.mark.parametrize("subject", [".", "checkpoints/last.ckpt"])
def test_nor_from_within_the_run(
    subject: str, sent: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    rewrite(sent, network("evil.Net"))
    (sent / "pyproject.toml").write_text('[tool.unstall]\nclasses = ["evil"]\n')
    monkeypatch.chdir(sent)
    refused(words("test", Path(subject)), capfd)
    assert str(sent) not in sys.path
    assert not (sent.parents[2] / "owned").exists()


@pytest.mark.parametrize("way", ["network", "_class_path"])
def test_what_the_hyper_parameters_name_is_not_imported(
    way: str, sent: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        del content["config"]
        if way == "network":
            content["hyper_parameters"]["network"] = {"class_path": "logs.sent.x.evil.Net"}
        else:
            content["hyper_parameters"] = {"_class_path": "evil.Module"}

    loose = rewrite_checkpoint(sent, change)
    for command in COMMANDS[:-1]:
        assert "evil" in refused(words(command, loose), capfd)


def test_the_flag_loads_what_is_not_among_runs(sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rewrite(sent, callback)
    assert "nothing is ever imported" in refused([*words("test", sent), "--trust"], capfd)

    def beside(config: dict[str, Any]) -> None:
        config["trainer"]["callbacks"][-1] = {"class_path": "beside.evil.Callback"}

    rewrite(sent, beside)
    assert "--trust" in refused(words("test", sent), capfd)
    main([*words("test", sent), "--trust"])
    assert Path("owned").exists()
    sys.modules.pop("beside.evil")


def test_a_run_of_this_project_needs_no_flag(sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(words("test", sent))
    assert "--trust" not in capfd.readouterr().err


def test_a_checkpoint_out_of_its_run_chooses_no_place(
    sent: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def change(content: dict[str, Any]) -> None:
        config = yaml.safe_load(content["config"])
        config |= {"logs_dir": str(tmp_path / "escaped"), "experiment": "../escaped", "ckpt_path": "evil.ckpt"}
        config["data"]["init_args"]["data_dir"] = "/nowhere"
        config["trainer"]["default_root_dir"] = str(tmp_path / "escaped")
        content["config"] = yaml.safe_dump(config)

    before = {path.name for path in tmp_path.iterdir()}
    main(words("test", rewrite_checkpoint(sent, change)))
    err = capfd.readouterr().err
    assert "note" in err
    assert "data.data_dir=/nowhere" in err
    assert "experiment=../escaped" in err
    assert {path.name for path in tmp_path.iterdir()} <= before | {"logs", "state"}
    assert not (tmp_path.parent / "escaped").exists()


def test_hyper_parameters_that_are_not_the_configs_are_said(sent: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["hyper_parameters"]["network"] = {"class_path": "evil.Net"}

    main(words("test", rewrite_checkpoint(sent, change)))
    assert "network.class_path=evil.Net" in capfd.readouterr().err
    assert not Path("owned").exists()


def test_a_run_of_ones_own_goes_on_until_it_is_sent(
    sent: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("flattened.py").write_text(
        "import torch\n\n\nclass Flat(torch.nn.Sequential):\n    def __init__(self) -> None:\n        "
        "super().__init__(torch.nn.Flatten(), torch.nn.Linear(784, 10))\n"
    )
    Path("mine.yaml").write_text("experiment: mine\nmodel: {init_args: {network: {class_path: flattened.Flat}}}\n")
    main(["fit", "-c", "mine.yaml", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--data.batch_size=64"])
    (run,) = Path("logs/mine").iterdir()
    main(words("test", run))
    main(["fit", f"--ckpt_path={run}", "--trainer.max_epochs=2"])
    Path("taken.ckpt").write_bytes((run / "checkpoints/last.ckpt").read_bytes())
    main(words("validate", Path("taken.ckpt")))
    assert "note" not in capfd.readouterr().err
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("another_user").resolve()))
    assert "flattened.Flat" in refused(words("test", run), capfd)
    main(["test", f"--ckpt_path={run}", "-c", "mine.yaml", "--trainer.accelerator=cpu"])
