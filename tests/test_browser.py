"""TensorBoard in a real browser: the charts are there, by their titles, and none is empty."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow

CURVES = """
return inside(document, 'tf-custom-scalar-multi-line-chart-card').map(chart => [
    chart.title,
    Object.keys(chart._nameToDataSeries),
    inside(chart.shadowRoot || chart, 'path').filter(path => path.getAttribute('class') == 'line')
        .map(path => path.getAttribute('d')),
])
"""


@pytest.fixture(scope="module")
def screenshots() -> ModuleType:
    pytest.importorskip("selenium", reason="selenium is not installed")
    file = Path(__file__).parents[1] / "benchmarks" / "screenshots.py"
    spec = importlib.util.spec_from_file_location("screenshots", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if module.missing():
        pytest.skip(module.missing())
    return module


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory, tiny_mnist_dir: Path) -> Path:
    """Two small runs: one that learns, and one that is far too high."""
    from unstall.cli.entry import main

    place = tmp_path_factory.mktemp("browser")
    (place / "data").symlink_to(tiny_mnist_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name, rate in ("learns", 0.05), "diverges", 10.0:
            options = ["--data.data_dir=data", "--trainer.accelerator=cpu", "--trainer.max_epochs=2"]
            optimizer = ["--model.optimizer=SGD", f"--model.optimizer.lr={rate}"]
            main(["fit", f"--experiment={name}", "--data.batch_size=4", *options, *optimizer])
    return place / "logs"


def test_the_charts_are_seen_with_their_titles_and_no_curve_is_empty(screenshots: Any, logs: Path) -> None:
    with screenshots.tensorboard(logs) as address, screenshots.browser() as driver:
        driver.set_window_size(1480, 1900)
        driver.get(address + screenshots.GLANCE)
        charts = screenshots.wait_until(lambda: drawn(screenshots.look(driver, CURVES)))
        text = driver.execute_script("return document.body.innerText")
        driver.get("about:blank")
        driver.get(f"{address}/?smoothing=0&forceSVG=true#timeseries")
        first = screenshots.wait_until(lambda: screenshots.look(driver, "return inside(document, 'scalar-card')"))
        titles = screenshots.look(driver, "return inside(document, 'scalar-card').map(card => card.innerText)")
    assert list(charts) == [
        "training loss over the class prior's (at most 2)",
        "validation loss over the class prior's (at most 2)",
        "training accuracy",
        "validation accuracy",
        "log10 learning rate",
        "log10 weights moved",
        "straightness",
        "loss",
        "accuracy",
    ]
    for title, (names, paths) in charts.items():
        assert len(paths) == len(names), title
        assert {name.rpartition("(")[2].partition("/")[0] for name in names} == {"learns", "diverges"}, title
        assert all(path.count("L") >= 1 for path in paths), title  # a line from one epoch to the next
    assert "at a glance, over epochs" in text
    assert len(first) >= 2
    assert "train_loss_over_prior" in titles[0]
    assert "val_loss_over_prior" in titles[1]


def drawn(charts: list[list[Any]]) -> dict[str, Any] | None:
    """Return the charts by title, as soon as each has drawn what it has found."""
    ready = len(charts) > 1 and all(names and len(names) == len(paths) for _, names, paths in charts)
    return {title: (names, paths) for title, names, paths in charts} if ready else None
