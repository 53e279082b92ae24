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
    Object.fromEntries(Object.values(chart._nameToDataSeries).map(
        curve => [curve.name, (curve.scalarData || []).length])),
    inside(chart.shadowRoot || chart, 'path').filter(path => path.getAttribute('class') == 'line')
        .map(path => path.getAttribute('d')).filter(line => line && line.includes('L')).length,
])
"""
"""Of each chart its title, the points of its curves by their names, and how many lines are drawn: TensorBoard scales
its axes without outliers, and draws no curve whose points all lie beyond them."""
EPOCHS = 3


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
        for name, rate in ("learns", 0.05), ("diverges", 10.0):
            options = ["--data.data_dir=data", "--trainer.accelerator=cpu", f"--trainer.max_epochs={EPOCHS}"]
            optimizer = ["--model.optimizer=SGD", f"--model.optimizer.lr={rate}"]
            main(["fit", f"--experiment={name}", "--data.batch_size=4", *options, *optimizer])
    return place / "logs"


def test_the_charts_are_seen_with_their_titles_and_no_curve_is_empty(screenshots: Any, logs: Path) -> None:
    with screenshots.tensorboard(logs) as address, screenshots.browser() as driver:
        driver.set_window_size(1480, 1900)
        driver.get(address + screenshots.GLANCE)
        charts = screenshots.wait_until(lambda: drawn(screenshots.look(driver, CURVES)))
        groups = "return inside(document, 'tf-category-paginated-view').map(view => view.category.name)"
        categories = screenshots.look(driver, groups)
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
    for title, (points, lines) in charts.items():
        assert {name.rpartition("(")[2].partition("/")[0] for name in points} == {"learns", "diverges"}, title
        assert set(points.values()) == {EPOCHS}, title
        assert lines > len(points) / 2, title
    assert categories == ["at a glance, over epochs", "training and validation, over steps"]
    assert len(first) >= 2
    assert "train_loss_over_prior" in titles[0]
    assert "val_loss_over_prior" in titles[1]


def drawn(charts: list[list[Any]]) -> dict[str, Any] | None:
    """Return the charts by title, as soon as each has something to show."""
    ready = len(charts) > 1 and all(points and all(points.values()) and lines for _, points, lines in charts)
    return {title: (points, lines) for title, points, lines in charts} if ready else None
