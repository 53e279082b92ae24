"""Who learns."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from audit.modules import LABELS, NUMBERS, Lit, X
from causes.modules import faults, findings


class Listed(Lit):
    """Layers in a plain list."""

    def __init__(self) -> None:
        super().__init__(3, F.cross_entropy)
        self.more = [nn.Linear(3, 3)]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.more[0](self.net(batch[0])), batch[1])


class MadeAnew(Lit):
    """A layer that is made in every step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(nn.Linear(3, 3)(self.net(batch[0])), batch[1])


class Detached(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net[2](self.net[0](batch[0]).relu().detach()), batch[1])


class Alike(Lit):
    """A mask the wrong way round leaves the last layer the same for all samples."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        hidden = self.net[0](batch[0])
        return F.cross_entropy(self.net[2](hidden.masked_fill(hidden.isfinite(), 1.0)), batch[1])


class Mixed(Lit):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net(batch[0].reshape(4, len(batch[0])).T), batch[1])


class Exchanged(Lit):
    """A reshape in the place of a permutation, within a mean that hides which sample is which."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        sequences = batch[0].reshape(len(batch[0]), 2, 2).reshape(2, len(batch[0]), 2)
        return F.cross_entropy(self.net(torch.cat([sequences[0], sequences[1]], 1)), batch[1])


def constant(module: Lit) -> Lit:
    for weight in module.parameters():
        nn.init.constant_(weight, 0.1)
    return module


def test_each_shows() -> None:
    plain = Lit(3, F.cross_entropy)
    head = [torch.optim.SGD(plain.net[2].parameters(), lr=1)]
    assert faults(plain, X, LABELS, optimizers=head) == {"parameters that no optimizer holds"}
    others = [torch.optim.SGD(Lit(3, F.cross_entropy).parameters(), lr=1)]
    assert "an optimizer of other parameters" in faults(plain, X, LABELS, optimizers=others)
    assert faults(Listed(), X, LABELS) == {"weights that the module does not know of"}
    assert "a graph that is cut" in faults(Lit(3, lambda out, y: F.cross_entropy(out.detach(), y)), X, LABELS)
    assert "no gradient anywhere" in faults(Lit(3, lambda out, y: F.cross_entropy(0 * out, y)), X, LABELS)
    assert "units that are all the same" in faults(constant(Lit(3, F.cross_entropy)), X, LABELS)
    assert faults(Mixed(3, F.cross_entropy), X, LABELS) == {"samples that are mixed"}
    (found,) = findings(Exchanged(3, F.cross_entropy), X, LABELS)
    assert (found.fault, found.site is not None) == ("samples that are mixed", True)
    assert faults(MadeAnew(3, F.cross_entropy), X, LABELS) == {"weights that the module does not know of"}
    assert faults(Detached(3, F.cross_entropy), X, LABELS) == {"parameters that no gradient reaches"}
    frozen = Lit(3, F.cross_entropy)
    frozen.net[0].requires_grad_(False)
    assert faults(frozen, X, LABELS) == {"frozen parameters that never learned"}
    assert faults(Alike(3, F.cross_entropy), X, LABELS) == {"samples that are lost on the way"}
    dropping = Lit(3, F.cross_entropy)
    dropping.net.insert(2, nn.Dropout(0.9))
    assert faults(dropping, X, LABELS) == {"dropout too high"}


class Reading(Lit):
    """A recurrence over rows of an image, of which the last is blank."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__(3, F.cross_entropy)
        self.rnn = nn.LSTM(4, 8, batch_first=batch_first)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.net[2](self.rnn(batch[0])[0][:, -1]), batch[1])


def test_a_recurrence_along_the_samples() -> None:
    rows = torch.randn(32, 6, 4)
    rows[:, -1] = 0
    assert "samples that are mixed" in faults(Reading(False), rows, LABELS)
    assert faults(Reading(True), rows, LABELS) == set()

    class TimeFirst(Reading):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return F.cross_entropy(self.net[2](self.rnn(batch[0].transpose(0, 1))[0][-1]), batch[1])

    assert faults(TimeFirst(False), rows, LABELS) == set()


def test_what_is_meant_does_not() -> None:
    plain = Lit(3, F.cross_entropy)
    assert faults(plain, X, LABELS, optimizers=[torch.optim.SGD(plain.parameters(), lr=1)]) == set()
    plain.net[0].requires_grad_(False).weight.mul_(3)  # a frozen backbone that has learned, whose head is trained
    assert faults(plain, X, LABELS, optimizers=[torch.optim.SGD(plain.net[2].parameters(), lr=1)]) == set()
    zero_head = Lit(3, F.cross_entropy)
    nn.init.zeros_(zero_head.net[2].weight)  # a layer that starts at zero, as in residual blocks
    assert faults(zero_head, X, LABELS) == set()
    normalised = Lit(3, F.cross_entropy)
    normalised.net.insert(1, nn.BatchNorm1d(8))
    assert faults(normalised, X, LABELS) == set()


def optimizer(*parts: nn.Module) -> list[torch.optim.Optimizer]:
    return [torch.optim.SGD([weight for part in parts for weight in part.parameters()], lr=1)]


def test_layers_out_of_reach_of_the_optimizer_and_their_repaired_twins() -> None:
    module = Lit(3, F.cross_entropy)
    (found,) = findings(module, X, LABELS, optimizers=optimizer(module.net[0]))
    assert found.sentence == (
        "2 of 4 parameters are given to no optimizer (net.2.weight, net.2.bias) and stay as they were drawn"
    )
    assert faults(module, X, LABELS, optimizers=[*optimizer(module.net[0]), *optimizer(module.net[2])]) == set()
    earlier = optimizer(module)  # made before the layers that it should hold
    module.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    assert "an optimizer of other parameters" in faults(module, X, LABELS, optimizers=earlier)
    assert faults(module, X, LABELS, optimizers=optimizer(module)) == set()


def test_weights_that_the_module_does_not_list_in_other_places() -> None:
    class Hidden(Lit):
        def __init__(self, keep: Any) -> None:
            super().__init__(3, F.cross_entropy)
            self.keep = keep

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            (part,) = self.keep.values() if isinstance(self.keep, dict | nn.ModuleDict) else self.keep
            out = self.net(batch[0])
            return F.cross_entropy(part(out) if isinstance(part, nn.Module) else out @ part, batch[1])

    for keep in ({"a": nn.Linear(3, 3)}, (nn.Linear(3, 3),), [torch.rand(3, 3, requires_grad=True)]):
        (found,) = findings(Hidden(keep), X, LABELS)
        assert str(found.fault) == "weights that the module does not know of"
        assert "(3, 3)" in found.sentence
    for keep in (nn.ModuleDict({"a": nn.Linear(3, 3)}), nn.ModuleList([nn.Linear(3, 3)]), [torch.rand(3, 3)]):
        assert faults(Hidden(keep), X, LABELS) == set()


def test_graphs_that_are_cut() -> None:
    for loss, function in (
        (lambda out, y: F.cross_entropy(out.detach(), y), "detach"),
        (lambda out, y: F.cross_entropy(out.data, y), "data"),
        (lambda out, y: F.mse_loss(out.argmax(1).float().requires_grad_(), y.float()), "argmax"),
        (lambda out, y: (out.argmax(1) != y).float().mean().requires_grad_(), "argmax"),
    ):
        first = findings(Lit(3, loss), X, LABELS)[0]
        assert str(first.fault) == "a graph that is cut"
        assert first.sentence == f"No gradient passes `{function}`, and so none reaches a parameter"
        assert first.site is not None
        assert first.site.code.startswith("(lambda out, y:")
    copied = Lit(3, lambda out, y: torch.tensor(F.cross_entropy(out, y).item(), requires_grad=True))
    assert faults(copied, X, LABELS) == {"no gradient anywhere"}
    assert faults(Lit(3, lambda out, y: F.cross_entropy(out + out.detach(), y)), X, LABELS) == set()


def test_units_that_are_all_the_same_in_other_layers() -> None:
    class Convolution(Lit):
        def __init__(self, constant: bool) -> None:
            super().__init__(3, F.cross_entropy)
            first = nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 6, 3)
            self.net = nn.Sequential(*first, nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
            if constant:
                for weight in self.net.parameters():
                    nn.init.ones_(weight)

    def first(module: Lit) -> str:
        return next(iter(findings(module, X, LABELS))).sentence

    assert first(Convolution(True)).startswith("All units of net.1.weight have the same weights")
    assert faults(Convolution(False), X, LABELS) == set()
    last = Lit(2, lambda out, y: F.mse_loss(out, y[:, None].expand(-1, 2)))  # two outputs of one target
    nn.init.zeros_(last.net[2].weight)
    nn.init.zeros_(last.net[2].bias)
    assert faults(last, X, NUMBERS) == set()
