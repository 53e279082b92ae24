import torch
from matplotlib import pyplot

from unstall.runs import pictures as figures


def words(figure: object) -> list[str]:
    from matplotlib.figure import Figure

    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return [text.get_text() for axes in figure.axes for text in [*axes.texts, axes.title]]


def test_confusion_matrix_shows_each_count_once_and_the_accuracy() -> None:
    figure = figures.confusion_matrix(torch.tensor([[7, 0, 2], [1, 5, 0], [0, 3, 4]]), ["a", "b", "c"])
    shown = words(figure)
    assert sorted(text for text in shown if text.isdigit()) == ["1", "2", "3", "4", "5", "7"]
    assert "accuracy 0.7273 on 22 samples" in shown
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b", "c"]


def test_mistakes_have_their_captions_also_fewer_than_tiles_and_in_colour() -> None:
    captions = ["1, taken for 7", "4, taken for 9", "c"]
    for channels in (1, 3):
        figure = figures.mistakes(torch.rand(3, channels, 28, 28), captions)
        assert [text for text in words(figure) if text] == captions


def test_training_curves_draw_every_run_and_the_prior() -> None:
    columns = {"epoch": [0.0, 1.0], "train/loss": [2.0, 0.5], "val/accuracy": [0.3, 0.9]}
    figure = figures.training_curves({"good": columns, "bad": columns}, prior_loss=2.3)
    words(figure)
    left, right = figure.axes
    assert [line.get_label() for line in left.lines] == ["good", "bad", "guessing the class prior (2.30)"]
    assert list(left.lines[0].get_ydata()) == [2.0, 0.5]
    assert list(right.lines[0].get_xdata()) == [1, 2]


def test_no_figure_stays_open() -> None:
    figures.training_curves({}, prior_loss=1.0)
    assert pyplot.get_fignums() == []
