"""Who learns: parameters without a gradient or an optimizer, or unknown to the module; units that are all the same."""

from __future__ import annotations

from unstall.audit import Observation
from unstall.causes.cause import Fault, Shown


def not_held(seen: Observation) -> Shown:
    """Parameters that require a gradient, get one, are given to no optimizer, and have not learned elsewhere."""
    left = [name for name in seen.not_held if name not in seen.without_gradient]
    if not left or not seen.drawn:
        return None
    return {"site": None, "count": len(left), "all": len(seen.parameters), "names": _names(left)}


def unreached(seen: Observation) -> Shown:
    """Parameters as drawn that the prediction is computed from and an optimizer holds, and that get no gradient."""
    if not seen.unreached or len(seen.without_gradient) == len(seen.parameters):
        return None
    site = seen.cut.site if seen.cut is not None else None if seen.reached_last is None else seen.reached_last.site
    return {"site": site, "count": len(seen.unreached), "all": len(seen.parameters), "names": _names(seen.unreached)}


def frozen(seen: Observation) -> Shown:
    """Frozen parameters that the prediction is computed from, and that have never learned: they look as drawn."""
    found = seen.frozen_as_drawn
    return {"site": None, "count": len(found), "names": _names(found)} if found else None


def loses_samples(seen: Observation) -> Shown:
    """A function that is given samples that differ and returns the same for all, on the way to the last layer."""
    if seen.loses_samples is None or seen.comparison is None:
        return None
    return {"site": seen.loses_samples.site, "samples": seen.samples}


def foreign(seen: Observation) -> Shown:
    """An optimizer that holds none of the module's parameters."""
    own = set(seen.parameters) - set(seen.not_held)
    return {"site": None, "count": seen.foreign} if seen.foreign and seen.parameters and not own else None


def unregistered(seen: Observation) -> Shown:
    """Weights that the step uses and `module.parameters()` does not list, such as those of layers in a plain list."""
    if not seen.unregistered:
        return None
    return {"site": None, "count": len(seen.unregistered), "shapes": ", ".join(map(str, seen.unregistered[:3]))}


def cut(seen: Observation) -> Shown:
    """A function that no gradient passes, between the parameters and the loss."""
    if seen.cut is None or not seen.parameters or len(seen.without_gradient) < len(seen.parameters):
        return None
    return {"site": seen.cut.site, "function": seen.cut.name}


def nothing_learns(seen: Observation) -> Shown:
    """No gradient at all, or one that is exactly zero, at every parameter."""
    if not seen.parameters or len(seen.without_gradient) + len(seen.zero_gradient) < len(seen.parameters):
        return None
    if seen.at_rest:  # a batch without targets, or a loss whose weight grows from zero
        return None
    kind = "zero" if seen.zero_gradient else "missing"
    return {
        "site": None if seen.comparison is None else seen.comparison.site,
        "kind": kind,
        "all": len(seen.parameters),
    }


def twins(seen: Observation) -> Shown:
    """Units of a layer that start equal and get equal gradients: they stay equal."""
    return {"site": None, "names": _names(seen.twins)} if seen.twins else None


def mixed(seen: Observation) -> Shown:
    """A prediction that changes with another sample's data, or a reshape that exchanges samples and time, say."""
    if seen.rearranged is not None:
        return {"site": seen.rearranged.site}
    return {"site": None} if seen.mixed and seen.comparison is not None else None


def dropped(seen: Observation) -> Shown:
    """Dropout that leaves a quarter of the units, or less."""
    return {"share": seen.dropout} if seen.dropout >= 0.75 else None


def _names(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


LEARNER_FAULTS = (
    Fault(
        "parameters that no optimizer holds",
        not_held,
        "{count} of {all} parameters are given to no optimizer ({names}) and stay as they were drawn",
        "give it all of them",
        "torch.optim.Adam(self.parameters(), lr=...)",
        certain=True,
        mend="held",
    ),
    Fault(
        "parameters that no gradient reaches",
        unreached,
        "{count} of {all} parameters get no gradient ({names}), although the prediction is computed from them",
        "let the graph through: no torch.no_grad(), .detach(), .data or .numpy() between them and the loss",
        certain=True,
    ),
    Fault(
        "frozen parameters that never learned",
        frozen,
        "{count} parameters are frozen ({names}) and look as they were drawn: no trained weights were loaded",
        "load the trained weights before freezing them, or let them learn",
        "self.encoder.requires_grad_(True)",
        mend="frozen",
    ),
    Fault(
        "samples that are lost on the way",
        loses_samples,
        "Of {samples} samples that differ this makes the same for all, and the last layer sees nothing else",
        "look at what it leaves: a mask the wrong way round, the state after the padding, a mean without order, say",
        "states[torch.arange(len(states)), lengths - 1]",
    ),
    Fault(
        "an optimizer of other parameters",
        foreign,
        "The optimizer holds {count} parameters, none of which is the module's",
        "make it of the module's own, after its layers are built",
        "torch.optim.Adam(self.parameters(), lr=...)",
        certain=True,
    ),
    Fault(
        "weights that the module does not know of",
        unregistered,
        "The step uses {count} weights (shapes {shapes}) that the module does not list: no optimizer holds them",
        "keep layers in nn.ModuleList or nn.ModuleDict, weights in nn.Parameter",
        "self.layers = nn.ModuleList([...])",
        certain=True,
    ),
    Fault(
        "a graph that is cut",
        cut,
        "No gradient passes `{function}`, and so none reaches a parameter",
        "compute the loss without it",
        certain=True,
    ),
    Fault(
        "no gradient anywhere",
        nothing_learns,
        "The gradient is {kind} at all {all} parameters: the loss does not depend on them",
        "look at what the loss is computed from",
        certain=True,
    ),
    Fault(
        "units that are all the same",
        twins,
        "All units of {names} have the same weights and the same gradients, and will always compute the same",
        "draw the initial weights at random",
        "nn.init.kaiming_normal_(layer.weight)",
        certain=True,
    ),
    Fault(
        "samples that are mixed",
        mixed,
        "The prediction for a sample changes with another sample's data",
        "permute dimensions where they are reshaped, and see which one each layer takes for the batch",
        "x.permute(1, 0, 2)",
        certain=True,
    ),
    Fault(
        "dropout too high",
        dropped,
        "Dropout takes {share:.0%} of the units away in every step",
        "lower it to 0.1 to 0.5",
        "nn.Dropout(0.2)",
        mend="dropout",
    ),
)
