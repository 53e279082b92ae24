"""What a module calls its losses and accuracies: `val/loss` here, `val_loss` or `valid_acc` in most other projects."""

import re
from collections.abc import Iterable

STAGES = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}}


QUANTITIES = {"loss": {"loss"}, "accuracy": {"accuracy", "acc"}}


def words_of(name: str) -> list[str]:
    """Return a metric's name in words, without Lightning's own endings for epochs and for one of several loaders."""
    words = re.split("[^a-z0-9]+", re.sub(r"/dataloader_idx_\d+$", "", name.lower()))
    return words[:-1] if len(words) > 1 and words[-1] == "epoch" else words


def stage_of(name: str) -> str | None:
    """Return `train` or `val` if a metric belongs to one of them; None for others and for those of a single step."""
    words = words_of(name)
    if words[-1] == "step":
        return None
    return next((stage for stage, aliases in STAGES.items() if aliases & set(words)), None)


def quantity_of(name: str) -> str | None:
    """Return `loss` or `accuracy` if a metric is one: by its last word, or a stage's by its group, `loss/train_mse`."""
    said = [words_of(name)[-1], *([name.lower().partition("/")[0]] if stage_of(name) else [])]
    return next((quantity for word in said for quantity, aliases in QUANTITIES.items() if word in aliases), None)


def logged_as(metric: str, names: Iterable[str]) -> str | None:
    """Return the name under which a metric was logged: its own, or else another that says the same.

    Of several, such as `val_loss` and `val_auxiliary_loss`, the one of fewest words, then the first: of several
    validation loaders, the first one.

    Args:
        metric: Such as `val/loss`.
        names: What was logged.
    """
    names = list(names)
    if metric in names:
        return metric
    meaning = stage_of(metric), quantity_of(metric)
    found = [name for name in names if (stage_of(name), quantity_of(name)) == meaning] if None not in meaning else []
    return min(found, key=lambda name: len(words_of(name)), default=None)
