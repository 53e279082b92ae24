"""The names by which other projects log what we call `val/loss`."""

import pytest

from unstall.runs.metrics import logged_as, quantity_of, stage_of


@pytest.mark.parametrize(
    ("name", "stage", "quantity"),
    [
        ("val/loss", "val", "loss"),
        ("val_loss", "val", "loss"),
        ("valid_loss_epoch", "val", "loss"),
        ("Loss/val", "val", "loss"),
        ("loss/train_mse", "train", "loss"),
        ("accuracy/gap", None, None),
        ("val_auroc", "val", None),
        ("validation-accuracy", "val", "accuracy"),
        ("val_acc/dataloader_idx_1", "val", "accuracy"),
        ("train_loss_step", None, None),
        ("training_loss", "train", "loss"),
        ("loss", None, "loss"),
        ("val/f1", "val", None),
        ("value_loss", None, "loss"),
        ("epoch", None, None),
        ("", None, None),
    ],
)
def test_names_in_words(name: str, stage: str | None, quantity: str | None) -> None:
    assert (stage_of(name), quantity_of(name)) == (stage, quantity)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["val_loss", "val/loss"], "val/loss"),
        (["val_auxiliary_loss", "train_loss", "val_acc", "val_loss"], "val_loss"),
        (["val_loss/dataloader_idx_0", "val_loss/dataloader_idx_1"], "val_loss/dataloader_idx_0"),
        (["train_loss", "val_f1"], None),
        ([], None),
    ],
)
def test_the_name_that_says_the_same(names: list[str], found: str | None) -> None:
    assert logged_as("val/loss", names) == found


def test_a_metric_of_another_kind_is_only_found_by_its_own_name() -> None:
    assert logged_as("val/f1", ["val_f1", "val_loss"]) is None
    assert logged_as("f1", ["f1"]) == "f1"
