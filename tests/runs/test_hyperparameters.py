"""The flat table by which runs are compared."""

from types import SimpleNamespace
from typing import Any, cast

import pytorch_lightning as pl
import torch

from unstall.runs.hyperparameters import hyperparameters_of, network_of


class Net(torch.nn.Module):
    def __init__(self, depth: int, init: str = "zeros", bias: bool = True) -> None:
        super().__init__()


class Module(pl.LightningModule):
    def __init__(self, network: Any, optimizer: Any, lr: float, widths: list[int], none: None = None) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)


def test_plain_values_under_the_same_names_for_every_module() -> None:
    network = {"class_path": "a.b.Net", "init_args": {"init": "glorot", "depth": 3, "bias": True}}
    module = Module(network, {"class_path": "c.Adam", "init_args": {"lr": 0.5}}, 0.5, [3, 4])
    module.network = Net(3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.param_groups[0]["lr"] = 0.05  # in force now; the run began with 0.5
    data = SimpleNamespace(hparams={"batch_size": 7, "data_dir": "here", "shape": (1, 2)})
    trainer = SimpleNamespace(optimizers=[optimizer], datamodule=data, train_dataloader=None)
    assert hyperparameters_of(cast(pl.Trainer, trainer), module) == {
        **{"learning_rate": 0.5, "optimizer": "SGD", "batch_size": 7, "seed": 0, "network": "Net(3, init=glorot)"},
        **{"setting/init": "glorot", "setting/shape": "1-2", "setting/depth": 3, "setting/bias": True},
        **{"setting/lr": 0.5, "setting/widths": "3-4"},
    }


def test_networks_of_one_class_differ_by_their_arguments() -> None:
    module = Module({"class_path": "a.b.Net", "init_args": {"depth": [3, 4], "init": "zeros"}}, None, 0.1, [])
    module.network = Net(3)
    assert network_of(module) == "Net(3-4)"
    module = Module(None, None, 0.1, [])
    assert network_of(module) == "Module"
    module.network = Net(3)  # built in Python
    assert network_of(module) == "Net"
