"""Causes that only a trial can tell."""

from torch.nn.functional import cross_entropy

from audit.modules import LABELS, Lit, X
from causes.modules import faults
from unstall.audit import observe
from unstall.causes import TRIED_FAULTS, find


def test_nothing_shows_before_a_trial_and_the_sentence_says_what_was_tried() -> None:
    module = Lit(3, cross_entropy)
    assert find(TRIED_FAULTS, observe(module, [X, LABELS])) == []
    assert faults(module, X, LABELS) == set()
    for fault in TRIED_FAULTS:
        assert fault.mend or fault == "validation that measures something else"
        assert not fault.certain
        values = {"change": "Adam, learning rate 0.001", "logged": 5.0, "returned": 0.1}
        assert ("Adam" in fault.sentence.format(**values)) == bool(fault.mend)
