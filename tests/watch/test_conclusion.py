"""What is said in the end: faults of one batch, symptoms, and health that is earned."""

from dataclasses import replace

import pytest

from unstall.audit import Site
from unstall.causes import COURSE_FAULTS, FAULTS, Finding
from unstall.watch.causes import Cause
from unstall.watch.conclusion import conclude, on_few_batches
from unstall.watch.rules import SPEAK, Verdict
from unstall.watch.signals import Signals

CERTAIN = Finding(next(fault for fault in FAULTS if fault.certain), "It is wrong", "mend it")
SUSPICIOUS = Finding(next(fault for fault in FAULTS if not fault.certain), "It may be wrong", "look")
STALLED = Verdict(Cause.TOO_LOW, 0.94, None, (), "The rate is too low", "raise it", 500)
HEALTHY = replace(STALLED, cause=Cause.HEALTHY, sentence="Training is healthy", remedy="")


def at(loss: float, baseline: float | None = 1.0, step: int = 500) -> Signals:
    return Signals(step=step, loss=loss, initial_loss=1.0, baseline=baseline, loss_ratio=loss / (baseline or 1.0))


def test_a_certain_fault_is_the_cause_of_a_stall_and_of_what_looks_healthy() -> None:
    for verdict in (STALLED, HEALTHY):
        said = conclude(verdict, at(0.99), [CERTAIN, SUSPICIOUS])
        assert (said.cause, said.sentence, said.confidence) == (CERTAIN.fault, "It is wrong", 0.97)
        assert said.stalled
    assert conclude(STALLED, at(0.99), [CERTAIN]).runner_up == Cause.TOO_LOW


def test_a_suspicion_is_said_beside_a_stall_only() -> None:
    assert conclude(STALLED, at(0.99), [SUSPICIOUS]).cause == SUSPICIOUS.fault
    assert conclude(HEALTHY, at(0.99), [SUSPICIOUS]).cause == SUSPICIOUS.fault  # at chance, whatever the signals say
    assert conclude(HEALTHY, at(0.6), [SUSPICIOUS]).cause == Cause.HEALTHY


def test_a_loss_that_comes_down_after_it_overshot_is_not_said_to_need_more_epochs() -> None:
    falling = Finding(next(fault for fault in COURSE_FAULTS if fault.mend == "longer"), "It was falling", "go on")
    assert conclude(replace(STALLED, cause=Cause.TOO_HIGH), at(1.05), [falling]).cause == Cause.TOO_HIGH
    unsure = conclude(replace(STALLED, cause=Cause.TOO_HIGH, confidence=SPEAK - 0.01), at(0.9), [falling])
    assert (unsure.cause, unsure.runner_up) == (Cause.UNSURE, Cause.TOO_HIGH)
    assert conclude(STALLED, at(0.99), [falling]).cause == falling.fault
    assert conclude(replace(STALLED, cause=Cause.TOO_HIGH), at(1.05), [SUSPICIOUS]).cause == SUSPICIOUS.fault


def test_layers_without_activations_are_not_said_to_be_what_keeps_a_rate_from_working() -> None:
    linear = Finding(next(fault for fault in FAULTS if fault.mend == "activation"), "It is linear", "put one")
    assert conclude(STALLED, at(0.99), [linear]).cause == Cause.TOO_LOW
    assert conclude(replace(STALLED, cause=Cause.NOTHING_TO_LEARN), at(0.99), [linear]).cause == linear.fault
    assert conclude(HEALTHY, at(0.99), [linear]).cause == linear.fault
    assert conclude(HEALTHY, at(0.6), [linear]).cause == Cause.HEALTHY


def test_what_evaluation_does_not_show_is_said_of_a_run_that_learned() -> None:
    apart = Finding(next(fault for fault in COURSE_FAULTS if fault.mend == "modes"), "They differ", "use another")
    for verdict in (HEALTHY, replace(HEALTHY, cause=Cause.OVERFITTING)):
        assert conclude(verdict, at(0.1), [apart]).cause == apart.fault
    assert conclude(STALLED, at(0.99), [CERTAIN, apart]).cause == CERTAIN.fault


def test_a_run_that_learned_is_not_accused() -> None:
    assert conclude(HEALTHY, at(0.1), [SUSPICIOUS]).cause == Cause.HEALTHY
    said = conclude(HEALTHY, at(0.1), [CERTAIN])  # nor called healthy
    assert (said.cause, said.runner_up, said.sentence) == (
        Cause.UNSURE,
        CERTAIN.fault,
        "It learns, and yet: it is wrong",
    )


@pytest.mark.parametrize(("loss", "baseline"), [(0.99, 1.0), (-3.0, 1.0), (0.1, None), (float("nan"), 1.0)])
def test_healthy_is_earned(loss: float, baseline: float | None) -> None:
    said = conclude(HEALTHY, at(loss, baseline), [])
    assert said.cause == Cause.UNSURE
    assert said.confidence == 0.5
    assert conclude(HEALTHY, at(0.9), []).cause == Cause.HEALTHY
    assert conclude(HEALTHY, at(0.9, step=30), []).cause == Cause.UNSURE


def test_below_a_certain_confidence_nothing_is_said_of_a_stall() -> None:
    quiet = conclude(replace(STALLED, confidence=SPEAK - 0.01), at(0.99), [])
    assert (quiet.cause, quiet.runner_up) == (Cause.UNSURE, Cause.TOO_LOW)
    assert "perhaps: the rate is too low" in quiet.sentence
    assert conclude(STALLED, at(0.99), []) == STALLED


def test_the_first_certain_fault_is_named_with_its_line_and_change() -> None:
    site = Site("/home/me/my_model.py", 12, "forward", "return x.softmax(0)")
    fault = next(fault for fault in FAULTS if fault.certain and fault.example)
    said = conclude(HEALTHY, at(0.99), [Finding(fault, "It is wrong", "mend it", site), CERTAIN, SUSPICIOUS])
    assert said.sentence == "It is wrong (my_model.py:12, in forward: return x.softmax(0))"
    assert said.remedy == f"mend it, such as `{fault.example}`"
    assert (said.step, said.candidates) == (500, ())


def test_a_symptom_of_a_run_that_learned_is_not_replaced_by_a_fault() -> None:
    overfitting = replace(HEALTHY, cause=Cause.OVERFITTING, sentence="It overfits")
    for findings in ([CERTAIN], [SUSPICIOUS], []):
        assert conclude(overfitting, at(0.1), findings) == overfitting


def test_without_a_reference_a_suspicion_needs_a_stall() -> None:
    assert conclude(STALLED, at(0.9, None), [SUSPICIOUS]).cause == SUSPICIOUS.fault
    said = conclude(HEALTHY, at(0.9, None), [SUSPICIOUS])
    assert (said.cause, said.runner_up) == (Cause.UNSURE, None)
    assert "nothing is known that the loss could be compared with" in said.sentence


@pytest.mark.parametrize(
    ("batches", "few"), [(1, "one batch"), (1.0, "one batch"), (3, "3 batches"), (0.25, "25% of the")]
)
def test_of_a_few_batches_again_and_again_there_is_no_verdict(batches: float, few: str) -> None:
    for verdict in (STALLED, HEALTHY):
        said = on_few_batches(verdict, at(0.01), batches)
        assert (said.cause, said.stalled, said.remedy) == (Cause.UNSURE, False, "")
        assert few in said.sentence
        assert "its loss went from 1 to 0.01" in said.sentence
    fault = conclude(STALLED, at(0.99), [CERTAIN])
    assert on_few_batches(fault, at(0.99), batches) is fault
