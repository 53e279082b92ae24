"""The whole search on softmax regression: what it picks, what it leaves alone, and what it refuses."""

from __future__ import annotations

import copy
import functools
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from unstall.errors import UsageError
from unstall.find.pick import LearningRateSearch, settle
from unstall.find.report import picture, save
from unstall.find.search import find_learning_rate
from unstall.find.setting import rate_of_fit
from unstall.trials import LearningRate, quiet

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


def noisy_data(batch_size: int) -> tuple[DataLoader[Any], DataLoader[Any]]:
    """Three of ten targets are another sample's."""
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.cat(parts) for parts in zip(*make_loader(shuffle=False), strict=True))
    targets = torch.where(
        torch.rand(256, generator=generator) < 0.3, targets[torch.randperm(256, generator=generator)], targets
    )
    return DataLoader(TensorDataset(inputs, targets), batch_size, shuffle=True), make_loader(seed=1)


def test_batches_of_all_samples_have_no_noise_and_single_samples_have() -> None:
    noise = {}
    for size in (256, 1):
        torch.manual_seed(0)
        noise[size] = find_learning_rate(Lit(), noisy_data(size), steps=800).noise
    assert noise[256] < 1e-6 < 1e-3 < noise[1]


@pytest.mark.parametrize("epochs", [1, 100])
def test_the_pick_is_for_as_many_steps_as_the_fit_will_make(epochs: int) -> None:
    trainer = pl.Trainer(max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(Lit(), (make_loader(batch_size=1), make_loader(seed=1)), trainer, steps=210)
    longest = max(len(rate.losses) for rate in search.race)
    (leader,) = (rate.losses for rate in search.race if rate.learning_rate == search.leader)
    assert search.learning_rate == settle(search.leader, search.noise, 256 * epochs / longest, 1e-7, leader)


def test_no_rate_races_longer_than_the_fit() -> None:
    trainer = pl.Trainer(max_steps=24, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(Lit(), DATA, trainer, steps=2100)
    assert max(len(rate.losses) for rate in search.race) == 24
    assert search.learning_rate == search.leader


def test_what_drops_out_early_takes_steps_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the race in which nothing drops out within a leg: the same in all that it comes to."""

    def searched() -> LearningRateSearch:
        torch.manual_seed(0)
        return find_learning_rate(Lit(), DATA, steps=800)

    few = searched()
    monkeypatch.setattr("unstall.find.search.LEAST_LOOK", math.inf)
    all_of_them = searched()
    assert (few.learning_rate, few.leader, few.usable) == (
        all_of_them.learning_rate,
        all_of_them.leader,
        all_of_them.usable,
    )
    whole = {rate.learning_rate: rate.losses for rate in all_of_them.race}
    assert all(rate.losses == whole[rate.learning_rate][: len(rate.losses)] for rate in few.race)
    assert len(whole[few.leader]) == max(len(rate.losses) for rate in few.race)
    assert sum(len(rate.losses) for rate in few.race) < sum(map(len, whole.values()))


@pytest.mark.parametrize("seed", range(3))
def test_where_losses_go_to_nothing_the_pick_keeps_away_from_the_cliff(seed: int) -> None:
    """A factor of ten between two losses of nothing is none: the lower rate is as good, and does not break."""

    class Scaled(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.slow = nn.Parameter(torch.tensor([3.0])), nn.Parameter(torch.tensor([1.0]))

        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            steep = (self.weight * batch[0][:, :1]).square().mean()  # diverges above a rate of about one
            return steep + 0.01 * self.slow.square().sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(Scaled(), DATA, trainer, steps=420, seed=seed)
    longest = max(len(rate.losses) for rate in search.race)
    low, high = (rate for rate in search.race if len(rate.losses) == longest)
    assert high.expected_loss < 0.1 * low.expected_loss < 0.001
    assert search.learning_rate == low.learning_rate


def test_a_stream_without_a_length_is_no_reason_to_go_down_a_decade() -> None:
    class Stream(torch.utils.data.IterableDataset[Any]):
        def __iter__(self) -> Any:
            yield from make_loader(2560).dataset

    stream: DataLoader[Any] = DataLoader(Stream(), 4)
    search = find_learning_rate(Lit(), (stream, DATA[1]), steps=210)
    assert search.learning_rate >= search.leader / 4


def test_the_peak_of_a_schedule_is_searched() -> None:
    class OneCycle(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            total = int(self.trainer.estimated_stepping_batches)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-4, total_steps=total)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    trainer = pl.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    torch.manual_seed(0)
    search = find_learning_rate(OneCycle(), DATA, trainer, steps=210)
    assert 0.1 <= search.learning_rate <= 10, "the configured peak is a thousandth of what trains"


@pytest.mark.parametrize("epochs", [10, None])
def test_a_schedule_is_left_to_lower_the_rate_by_itself(epochs: int | None) -> None:
    class Scheduled(Lit):
        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)]

    silent: Any = dict.fromkeys(("logger", "enable_checkpointing"), False)
    trainer = None if epochs is None else pl.Trainer(max_epochs=epochs, accelerator="cpu", **silent)
    search = find_learning_rate(Scheduled(), (make_loader(batch_size=1), make_loader(seed=1)), trainer, steps=210)
    assert (search.pace > 1) == (epochs is not None), "without a trainer nobody has said how long the fit is"
    assert search.noise == 0
    assert search.learning_rate == search.leader


class Following(Lit):
    """Its rate follows a function of the share of the fit that is over."""

    def __init__(self, share: Any) -> None:
        super().__init__()
        self.share = share

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        total = int(self.trainer.estimated_stepping_batches)

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.share(step / total))
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]


def test_the_race_sees_the_whole_schedule_however_long_the_fit() -> None:
    seen = [0.0]
    falling = Following(lambda share: seen.append(share) or 1 - share)  # type: ignore[func-returns-value]
    trainer = pl.Trainer(max_epochs=40, accelerator="cpu", logger=False, enable_checkpointing=False)
    search = find_learning_rate(falling, DATA, trainer, steps=210)
    longest = max(len(rate.losses) for rate in search.race)
    assert search.pace == pytest.approx(640 / longest)
    assert search.noise == 0
    assert max(seen) > 0.99


def test_a_schedule_that_only_warms_up_leaves_the_noise_to_be_probed() -> None:
    trainer = pl.Trainer(max_epochs=8, accelerator="cpu", logger=False, enable_checkpointing=False)
    torch.manual_seed(0)
    warming = Following(lambda share: min(1.0, 20 * share + 0.01))
    assert find_learning_rate(warming, noisy_data(1), trainer, steps=800).noise > 1e-3


def test_a_loss_may_be_negative(tmp_path: Path) -> None:
    class Shifted(Lit):
        def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
            return super().training_step(batch, batch_idx) - 5

    search = find_learning_rate(Shifted(), DATA)
    assert 0.01 < search.learning_rate < 100
    assert search.usable[0] <= search.learning_rate <= search.usable[1]
    save(search, tmp_path, picture(search))
    assert not (tmp_path / "lr_find.yaml").exists(), "no setting was given"
    assert (tmp_path / "lr_find.png").stat().st_size > 10_000


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


class Together(torch.optim.Optimizer):
    """Steps several optimizers as one, as people do who want Muon for matrices and AdamW for the rest."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})

    def step(self, closure: Any = None) -> Any:
        with torch.enable_grad():
            loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> Any:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: Any) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with torch 2.9")
def test_optimizers_that_are_stepped_together_keep_their_ratio() -> None:
    class Two(Lit):
        def configure_optimizers(self) -> Any:
            muon = torch.optim.Muon([self.network.weight], lr=2e-5)
            return Together(muon, torch.optim.AdamW([self.network.bias], lr=3e-7))

    torch.manual_seed(0)
    search = find_learning_rate(Two(), DATA, steps=210)
    assert search.configured == 2e-5
    assert 1e-3 <= search.learning_rate <= 1, "of Muon, whose part does the work"
    assert rate_of_fit(Two(), DATA) == 2e-5
    callback = LearningRate(search.learning_rate)
    trainer = pl.Trainer(max_steps=1, callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    with quiet():
        trainer.fit(Two(), *DATA)
    rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
    assert rates == pytest.approx([search.learning_rate, 0.015 * search.learning_rate])


def test_a_data_module_brings_its_transfer_hooks() -> None:
    class Data(pl.LightningDataModule):
        def train_dataloader(self) -> DataLoader[Any]:
            return make_loader()

        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return batch[0] * 0, batch[1]

    search = find_learning_rate(Lit(), Data())
    assert min(rate.held_out_loss for rate in search.race) > 0.9  # with its inputs gone there is only the class prior


def test_without_data_the_modules_own_loaders_are_taken() -> None:
    class Own(Lit):
        def train_dataloader(self) -> DataLoader[Any]:
            return make_loader()

    torch.manual_seed(0)
    module = Own()
    assert find_learning_rate(module) == find_learning_rate(module, module) == find_learning_rate(module, make_loader())
    with pytest.raises(UsageError, match="train_dataloader"):
        find_learning_rate(Lit())


@pytest.mark.parametrize("kind", ["one", "pair", "dictionary", "list", "pair of several"])
def test_loaders_are_given_as_to_a_fit(kind: str) -> None:
    class Flexible(Lit):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            batch = batch["a"] if isinstance(batch, dict) else batch
            return super().training_step(batch[0] if isinstance(batch[0], list | tuple) else batch, batch_idx)

        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.training_step(batch, batch_idx)

    several = {"a": make_loader(), "b": make_loader(512, seed=2)}
    given: dict[str, Any] = {
        "one": make_loader(),
        "pair": DATA,
        "dictionary": several,
        "list": list(several.values()),
        "pair of several": (several, [DATA[1], DATA[1]]),
    }
    silent: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    data = given[kind] if isinstance(given[kind], tuple) else (given[kind],)
    with quiet():
        pl.Trainer(max_steps=2, accelerator="cpu", **silent).fit(Flexible(), *data)  # so it is legal
    trainer = pl.Trainer(max_epochs=20, accelerator="cpu", **silent)
    torch.manual_seed(0)
    assert 0.01 < find_learning_rate(Flexible(), given[kind], trainer, steps=140).learning_rate < 100


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

    empty: DataLoader[Any] = DataLoader([])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="training loader has no batch"):
        find_learning_rate(Lit(), empty)


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
