"""What comes out of a layer: an activation where none belongs, or none where one does."""

from __future__ import annotations

from itertools import pairwise

from unstall.audit import ACTIVATIONS, LOSSES, SHAPES, Call, Comparison, Observation
from unstall.causes.cause import Fault, Shown

BOUNDED = {"sigmoid", "hardsigmoid", "tanh", "hardtanh", "softsign", "relu", "relu6"}
"""Activations that keep a logit from going where a likelihood wants it: not below zero, or not far from it."""

NO_PROBABILITIES = ", which are no probabilities of classes"


def softmax_of_one(seen: Observation) -> Shown:
    """A softmax over a dimension of one unit is 1 for every input (also by hand: a value over its own sum)."""
    compared = seen.comparison
    if compared is None:
        return None
    if compared.loss == "cross_entropy" and compared.prediction.ndim > 1 and compared.prediction.shape[1] == 1:
        return {"site": compared.site, "what": "The softmax in cross_entropy, of one unit,"}
    for call in compared.path:
        if _softmax_size(call, -1) == 1 and _is_probability(compared, call):
            return {"site": call.site, "what": "A softmax of one unit"}
        if call.name == "div" and compared.units == 1 and bool((call.outputs[0] == 1).all()):
            return {"site": call.site, "what": "One unit over the sum of all units, itself,"}
    return None


def softmax_over_the_batch(seen: Observation) -> Shown:
    """A softmax over the first dimension lets the samples of a batch compete: by design if each has one score."""
    compared = seen.comparison
    if compared is None:
        return None
    for call in compared.path:
        output = call.outputs[0]
        if _softmax_size(call, 0) is None or output.ndim < 2 or not output[0].numel() > 1 or len(output) < 2:
            continue
        if len(output) == seen.samples and len(output) not in output.shape[1:] and _is_probability(compared, call):
            return {"site": call.site, "samples": seen.samples}
    return None


def no_softmax_before_the_logarithm(seen: Observation) -> Shown:
    """A likelihood of classes, written by hand or as `nll_loss`, of values that no softmax has made probabilities."""
    compared = seen.comparison
    if compared is not None and compared.loss == "kl_div" and float(compared.prediction.max()) > 0.001:
        return {
            "site": compared.site,
            "what": "`kl_div` takes logarithms of probabilities, and is given numbers above 0",
        }
    if compared is None or compared.labels is None or compared.complement:
        return None
    names = [call.name for call in compared.path]
    if compared.loss == "nll_loss" and compared.logarithm is None:
        if bool((compared.prediction.exp().sum(1) < 1.01).all()):
            return None
        made = "probabilities" if "softmax" in names else "raw outputs"
        return {
            "site": compared.site,
            "what": f"`nll_loss` is given {made}, and takes them for log-probabilities{NO_PROBABILITIES}",
        }
    if compared.logarithm is not None and "softmax" not in names and _is_plain(compared):
        made = f"what {compared.activation.name} returns" if compared.activation is not None else "raw outputs"
        return {
            "site": compared.logarithm.site or compared.site,
            "what": f"The loss takes the logarithm of {made}{NO_PROBABILITIES}",
        }
    return None


def no_sigmoid_before_the_logarithm(seen: Observation) -> Shown:
    """A binary likelihood written by hand, of values that no sigmoid has made probabilities."""
    compared = seen.comparison
    if compared is None or not compared.complement or compared.logarithm is None or not _is_plain(compared):
        return None
    names = {call.name for call in compared.path}
    if names & {"sigmoid", "softmax", "hardsigmoid"}:
        return None
    made = f"what {compared.activation.name} returns" if compared.activation is not None else "raw outputs"
    return {"site": compared.site, "made": made}


def logarithm_of_zero(seen: Observation) -> Shown:
    """A logarithm by hand of a probability that rounds to zero for an output that is far off."""
    compared = seen.comparison
    for before, call in pairwise(() if compared is None else compared.path):
        if call.name == "log" and before.name in ("softmax", "sigmoid"):
            return {"site": call.site, "activation": before.name}
    return None


def activation_before_logits(seen: Observation) -> Shown:
    """`cross_entropy` and its like apply softmax or sigmoid themselves: what is given to them must be logits."""
    compared = seen.comparison
    if compared is None:
        return None
    if compared.loss in ("cross_entropy", "binary_cross_entropy_with_logits"):
        before, what = compared.path, compared.loss
    else:
        softmaxes = [i for i, call in enumerate(compared.path) if call.name in ("softmax", "log_softmax")]
        before, what = compared.path[: max(softmaxes, default=0)], "a softmax"
    twice = next((call for call in before if call.name in ("softmax", "sigmoid", "hardsigmoid")), None)
    if twice is None or any(call.name not in SHAPES for call in before[before.index(twice) + 1 :]):  # as a gate, say
        return None
    return {"site": twice.site or compared.site, "first": twice.name, "loss": what}


def bounded_logits(seen: Observation) -> Shown:
    """An activation on the logits themselves, such as a ReLU after the last layer."""
    compared = seen.comparison
    if compared is None or not compared.path or compared.path[0].name not in BOUNDED:
        return None
    rest = {call.name for call in compared.path[1:]}
    takes_logits = compared.loss in ("cross_entropy", "binary_cross_entropy_with_logits")
    first = compared.path[0]
    if first.name in ("sigmoid", "hardsigmoid") or not (takes_logits or rest & {"softmax", "log_softmax", "sigmoid"}):
        return None
    return {"site": first.site or compared.site, "activation": first.name}


def none_between_layers(seen: Observation) -> Shown:
    """Layers in a row with nothing but linear functions between, from the inputs to the prediction."""
    if seen.series is None:
        return None
    named = ", ".join(seen.series.layers[:3]) + (", ..." if len(seen.series.layers) > 3 else "")
    return {"site": seen.series.site, "count": seen.series.count, "names": f" ({named})" if named else ""}


def _is_probability(compared: Comparison, softmax: Call) -> bool:
    """Return whether what a softmax returns is compared with the target: it is no attention, no gate."""
    after = compared.path[compared.path.index(softmax) + 1 :]
    return all(call.name in SHAPES | {"log", "div"} or _is_small(call) for call in after)


def _is_plain(compared: Comparison) -> bool:
    """Return whether a likelihood by hand is made of nothing but activations, a division and a logarithm.

    Others may have made probabilities in their own way: an exponential over its sum, a distribution function.
    """
    usual = ACTIVATIONS.keys() | SHAPES | {"log", "log2", "log10", "neg", "div", "rsub"}
    return compared.loss not in LOSSES.keys() - {"nll_loss"} and all(
        call.name in usual or _is_small(call) for call in compared.path
    )


def _is_small(call: Call) -> bool:
    """Return whether a call adds a small number, so that no logarithm is taken of zero."""
    added = [value for value in call.arguments.values() if isinstance(value, int | float)]
    return call.name == "add" and bool(added) and abs(added[0]) < 0.01


def _softmax_size(call: Call, dimension: int) -> int | None:
    """Return the size of what a softmax runs over; None for other calls, and where 0 is asked for and it is another."""
    over = call.arguments.get("dim", call.arguments.get(1))
    output = call.outputs[0]
    if call.name not in ("softmax", "log_softmax") or not isinstance(over, int) or not output.ndim:
        return None
    return None if dimension == 0 and over % output.ndim else output.shape[over]


ACTIVATION_FAULTS = (
    Fault(
        "softmax of one unit",
        softmax_of_one,
        "{what} is 1 for every input, so that nothing can be learned",
        "use a sigmoid for two classes, or one unit for each class",
        "nn.Linear(hidden, 1) with F.binary_cross_entropy_with_logits",
        certain=True,
        mend="output",
    ),
    Fault(
        "softmax over the batch",
        softmax_over_the_batch,
        "The softmax runs over the {samples} samples of a batch, which compete with one another",
        "let it run over the classes",
        "x.softmax(dim=-1)",
        certain=True,
        mend="output",
    ),
    Fault(
        "no probabilities before the logarithm",
        no_softmax_before_the_logarithm,
        "{what}",
        "give logits to cross_entropy",
        "F.cross_entropy(logits, labels)",
        certain=True,
        mend="output",
    ),
    Fault(
        "no sigmoid before the logarithm",
        no_sigmoid_before_the_logarithm,
        "The loss takes the logarithm of {made}, which are no probabilities",
        "give logits to binary_cross_entropy_with_logits",
        "F.binary_cross_entropy_with_logits(logits, targets)",
        certain=True,
        mend="output",
    ),
    Fault(
        "activation before a loss of logits",
        activation_before_logits,
        "{first} is applied before {loss}, which applies its own",
        "give it the output of the last layer as it is",
        "F.cross_entropy(logits, labels)",
        certain=True,
        mend="output",
    ),
    Fault(
        "a logarithm of zero",
        logarithm_of_zero,
        "The logarithm of what {activation} returns is not finite where that rounds to zero, and its gradient neither",
        "let the loss take the logarithm, from logits",
        "F.cross_entropy(logits, labels)",
        mend="output",
    ),
    Fault(
        "activation on the logits",
        bounded_logits,
        "The last layer's output goes through {activation}, which keeps a class from being ruled out",
        "leave the activation after the last layer out",
        mend="output",
    ),
)

LINEAR_FAULTS = (
    Fault(
        "no activation between the layers",
        none_between_layers,
        "{count} layers{names} follow one another with no activation between: together they are one linear map",
        "put an activation after each but the last",
        "nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 1))",
        mend="activation",
    ),
)
"""Said last: it limits what a network can learn, and not whether it learns that."""
