"""Which of the tool's words count as right, and which as near, for what is wrong with a stalled run. One place."""

from collections.abc import Mapping, Sequence
from typing import Any

NAMES: dict[str, tuple[str, ...]] = {
    "last_activation": (
        "softmax of one unit",
        "softmax over the batch",
        "no probabilities before the logarithm",
        "no sigmoid before the logarithm",
        "activation before a loss of logits",
        "activation on the logits",
        "targets out of the output's range",
        "last activation and loss do not fit the targets",
    ),
    "loss": (
        "classes compared as numbers",
        "no probabilities before the logarithm",
        "no sigmoid before the logarithm",
        "activation before a loss of logits",
        "a sum where a mean is meant",
        "last activation and loss do not fit the targets",
    ),
    "sign": ("loss of the wrong sign",),
    "shapes": ("shapes that broadcast",),
    "log of zero": ("a logarithm of zero",),
    "outputs": ("more classes than outputs",),
    "targets": (
        "targets out of the output's range",
        "targets of another scale than the output",
        "labels that are not zeros and ones",
        "one label for all samples",
    ),
    "inputs": (
        "inputs far from unit scale",
        "features on scales of their own",
        "inputs on a scale that hinders",
        "inputs or initial weights of the wrong scale",
        "held-out inputs unlike the training inputs",
    ),
    "constant inputs": ("constant inputs", "inputs that are all alike"),
    "not finite": ("numbers that are not finite",),
    "order": ("training data sorted by class",),
    "repeated": ("the same batch again",),
    "balance": ("one class makes up nearly all", "rare classes that count still less"),
    "labels": ("nothing to learn", "labels that contradict each other"),
    "not held": ("parameters that no optimizer holds", "an optimizer of other parameters"),
    "unregistered": ("weights that the module does not know of",),
    "cut": ("a graph that is cut", "parameters that no gradient reaches"),
    "no gradient": ("no gradient anywhere", "parameters that no gradient reaches"),
    "mixed": ("samples that are mixed",),
    "init": (
        "inputs or initial weights of the wrong scale",
        "units dead from the start",
        "units that are all the same",
    ),
    "activation": ("vanishing gradients", "no activation between the layers"),
    "layers": ("too little capacity", "no better than a linear model", "no activation between the layers"),
    "rate too low": ("learning rate too low",),
    "rate too high": ("learning rate too high", "units killed by the learning rate"),
    "learning_rate": ("learning rate too low", "learning rate too high", "units killed by the learning rate"),
    "optimizer": ("an optimizer that does not suit",),
    "schedule": ("a schedule that takes the step away",),
    "clipping": ("gradients clipped away",),
    "zeroing": ("gradients that add up", "gradients zeroed before the step"),
    "weight decay": ("weight decay too strong",),
    "dropout": ("dropout too high",),
    "regularisation": ("weight decay too strong", "dropout too high"),
    "epochs": ("too few epochs",),
    "batch too small": ("batch too small",),
    "batch too large": (),
    "batch_size": ("batch too small",),
    "overfitting": ("overfitting",),
    "padding": ("samples that are lost on the way",),
    "ignores inputs": ("samples that are lost on the way",),
    "positions": ("samples that are lost on the way",),
    "terms": ("terms that outweigh the error",),
    "penalty": ("terms that outweigh the error",),
    "modes": ("evaluation unlike training",),
    "frozen": ("frozen parameters that never learned",),
    "root of zero": ("a loss without a finite gradient",),
    "empty mean": ("a loss without a finite gradient",),
    "divergence": ("non-finite loss",),
    "not finite forward": ("a loss without a finite gradient",),  # a root or a logarithm of numbers below zero
    "skipped": ("batches without a loss",),
    "left out": (),  # outputs that no loss trains: they share a layer with those that one does
    "validation": ("validation that measures something else", "held-out inputs unlike the training inputs"),
}
"""What the tool may call a kind of fault. Names with an underscore are those of data/programs.yaml."""

NEAR: dict[str, tuple[str, ...]] = {
    "last_activation": ("loss", "outputs", "targets", "no gradient"),
    "loss": ("last_activation", "outputs", "targets", "sign", "no gradient"),
    "sign": ("loss",),
    "shapes": ("loss",),
    "log of zero": ("loss", "divergence", "rate too high"),
    "outputs": ("last_activation", "loss", "targets"),
    "targets": ("last_activation", "loss", "inputs"),
    "inputs": ("targets", "init"),
    "constant inputs": ("inputs", "no gradient"),
    "not finite": ("divergence",),
    "order": ("repeated",),
    "repeated": ("order", "constant inputs"),
    "mixed": ("labels",),
    "not held": ("unregistered", "cut", "no gradient"),
    "unregistered": ("not held", "cut", "no gradient"),
    "cut": ("not held", "unregistered", "no gradient"),
    "init": ("inputs", "activation"),
    "activation": ("init", "layers"),
    "layers": ("activation",),
    "rate too low": ("epochs", "optimizer", "schedule"),
    "rate too high": ("divergence", "optimizer"),
    "learning_rate": ("epochs", "optimizer", "schedule", "divergence"),
    "optimizer": ("learning_rate",),
    "schedule": ("rate too low",),
    "clipping": ("rate too low",),
    "epochs": ("rate too low",),
    "batch too small": ("learning_rate",),
    "batch too large": ("learning_rate",),
    "batch_size": ("learning_rate",),
}
"""What is half right: the other end of the same misfit, or what the fault first does."""

QUIET = "healthy", "unsure"
"""What accuses nobody."""

WORDS = "right", "near", "misleading", "unsure", "healthy", "refused", "crash"
"""What a verdict on a stalled run can be."""


def called(kinds: Sequence[str]) -> set[str]:
    """Return all that kinds of fault may be called."""
    return {name for kind in kinds for name in NAMES[kind]}


def judge(said: str, kinds: Sequence[str], near: Sequence[str] = ()) -> str:
    """Return whether what was said of a stalled run is right: one of the true faults is named.

    Args:
        said: A cause's name.
        kinds: What is wrong with the run.
        near: Kinds that are half right of this run, besides `NEAR`.

    Raises:
        ValueError: for a name that no kind has.
    """
    if said in QUIET:
        return said
    if said not in called(list(NAMES)):
        raise ValueError(f"{said}: no kind of fault has this name; add it to NAMES in {__file__}")
    if said in called(kinds):
        return "right"
    half = called([*near, *(other for kind in kinds for other in NEAR.get(kind, ()))])
    return "near" if said in half else "misleading"


def kinds_of(entry: Mapping[str, Any]) -> list[str]:
    """Return the kinds of fault of a program, with the direction of rate and batch size where the correction tells it.

    Args:
        entry: Of data/programs.yaml.
    """
    before, after, kinds = entry["faulty"], entry.get("fixed") or {}, entry["faults"]
    rate, size = "learning_rate", "batch_size"
    if "lr" in after and "optimizer" not in after:
        rate = "rate too low" if after["lr"] > before["lr"] else "rate too high"
    if "batch_size" in after:
        size = "batch too small" if after["batch_size"] > before["batch_size"] else "batch too large"
    return [{"learning_rate": rate, "batch_size": size}.get(kind, kind) for kind in kinds]
