"""What the finder leaves behind: files, a table, pictures."""

import csv
import dataclasses
import json
import math
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from unstall.find.pick import LearningRateSearch, RacedRate, conclude
from unstall.find.range_test import RangeTest
from unstall.find.report import draw, picture, save, show, table


def make_search(offset: float = 0.0) -> LearningRateSearch:
    rates = [10 ** (-4 + k / 10) for k in range(60)]
    losses = [2.3 - 1.5 * math.exp(-((math.log10(rate) + 1) ** 2)) if rate < 1 else 100 * rate for rate in rates]
    raced = [
        RacedRate(0.01, [2.3] * 10, 1.2 - offset, 1.1, False),
        RacedRate(0.032, [2.3, 0.8] * 20, 0.8 - offset, 0.7, False),
        RacedRate(0.1, [2.3, 0.7] * 20, 0.75 - offset, 0.7, False),
        RacedRate(1.0, [2.3, 99.0], math.inf, math.inf, True),
    ]
    tested = RangeTest(rates, [loss - offset for loss in losses])
    return conclude(tested, raced, 3e-3, leader=0.1, noise=0.0, learning_rate=0.1)


def printed(search: LearningRateSearch) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(table(search))
    return " ".join(capture.get().split())


def test_files(tmp_path: Path) -> None:
    search = make_search()
    overlay = {"model": {"init_args": {"learning_rate": 0.1}}}
    save(search, tmp_path, picture(search), overlay)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"lr_find.{kind}" for kind in ("csv", "json", "png", "yaml")
    ]
    assert yaml.safe_load((tmp_path / "lr_find.yaml").read_text()) == overlay
    assert "a callback sets it" not in (tmp_path / "lr_find.yaml").read_text()
    save(search, tmp_path, picture(search), {"trainer": {"callbacks+": []}})
    assert "a callback sets it" in (tmp_path / "lr_find.yaml").read_text()
    found = json.loads((tmp_path / "lr_find.json").read_text())
    assert list(found)[:4] == ["learning_rate", "leader", "noise", "usable"]
    assert list(found)[4:] == [
        "diverges_at",
        "lightning_suggestion",
        "range_test",
        "race",
        "configured",
        "fit_steps",
        "pace",
    ]
    assert found["range_test"][0].keys() == {"learning_rate", "loss", "smoothed_loss"}
    assert found["race"][0] == dataclasses.asdict(search.race[0])
    assert found["race"][-1]["expected_loss"] is None
    rows = list(csv.DictReader((tmp_path / "lr_find.csv").read_text().splitlines()))
    assert len(rows) == 60 + 10 + 40 + 40 + 2
    assert (tmp_path / "lr_find.png").read_bytes()[:4] == b"\x89PNG"


def test_the_table_says_why_each_rate_won_or_lost() -> None:
    text = printed(make_search())
    assert "1.0e-01 │ 0.750 │ picked: won the race with the lowest loss" in text
    assert "1.0e+00 │ - │ diverged" in text
    assert "Rates that train well: 3.2e-02 to 1.0e-01." in text
    assert "Lightning's own suggestion: 3.0e-03." in text
    assert "noise" not in text


def test_the_table_says_why_the_winner_of_the_race_is_not_the_pick() -> None:
    text = printed(dataclasses.replace(make_search(), learning_rate=0.0032, noise=0.21))
    assert "3.2e-03 │ - │ picked: did not race" in text
    assert "1.0e-01 │ 0.750 │ won the race with the lowest loss, but is too high for a fit" in text
    assert "1.0e-01 won the race, but when it is lowered 21% of its loss goes away at once" in text


def test_the_picture_answers_in_its_title_explains_every_mark_and_leaves_no_half_empty() -> None:
    search = dataclasses.replace(make_search(), learning_rate=0.032, noise=0.2, configured=1e-5)
    figure = draw(search)
    (axes,) = figure.axes
    assert figure.get_suptitle() == "Train with a learning rate of 3.2e-02"
    assert axes.get_title(loc="left").replace("\n", " ").startswith("1.0e-01 won the race, but")
    drawn = {line.get_label() for line in axes.lines if not str(line.get_label()).startswith("_")}
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {*drawn, "trains well"}
    assert {"picked", "won the race", "configured: 1.0e-05, off to the left"} <= drawn
    assert "Lightning's own suggestion: 3.0e-03, off to the left" in drawn
    low, high = axes.get_xlim()
    raced = [math.log10(rate.learning_rate) for rate in search.race]
    assert (max(raced) - min(raced)) / (math.log10(high) - math.log10(low)) > 0.5


@pytest.mark.parametrize(("offset", "scale"), [(0.0, "log"), (5.0, "linear")])
def test_the_picture_shows_negative_losses_too(offset: float, scale: str) -> None:
    (axes,) = draw(make_search(offset)).axes
    assert axes.get_yscale() == scale


def test_tensorboard_shows_both_curves_over_the_rate(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    search = make_search()
    with SummaryWriter(str(tmp_path)) as writer:
        show(search, writer, picture(search))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    raced = events.Scalars("lr_find/race_loss_over_1000_log10_rate")
    assert [(event.step, event.value) for event in raced] == [
        (round(1000 * math.log10(rate.learning_rate)), pytest.approx(rate.expected_loss)) for rate in search.race[:3]
    ]
    assert events.Tags()["images"] == ["lr_find"]
