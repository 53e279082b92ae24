"""Pictures, from numbers that others measured. Nothing is shown on a screen and no global state is touched."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib import figure
    from torch import Tensor


Figure: TypeAlias = "figure.Figure"


def png(picture: Figure) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def confusion_matrix(counts: Tensor, classes: Sequence[str]) -> Figure:
    """Draw how often each class was taken for each other.

    Args:
        counts: ``(classes, classes)``, rows are true labels, columns predictions.
        classes: A name per class.
    """
    from matplotlib.figure import Figure

    size = max(4.0, 0.55 * len(classes))
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    # The diagonal dwarfs the mistakes, which are what one looks for: colour by the share of each row's mistakes.
    mistakes = counts.float().clone()
    mistakes.fill_diagonal_(0)
    axes.imshow(mistakes.numpy(), cmap="Reds")
    ceiling = float(mistakes.max())
    for true, row in enumerate(counts.tolist()):
        for predicted, count in enumerate(row):
            dark = true != predicted and count > ceiling / 2
            weight = "bold" if true == predicted else "normal"
            axes.text(
                predicted,
                true,
                str(count) if count else "",
                ha="center",
                va="center",
                fontsize=8,
                weight=weight,
                color="white" if dark else "black",
            )
    axes.set_xticks(range(len(classes)), classes)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true label")
    accuracy = float(counts.diag().sum() / counts.sum().clamp(min=1))
    axes.set_title(f"accuracy {accuracy:.4f} on {int(counts.sum())} samples")
    return figure


def mistakes(images: Tensor, captions: Sequence[str]) -> Figure:
    """Draw images ``(n, channels, height, width)`` in [0, 1] in a square of tiles, each with its caption."""
    from matplotlib.figure import Figure

    columns = max(1, round(len(captions) ** 0.5))
    rows = max(1, -(-len(captions) // columns))
    figure = Figure(figsize=(1.7 * columns, 1.9 * rows), layout="constrained")
    tiles = list(figure.subplots(rows, columns, squeeze=False).flat)
    for tile in tiles:
        tile.axis("off")
    for tile, image, caption in zip(tiles, images, captions, strict=False):
        tile.imshow(image.permute(1, 2, 0).squeeze(-1).clamp(0, 1).float().numpy(), cmap="gray")
        tile.set_title(caption, fontsize=8)
    return figure


def training_curves(runs: Mapping[str, Mapping[str, Sequence[float]]], prior_loss: float) -> Figure:
    """Draw training loss (logarithmic) and validation accuracy of several runs over the epochs.

    Args:
        runs: For each label the columns ``epoch``, ``train/loss`` and ``val/accuracy`` of its metrics.
        prior_loss: The loss of always guessing the class prior, in nats: the line that a run which learns falls
            below.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, columns in runs.items():
        epochs = [epoch + 1 for epoch in columns["epoch"]]
        left.plot(epochs, columns["train/loss"], marker="o", markersize=3, label=label)
        right.plot(epochs, columns["val/accuracy"], marker="o", markersize=3, label=label)
    left.axhline(prior_loss, color="grey", linestyle=":", label=f"guessing the class prior ({prior_loss:.2f})")
    left.set_yscale("log")
    left.set_title("training loss")
    right.set_ylim(0, 1)
    right.set_title("validation accuracy")
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
    left.legend(fontsize=8)
    return figure
