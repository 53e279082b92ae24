"""What the trainer's own commands are made of; what they do is in test_commands.py."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from unstall.cli.entry import main
from unstall.cli.trainer import build_model


@pytest.mark.usefixtures("place")
def test_a_config_builds_the_very_weights_that_its_run_began_with(capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", "-c", "mine.yaml", "--model.lr=0", "--trainer.max_epochs=1", "--seed_everything=5"])
    run = Path(capsys.readouterr().out.splitlines()[-1])
    trained = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.rand(3)
    model = build_model(yaml.safe_load((run / "config.yaml").read_text()))
    assert type(model) is sys.modules["mine"].Classifier
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, trained[name])
