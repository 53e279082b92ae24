"""Faults, and what is found of them."""

import copy
import pickle

from unstall.causes import COURSE_FAULTS, FAULTS
from unstall.causes.cause import Fault, Finding, find


def test_certain_faults_come_first_with_their_sentences() -> None:
    maybe = Fault("a doubt", lambda seen: {"n": seen} if seen else None, "There are {n}", "look at {n}")
    sure = Fault("an error", lambda seen: {"n": 2 * seen}, "There are {n}", "mend it", "x = 1", certain=True)
    assert find([maybe, sure], 0) == [Finding(sure, "There are 0", "mend it")]
    first, second = find([maybe, sure], 3)
    assert (first.fault, first.where, first.change) == (sure, "There are 6", "mend it, such as `x = 1`")
    assert (second.fault, second.where, second.change) == (maybe, "There are 3", "look at 3")


def test_what_a_check_cannot_compute_does_not_show() -> None:
    broken = Fault("a crash", lambda seen: {"n": 1 / seen}, "There are {n}", "look", certain=True)
    maybe = Fault("a doubt", lambda seen: {"n": seen}, "There are {n}", "look")
    assert [finding.fault for finding in find([broken, maybe], 0)] == [maybe]


def test_a_fault_is_its_name_and_survives_a_copy() -> None:
    assert FAULTS[0] == FAULTS[0].value == str(FAULTS[0])
    for copied in (copy.deepcopy(FAULTS[0]), pickle.loads(pickle.dumps(FAULTS[0]))):
        assert copied == FAULTS[0]
        assert (copied.check, copied.certain, copied.mend) == (FAULTS[0].check, FAULTS[0].certain, FAULTS[0].mend)


def test_no_two_faults_of_a_kind_have_one_name_and_each_is_explained() -> None:
    for faults in (FAULTS, COURSE_FAULTS):
        assert len(set(faults)) == len(faults)
        for fault in faults:
            assert fault.check.__doc__
            assert not fault.sentence.endswith(".")
            assert fault.remedy
