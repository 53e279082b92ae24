"""The setting of the rate is found by building the module, whatever it is called and whatever it means."""

from collections.abc import Callable
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from unstall.find.setting import merged, overlay_for, overlay_with_rate, rate_of_fit
from unstall.trials import LearningRate


def model(**arguments: Any) -> dict[str, Any]:
    return {"model": {"class_path": "mine.Module", "init_args": arguments}, "data": {"lr": 7.0}}


def rates(config: dict[str, Any], rate_of: Callable[[dict[str, Any]], float]) -> Callable[[Any], float]:
    """Builds a module whose rate is `rate_of` its arguments."""
    return lambda overlay: rate_of(merged(config, overlay)["model"]["init_args"])


NESTED = {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1, "eps": 1e-8}}


@pytest.mark.parametrize(
    ("arguments", "rate_of", "expected"),
    [
        ({"lr": 0.1, "width": 8}, lambda a: a["lr"], {"lr": 0.02}),
        ({"base_lr": 1}, lambda a: a["base_lr"], {"base_lr": 0.02}),
        ({"pace": 0.1, "dropout": 0.5}, lambda a: a["pace"], {"pace": 0.02}),
        ({"lr": 0.1}, lambda a: a["lr"] / 100, {"lr": 2.0}),
        ({"lr": 0.1, "batch_size": 32}, lambda a: a["lr"] * a["batch_size"] / 256, {"lr": 0.16}),
        ({"lr": 0.3, "own": {"lr": 0.1, "decay": 0.5}}, lambda a: a["own"]["lr"], {"own": {"lr": 0.02, "decay": 0.5}}),
        (
            {"optimizer": NESTED},
            lambda a: a["optimizer"]["init_args"]["lr"],
            {"optimizer": {**NESTED, "init_args": {"lr": 0.02}}},
        ),
    ],
)
def test_the_number_that_the_rate_follows(
    arguments: dict[str, Any], rate_of: Callable[[dict[str, Any]], float], expected: dict[str, Any]
) -> None:
    config = model(**arguments)
    overlay = overlay_with_rate(config, 0.02, rates(config, rate_of))
    assert overlay == {"model": {"class_path": "mine.Module", "init_args": expected}}
    assert rates(config, rate_of)(overlay) == pytest.approx(0.02)


def test_a_rate_that_is_right_already_is_still_set() -> None:
    config = model(lr=0.1)
    assert overlay_with_rate(config, 0.1, rates(config, lambda a: a["lr"]))["model"]["init_args"] == {"lr": 0.1}


@pytest.mark.parametrize("rate_of", [lambda a: 0.1, lambda a: 10 ** a["lr"], lambda a: 1 / 0, lambda a: 0.0])
def test_where_no_number_moves_it_a_callback_sets_it(rate_of: Callable[[dict[str, Any]], float]) -> None:
    config = model(lr=0.1, decay=0.5)
    added = {"class_path": "unstall.LearningRate", "init_args": {"learning_rate": 0.02}}
    assert overlay_with_rate(config, 0.02, rates(config, rate_of)) == {"trainer": {"callbacks+": [added]}}


def test_no_number_is_made_large_to_see_what_it_does() -> None:
    config, built = model(expansion=4.0, speed=1e-4), []

    def build(arguments: dict[str, Any]) -> float:
        built.append(arguments["expansion"])
        return float(arguments["speed"])

    assert overlay_with_rate(config, 1.0, rates(config, build))["model"]["init_args"] == {"speed": 1.0}
    assert max(built) <= 4


def test_what_else_is_set_stays_and_may_move_the_rate() -> None:
    config, wider = model(lr=0.1, width=8), {"model": {"init_args": {"width": 80}}}
    scaled = rates(config, lambda a: a["lr"] / a["width"])
    assert overlay_with_rate(config, 0.01, scaled, wider)["model"]["init_args"] == {"lr": 0.8, "width": 80}
    plain = rates(config, lambda a: a["lr"])
    assert overlay_with_rate(config, 0.1, plain, wider) == wider, "nothing is to be added"


def test_overlays_go_through_class_paths_and_only_to_known_settings() -> None:
    config = model(optimizer=NESTED)
    assert overlay_for(config, ("model", "optimizer", "lr"), 3.0) == {
        "model": {
            "class_path": "mine.Module",
            "init_args": {"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 3.0}}},
        }
    }
    assert overlay_for({"model": {"lr": 1.0, "width": 3}}, ("model", "lr"), 2.0) == {"model": {"lr": 2.0}}
    assert overlay_for(config, ("model", "learning_rate"), 3.0) is None
    both = merged({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}, "d": 4})
    assert both == {"a": {"b": 1, "c": 3}, "d": 4}


def test_the_rate_of_fit_is_that_of_the_fit() -> None:
    class Late(pl.LightningModule):
        """Knows its layers and its rate when the trainer is there."""

        def setup(self, stage: str) -> None:
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
            return self.layer(batch[0]).mean()

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=1 / self.trainer.estimated_stepping_batches)
            return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: step / 5)]

    loader = DataLoader(TensorDataset(torch.ones(8, 2)), 2)
    quiet: dict[str, Any] = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert rate_of_fit(Late(), loader, pl.Trainer(max_epochs=5, **quiet)) == pytest.approx(1 / 20)
    with_callback = pl.Trainer(max_epochs=5, callbacks=[LearningRate(0.3)], **quiet)
    assert rate_of_fit(Late(), loader, with_callback) == pytest.approx(0.3)
