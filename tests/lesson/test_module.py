"""The steps and metrics of a classifier: those of a plain loop."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lesson.datamodule import MNISTDataModule
from lesson.module import LitClassifier
from lesson.network import MLP
from unstall import UsageError

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
]


def blobs(samples: int = 103) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (samples,), generator=generator)
    return labels[:, None] + torch.randn(samples, 4, generator=generator), labels


def classifier(**arguments: Any) -> LitClassifier:
    torch.manual_seed(1)
    return LitClassifier(**{"network": MLP([4, 8, 3]), "optimizer": partial(torch.optim.SGD, lr=0.1)} | arguments)


def trainer(folder: Path, **arguments: Any) -> pl.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return pl.Trainer(
        **{"default_root_dir": folder, "enable_checkpointing": False, "max_epochs": 1} | quiet | arguments
    )


def reference(network: nn.Module, inputs: Tensor, labels: Tensor) -> tuple[float, float]:
    """Mean loss and accuracy, sample by sample."""
    losses, hits = 0.0, 0
    with torch.no_grad():
        for sample, label in zip(inputs, labels, strict=True):
            logits = network(sample[None])[0].double()
            losses += float(logits.logsumexp(0) - logits[label])
            hits += int(logits.argmax() == label)
    return losses / len(labels), hits / len(labels)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_metrics_are_those_of_a_plain_loop_over_a_ragged_set(stage: str, tmp_path: Path) -> None:
    inputs, labels = blobs(103)  # 103 = 3 x 32 + 7: a mean of batch means would be wrong
    module = classifier()
    loss, accuracy = reference(module.network, inputs, labels)
    loader = DataLoader(TensorDataset(inputs, labels), 32)
    (logged,) = getattr(trainer(tmp_path), stage)(module, loader, verbose=False)
    name = {"validate": "val"}.get(stage, stage)
    assert logged == pytest.approx({f"{name}/loss": loss, f"{name}/accuracy": accuracy}, rel=1e-5)


def test_training_is_a_plain_loop_and_logs_its_mean_loss(tmp_path: Path) -> None:
    inputs, labels = blobs(103)
    module, plain = classifier(), classifier().network
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    losses, hits = 0.0, 0
    for start in range(0, 103, 32):
        chosen = slice(start, start + 32)
        logits = plain(inputs[chosen])
        loss = F.cross_entropy(logits, labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += loss.item() * len(labels[chosen])
        hits += int((logits.argmax(1) == labels[chosen]).sum())
    fitted = trainer(tmp_path)
    fitted.fit(module, *2 * [DataLoader(TensorDataset(inputs, labels), 32)])
    for ours, theirs in zip(module.network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert float(fitted.callback_metrics["train/loss"]) == pytest.approx(losses / 103, rel=1e-5)
    assert float(fitted.callback_metrics["train/accuracy"]) == pytest.approx(hits / 103, rel=1e-5)


def test_predictions_are_probabilities_with_or_without_labels() -> None:
    module = classifier()
    inputs, labels = blobs(5)
    probabilities = module.predict_step((inputs, labels), 0)
    torch.testing.assert_close(probabilities, F.softmax(module.network(inputs), dim=1))
    torch.testing.assert_close(module.predict_step(inputs, 0), probabilities)


def test_schedule_steps_once_an_epoch(tmp_path: Path) -> None:
    module = classifier(lr_scheduler=partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5))
    fitted = trainer(tmp_path, max_epochs=3)
    fitted.fit(module, *2 * [DataLoader(TensorDataset(*blobs()), 32)])
    assert fitted.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.5**3)


def test_plateau_schedule_follows_the_metric_it_names(tmp_path: Path) -> None:
    from pytorch_lightning.cli import ReduceLROnPlateau

    module = classifier(
        optimizer=partial(torch.optim.SGD, lr=0.0),  # nothing improves: the rate is cut from the second epoch on
        lr_scheduler=partial(ReduceLROnPlateau, monitor="train/loss", patience=0, factor=0.5),
    )
    fitted = trainer(tmp_path, max_epochs=3)
    fitted.fit(module, *2 * [DataLoader(TensorDataset(*blobs()), 32)])
    assert fitted.lr_scheduler_configs[0].scheduler.num_bad_epochs == 0  # type: ignore[union-attr]
    assert fitted.lr_scheduler_configs[0].scheduler.last_epoch == 3


@pytest.mark.parametrize("rate", [-1.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused_at_once(rate: float) -> None:
    with pytest.raises(UsageError, match=r"model\.optimizer"):
        classifier(optimizer=partial(torch.optim.SGD, lr=rate))


def test_check_batch_names_what_does_not_fit_and_changes_nothing() -> None:
    inputs, labels = blobs(8)
    module = classifier(network=nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 3)))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    module.check_batch((inputs, labels))
    assert module.training
    assert torch.equal(random_state, torch.get_rng_state())
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    with pytest.raises(UsageError, match=r"inputs of shape \(5,\)"):
        module.check_batch((torch.zeros(8, 5), labels))
    with pytest.raises(UsageError, match="at least 4 outputs"):
        module.check_batch((inputs, labels + 1))


def test_checkpoint_loads_in_a_fresh_process_to_the_same_logits(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "best.ckpt"
    data = MNISTDataModule(data_dir=str(trained.parents[2] / "data"))
    data.setup("test")
    inputs, _ = next(iter(data.test_dataloader()))
    torch.save(inputs, tmp_path / "inputs.pt")
    code = (
        "import sys, torch; from lesson.module import LitClassifier\n"
        "module = LitClassifier.load_from_checkpoint(sys.argv[1], weights_only=True).eval()\n"
        "torch.save(module(torch.load(sys.argv[2])).detach(), sys.argv[3])"
    )
    files = [str(checkpoint), str(tmp_path / "inputs.pt"), str(tmp_path / "logits.pt")]
    subprocess.run([sys.executable, "-c", code, *files], check=True)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    network = MLP([784, 512, 10])
    network.load_state_dict({name.removeprefix("network."): value for name, value in weights.items()})
    assert torch.equal(torch.load(tmp_path / "logits.pt"), network(inputs))
