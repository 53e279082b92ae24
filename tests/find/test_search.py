"""The finder's arithmetic against formulas, its refusals, its files, and its picks on real MNIST."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import itertools
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lesson.optimizer import KerasRMSprop
from unstall.errors import UsageError
from unstall.find import range_test
from unstall.find import report as lr_find_report
from unstall.find.pick import LearningRateSearch, RacedRate, candidates, conclude, lead, noise_share, settle
from unstall.find.range_test import RangeTest, raw_losses, smooth
from unstall.find.search import find_learning_rate

SGD = functools.partial(torch.optim.SGD, lr=0.1)


class Lit(pl.LightningModule):
    """Softmax regression with hyper-parameters that no checkpoint could hold."""

    def __init__(self, optimizer: Any = SGD, learning_rate: float = 0.1) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Linear(4, 3)
        self.optimizer = optimizer

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.parameters())


def make_loader(samples: int = 256, batch_size: int = 16, seed: int = 0, shuffle: bool = True) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator)
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 0.5).long()
    return DataLoader(TensorDataset(inputs, targets), batch_size, shuffle=shuffle)


DATA = (make_loader(), make_loader(seed=1, shuffle=False))


def make_search() -> LearningRateSearch:
    rates = [10 ** (-4 + k / 10) for k in range(60)]
    losses = [2.3 - 1.5 * math.exp(-((math.log10(rate) + 1) ** 2)) if rate < 1 else 100 * rate for rate in rates]
    raced = [
        RacedRate(0.01, [2.3] * 10, 1.2, 1.1, False),
        RacedRate(0.032, [2.3, 0.8] * 20, 0.8, 0.7, False),
        RacedRate(0.1, [2.3, 0.7] * 20, 0.75, 0.7, False),
        RacedRate(1.0, [2.3, 99.0], math.inf, math.inf, True),
    ]
    return conclude(RangeTest(rates, losses), raced, 3e-3, leader=0.1, noise=0.0, learning_rate=0.1)


def test_the_raw_losses_are_recovered_from_lightnings_average() -> None:
    draw = random.Random(0)
    losses = [2.3 + draw.gauss(0, 0.3) for _ in range(100)]
    average, shown = 0.0, []
    for step, loss in enumerate(losses, start=1):  # what `_LRCallback` does
        average = 0.98 * average + 0.02 * loss
        shown.append(average / (1 - 0.98 ** (step + 1)))
    assert shown[0] == pytest.approx(losses[0] / 2, rel=0.02)
    assert raw_losses(shown) == pytest.approx(losses, abs=1e-9)


def test_smoothing_keeps_a_constant_and_is_a_weighted_mean() -> None:
    assert smooth([3.0] * 20, 0.8) == pytest.approx([3.0] * 20)
    assert smooth([1.0, 2.0, 4.0], 0.5)[-1] == pytest.approx((1 + 2 * 2 + 4 * 4) / 7)


def test_the_range_test_is_lightnings_with_its_losses_mended() -> None:
    """The curve is that of a plain loop over the same batches at rising rates."""
    batches = list(make_loader(64, 8, shuffle=False))
    loader = DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
    module = Lit()
    search = find_learning_rate(module, (loader, loader), min_learning_rate=1e-4, max_learning_rate=1.0)
    network = copy.deepcopy(module.network)
    losses = []
    for rate, step in zip(search.range_test.learning_rates, range(100), strict=True):
        inputs, targets = batches[step % len(batches)]
        loss = F.cross_entropy(network(inputs), targets)
        losses.append(loss.item())
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter -= rate * parameter.grad
    assert search.range_test.losses == pytest.approx(losses, abs=1e-4)
    assert search.range_test.learning_rates[0] == pytest.approx(1e-4)
    assert search.lightning_suggestion is not None


def test_blow_up_is_seen_past_the_minimum_only() -> None:
    rates = [10.0**k for k in range(-30, 10)]
    falling = [2.3] * 20 + [1.0] * 10
    assert RangeTest(rates[:30], falling).blows_up_at is None
    blown = RangeTest(rates, falling + [50.0] * 10)
    assert blown.blows_up_at == rates[30]


@pytest.mark.parametrize(("least", "top"), [(0.3, 1.0), (0.01, 0.032), (0.05, 0.1)])
def test_candidates_end_above_the_minimum_of_the_range_test(least: float, top: float) -> None:
    rates = [10 ** (-6 + k / 10) for k in range(80)]
    losses = [1 + abs(math.log10(rate / least)) for rate in rates]
    chosen = candidates(RangeTest(rates, losses), 5, 1e-8, 1e2)
    assert chosen[-1] in (top, pytest.approx(top * 10**0.5, rel=0.02))
    assert len(chosen) == 5
    assert all(b / a == pytest.approx(10**0.5, rel=0.03) for a, b in itertools.pairwise(chosen))
    assert max(candidates(RangeTest(rates, losses), 5, 1e-8, least)) <= least


def test_the_winner_is_lower_the_longer_the_fit_goes_on() -> None:
    finalists = [RacedRate(0.01, [0.22] * 20, 0.220, 0.2, False), RacedRate(0.1, [0.2] * 20, 0.200, 0.2, False)]
    assert lead(finalists, horizon=5).learning_rate == 0.1
    assert lead(finalists, horizon=20).learning_rate == 0.1
    assert lead(finalists, horizon=20 * 2**4).learning_rate == 0.01
    finalists[0] = dataclasses.replace(finalists[0], expected_loss=0.25)
    assert lead(finalists, horizon=math.inf).learning_rate == 0.1, "too far behind for any fit"


def test_a_lead_within_noise_is_not_preferred_to_a_lower_rate() -> None:
    calm = RacedRate(0.01, [0.24] * 20, 0.24, 0.2, False)
    short = RacedRate(0.001, [0.1] * 10, 0.1, 0.1, False)
    for swing, expected in ((0.01, 0.1), (0.15, 0.01)):
        wild = RacedRate(0.1, [0.2 + swing, 0.2 - swing] * 10, 0.2, 0.2, False)
        assert lead([short, calm, wild], horizon=20).learning_rate == expected


def test_what_goes_away_at_a_lower_rate_is_noise() -> None:
    assert noise_share([0.5, 0.3], [0.4, 0.2]) == pytest.approx(0.25)
    assert noise_share([0.4, 0.2], [0.5, 0.3]) == 0
    assert noise_share([0.4], [0.5, 0.3]) == 1, "it diverged at the second step"
    assert noise_share([], []) == 0


def test_noise_lowers_the_rate_the_more_the_longer_the_fit() -> None:
    def picked(noise: float, longer: float, lowest: float = 1e-7) -> float:
        return settle(0.1, noise, longer, lowest)

    assert picked(0.0, 1000.0) == 0.1
    assert [picked(noise, 8.0) for noise in (0.05, 0.1, 0.5)] == [0.1, 0.032, 0.01]
    assert [picked(0.09, longer) for longer in (0.1, 1.0, 8.0)] == [0.1, 0.1, 0.032]
    assert picked(0.5, 8.0, lowest=0.03) == 0.032
    assert picked(0.5, 8.0, lowest=0.2) == 0.1
    assert picked(0.3, math.inf) == picked(0.3, 32.0)


def test_batches_of_all_samples_have_no_noise_and_single_samples_have() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.cat(parts) for parts in zip(*make_loader(shuffle=False), strict=True))
    targets = torch.where(
        torch.rand(256, generator=generator) < 0.3, targets[torch.randperm(256, generator=generator)], targets
    )
    noise = {}
    for size in (256, 1):
        torch.manual_seed(0)
        loader = DataLoader(TensorDataset(inputs, targets), size, shuffle=True)
        noise[size] = find_learning_rate(Lit(), (loader, make_loader(seed=1)), steps=800).noise
    assert noise[256] < 1e-6 < 1e-3 < noise[1]


@pytest.mark.parametrize("epochs", [1, 100])
def test_the_pick_is_for_as_many_steps_as_the_fit_will_make(epochs: int) -> None:
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(Lit(), (make_loader(batch_size=1), make_loader(seed=1)), trainer, steps=210)
    longest = max(len(rate.losses) for rate in search.race)
    assert search.learning_rate == settle(search.leader, search.noise, 256 * epochs / longest, 1e-7)


def test_a_schedule_is_left_to_lower_the_rate_by_itself() -> None:
    class Scheduled(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]

    search = find_learning_rate(Scheduled(), (make_loader(batch_size=1), make_loader(seed=1)), steps=210)
    assert search.noise == 0
    assert search.learning_rate == search.leader


def test_a_loss_may_be_negative(tmp_path: Path) -> None:
    class Shifted(Lit):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) - 5

    search = find_learning_rate(Shifted(), DATA)
    assert 0.01 < search.learning_rate < 100
    assert search.usable[0] <= search.learning_rate <= search.usable[1]
    lr_find_report.save(search, tmp_path)
    assert (tmp_path / "lr_find.png").stat().st_size > 10_000


def test_conclusions() -> None:
    search = make_search()
    assert search.learning_rate == 0.1
    assert search.usable[0] <= 0.1 <= search.usable[1]
    assert search.diverges_at == 1.0


def test_a_rate_that_dies_in_a_later_leg_is_not_picked() -> None:
    raced = [RacedRate(0.1, [2.0] * 4 + [1.0] * 40, 1.0, 1.0, False), RacedRate(1.0, [2.0, 0.1], math.inf, 9, True)]
    assert lead(raced, horizon=100).learning_rate == 0.1
    assert conclude(RangeTest([0.1, 1.0], [2.0, 1.0]), raced, None, 0.1, 0.0, 0.1).diverges_at == 1.0


def test_finds_what_plain_training_finds() -> None:
    """Softmax regression: the pick is among the rates that are best when each is trained for the same steps."""
    torch.manual_seed(0)
    module = Lit()
    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(module, DATA, trainer, seed=3)
    finals = {}
    for position in range(-8, 5):
        rate = 10 ** (position / 2)
        network = copy.deepcopy(module.network)
        optimizer = torch.optim.SGD(network.parameters(), lr=rate)
        for _ in range(20):
            for inputs, targets in DATA[0]:
                optimizer.zero_grad()
                F.cross_entropy(network(inputs), targets).backward()
                optimizer.step()
        finals[rate] = sum(F.cross_entropy(network(x), y, reduction="sum").item() for x, y in DATA[1]) / 256
    best = min(finals.values())
    nearest = min(finals, key=lambda rate: abs(math.log(rate / search.learning_rate)))
    assert finals[nearest] < 1.1 * best
    assert finals[min(finals)] > 1.5 * best  # the task does tell rates apart


def test_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    module = Lit()
    before = copy.deepcopy(module.state_dict())
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # type: ignore[union-attr]
    first = find_learning_rate(module, DATA)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert module._trainer is None
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), states[2])
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert find_learning_rate(module, DATA) == first  # all that is drawn comes from `seed`


def test_the_ratio_of_parameter_groups_and_the_trainers_options_matter() -> None:
    class TwoGroups(Lit):
        def configure_optimizers(self) -> Any:
            groups = [{"params": [self.network.weight], "lr": 1e-4}, {"params": [self.network.bias], "lr": 1e-6}]
            return torch.optim.SGD(groups, lr=1.0)

    torch.manual_seed(0)
    search = find_learning_rate(TwoGroups(), DATA)
    assert 0.03 <= search.learning_rate <= 30  # of the first group, which does the work
    torch.manual_seed(0)
    clipped = pl.Trainer(gradient_clip_val=1e-3, accelerator="cpu", logger=False, enable_checkpointing=False)
    assert find_learning_rate(Lit(), DATA, clipped).learning_rate > search.learning_rate


def test_a_data_module_brings_its_transfer_hooks() -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return make_loader()

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 0, batch[1]

    search = find_learning_rate(Lit(), Data())
    assert min(rate.held_out_loss for rate in search.race) > 0.9  # with its inputs gone there is only the class prior


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"min_learning_rate": 1.0, "max_learning_rate": 0.1}, r"min_learning_rate=1\.0, max_learning_rate=0\.1"),
        ({"min_learning_rate": 0.0}, "positive"),
        ({"num_rates": 1}, "num_rates=1"),
        ({"steps": 20}, "steps=20"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        find_learning_rate(Lit(), DATA, **arguments)


def test_refuses_modules() -> None:
    manual = Lit()
    manual.automatic_optimization = False
    with pytest.raises(UsageError, match="manual optimization"):
        find_learning_rate(manual, DATA)

    frozen = Lit()
    frozen.requires_grad_(False)
    with pytest.raises(UsageError, match="requires no gradient"):
        find_learning_rate(frozen, DATA)

    broken = Lit()
    nn.init.constant_(broken.network.weight, math.nan)
    with pytest.raises(UsageError, match="not finite at the start"):
        find_learning_rate(broken, DATA)

    class OneCycle(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=99)]

    with pytest.raises(UsageError, match="OneCycleLR sets rates of its own"):
        find_learning_rate(OneCycle(), DATA)

    empty: DataLoader[Any] = DataLoader([])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="training loader has no batch"):
        find_learning_rate(Lit(), empty)


def test_files(tmp_path: Path) -> None:
    search = make_search()
    path = lr_find_report.save(search, tmp_path, key="model.init_args.learning_rate")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"lr_find.{kind}" for kind in ("csv", "json", "png", "yaml")
    ]
    assert yaml.safe_load(path.read_text()) == {"model": {"init_args": {"learning_rate": 0.1}}}
    found = json.loads((tmp_path / "lr_find.json").read_text())
    assert list(found)[:4] == ["learning_rate", "leader", "noise", "usable"]
    assert list(found)[4:] == ["diverges_at", "lightning_suggestion", "range_test", "race"]
    assert found["race"][-1]["expected_loss"] is None
    rows = list(csv.DictReader((tmp_path / "lr_find.csv").read_text().splitlines()))
    assert len(rows) == 60 + 10 + 40 + 40 + 2
    assert (tmp_path / "lr_find.png").read_bytes()[:4] == b"\x89PNG"


def test_the_overlay_goes_where_the_module_keeps_its_rate() -> None:
    nested = {"network": {"class_path": "MLP"}, "optimizer": {"class_path": "Adam", "init_args": {"lr": 1e-3}}}
    assert lr_find_report.find_key(nested) == lr_find_report.DEFAULT_KEY
    assert lr_find_report.find_key({"learning_rate": 1e-3, **nested}) == "model.init_args.learning_rate"
    assert lr_find_report.find_key({"width": 3}) == lr_find_report.DEFAULT_KEY


def test_the_table_names_both_picks() -> None:
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(lr_find_report.table(make_search()))
    text = capture.get()
    assert "picked" in text
    assert "3.0e-03" in text
    assert "diverges" in text
    assert "noise" not in text


def test_the_table_says_why_the_winner_of_the_race_is_not_the_pick() -> None:
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as capture:
        console.print(lr_find_report.table(dataclasses.replace(make_search(), learning_rate=0.0032, noise=0.21)))
    text = " ".join(capture.get().split())
    assert "3.2e-03 │ 0 │ - │ picked" in text
    assert "At 1.0e-01, 21% of the loss is noise" in text


def test_tensorboard_shows_both_curves_over_the_rate(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    search = make_search()
    with SummaryWriter(str(tmp_path)) as writer:
        lr_find_report.show(search, writer)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    raced = events.Scalars("lr_find/race_loss_over_1000_log10_rate")
    assert [(event.step, event.value) for event in raced] == [
        (round(1000 * math.log10(rate.learning_rate)), pytest.approx(rate.expected_loss)) for rate in search.race[:3]
    ]
    assert events.Tags()["images"] == ["lr_find"]


def _find_in_process(rank: int, rendezvous: str, picks: Any) -> None:
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    torch.manual_seed(rank)  # other weights on each rank: nothing but the broadcast makes them agree
    search = find_learning_rate(Lit(), (make_loader(seed=rank), make_loader(seed=rank)), seed=rank)
    picks.put((search.learning_rate, search.range_test.losses))
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_agree(tmp_path: Path) -> None:
    context = torch.multiprocessing.get_context("spawn")
    picks = context.Queue()
    arguments = (f"file://{tmp_path}/rendezvous", picks)
    processes = [context.Process(target=_find_in_process, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    first, second = picks.get(timeout=120), picks.get(timeout=120)
    for process in processes:
        process.join()
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("optimizer", "low", "high"),
    [
        (functools.partial(KerasRMSprop, lr=1.0), 1e-3, 1e-2),
        (functools.partial(torch.optim.RMSprop, lr=1.0, alpha=0.9, eps=1e-7), 1e-3, 1e-2),
        (functools.partial(torch.optim.SGD, lr=1e-7), 0.3, 1.5),
        (functools.partial(torch.optim.Adam, lr=10.0), 1e-3, 1e-2),
    ],
    ids=["keras-rmsprop", "rmsprop", "sgd", "adam"],
)
def test_picks_on_mnist(mnist_dir: Path, optimizer: Any, low: float, high: float) -> None:
    """The rates that reach 0.95 after one epoch (docs/lr_find.md), wherever the module's own rate is."""
    from lesson.datamodule import MNISTDataModule
    from lesson.module import LitClassifier
    from lesson.network import MLP

    torch.manual_seed(0)
    module = LitClassifier(MLP([784, 512, 10]), optimizer)
    search = find_learning_rate(module, MNISTDataModule(data_dir=str(mnist_dir), batch_size=128))
    assert low <= search.learning_rate <= high
    steps = sum(len(rate.losses) for rate in search.race) + range_test.RANGE_TEST_STEPS
    assert steps <= 937  # 2.5 epochs
