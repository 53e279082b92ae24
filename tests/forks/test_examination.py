"""Faults that one step or a look at the batches shows, and what becomes of each when it is mended."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from forks.blobs import Batch, Lit, Logging, blobs
from unstall.causes import COURSE_FAULTS, FAULTS, Finding
from unstall.errors import UsageError
from unstall.forks.examination import Examination, examine, progress, read_findings, suspect
from unstall.forks.plan import fork
from unstall.forks.subject import Subject
from unstall.forks.tried import Fork, Report
from unstall.runs import write_json
from unstall.trials import Score
from unstall.watch import Cause, Signals, name_cause


class WrongSign(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.network(batch[0]).log_softmax(1).gather(1, batch[1][:, None]).mean()  # type: ignore[no-any-return]


class NeverWarm(Lit):
    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: (1 + epoch) / 100)]


class OnlyTheHead(Lit):
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.network[-1].parameters(), lr=self.rate)


def test_a_certain_fault_is_the_cause_with_the_line_and_a_fix_that_was_measured() -> None:
    report = fork(WrongSign(0.1), *blobs())
    assert report.verdict.cause == "loss of the wrong sign"
    assert "test_examination.py" in report.verdict.sentence
    assert report.fix is not None
    assert report.fix.helps
    assert report.fix.module is not None
    before, after = report.fix.before.accuracy, report.fix.after.accuracy
    assert before is not None
    assert after is not None
    assert before < 0.2 < 0.8 < after
    assert report.verdict.confidence > 0.9


class SoftmaxTwice(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch[0]).softmax(1), batch[1])


def test_a_certain_fault_is_named_before_the_rate_that_makes_up_for_it() -> None:
    report = fork(SoftmaxTwice(1e-5, "Adam"), *blobs(128))
    assert report.verdict.cause == "activation before a loss of logits"
    assert report.fix is not None
    assert report.fix in report.forks
    assert report.fix.helps
    assert "cross_entropy, learning rate 0.1" in report.fix.change
    before, after = report.fix.before.accuracy, report.fix.after.accuracy
    assert before is not None
    assert after is not None
    assert before < 0.5 < 0.9 < after
    assert "another learning rate alone is enough: the best of them comes to 0.9" in report.open_question


def test_layers_that_may_be_left_out_on_purpose_are_not_named_before_the_rate() -> None:
    class Head(OnlyTheHead):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.network[-1].parameters(), lr=self.rate)

    report = fork(Head(1e-5, widths=(20, 512, 10)), *blobs(128))
    assert report.verdict.cause == Cause.TOO_LOW
    assert "parameters that no optimizer holds" in {finding.fault for finding in report.findings}


def test_a_sound_run_with_a_certain_fault_is_left_alone() -> None:
    report = fork(SoftmaxTwice(1e-2, "Adam"), *blobs(128))
    assert report.verdict.cause == Cause.HEALTHY


def of_signs(product: bool) -> list[list[Batch]]:
    """Whether the product of two numbers is above zero, which no linear map tells; or their sum, which one does."""
    drawn = torch.Generator().manual_seed(0)
    parts = [[torch.randn(len(x), 4, generator=drawn) for x, _ in part] for part in blobs(128)]
    return [[(x, ((x[:, 0] * x[:, 1] if product else x[:, 0] + x[:, 1]) > 0).long()) for x in part] for part in parts]


def linear(rate: float) -> Lit:
    return Lit(rate, widths=(4, 32, 32, 2), activation=torch.nn.Identity)


@pytest.mark.slow
def test_layers_without_activations_are_named_where_activations_help() -> None:
    report = fork(linear(0.1), *of_signs(product=True))
    assert report.verdict.cause == "no activation between the layers"
    assert report.verdict.sentence.startswith("3 layers (network.0, network.2, network.4) follow one another")
    assert "blobs.py" in report.verdict.sentence
    assert report.fix is not None
    assert report.fix.module is not None
    before, after = report.fix.before.accuracy, report.fix.after.accuracy
    assert before is not None
    assert after is not None
    assert before < 0.6 < 0.9 < after


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "cause"), [(0.1, Cause.HEALTHY), (1e-6, Cause.TOO_LOW)])
def test_layers_without_activations_are_left_alone_where_a_linear_map_is_enough(rate: float, cause: Cause) -> None:
    report = fork(linear(rate), *of_signs(product=False))
    assert report.verdict.cause == cause
    assert "no activation between the layers" in {finding.fault for finding in report.findings}


def test_a_fault_that_nothing_from_outside_mends_is_named_without_a_fork() -> None:
    report = fork(OnlyTheHead(1e-6), *blobs())
    assert report.verdict.cause == "parameters that no optimizer holds"
    assert "network.0.weight" in report.verdict.sentence
    assert report.fix is None


def test_a_suspicion_is_put_to_the_test() -> None:
    batches, held_out = blobs()
    order = torch.cat([labels for _, labels in batches]).argsort()
    inputs, labels = torch.cat([x for x, _ in batches])[order], torch.cat([y for _, y in batches])[order]
    in_order = list(zip(inputs.split(32), labels.split(32), strict=True))
    report = fork(Lit(0.1), in_order, held_out)
    assert report.verdict.cause == "training data sorted by class"
    assert report.fix is not None
    assert "shuffled" in report.fix.change


def test_a_schedule_is_named_before_the_rate_that_makes_up_for_it() -> None:
    report = fork(NeverWarm(0.003, "Adam"), *blobs())
    assert report.verdict.cause == "a schedule that takes the step away"
    assert report.fix is not None
    assert report.fix.change.startswith("no schedule")
    assert fork(Lit(0.0003), *blobs()).verdict.cause == Cause.TOO_LOW


def examined_after(tried: tuple[Finding, Fork], monkeypatch: pytest.MonkeyPatch) -> Examination:
    """An examination in which mending has brought this."""
    monkeypatch.setattr(Examination, "try_findings", lambda *_, **__: tried)
    examined = Examination(Subject(Lit(0.1), *blobs()))
    vars(examined)["references"] = {"a constant": 0.1}
    vars(examined.subject)["signals"] = Signals(step=500)
    return examined


@pytest.mark.parametrize(("reached", "cause"), [(0.82, Cause.HEALTHY), (0.5, "too few epochs")])
def test_more_epochs_are_offered_to_a_run_that_has_come_far(
    reached: float, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer = Fork("5 times the steps", Score(1.0, reached), Score(0.2, 0.95), helps=True)
    fault = next(fault for fault in COURSE_FAULTS if fault.mend == "longer")
    examined = examined_after((Finding(fault, fault.sentence, fault.remedy), longer), monkeypatch)
    assert progress(examined, longer) == pytest.approx((reached - 0.1) / 0.85)
    report = suspect(examined, Report(name_cause(Signals(step=500)), (), None))
    assert (report.verdict.cause, report.fix) == (cause, longer)
    offers = "5 times the steps, tried, takes the accuracy from 0.82 to 0.95" in report.verdict.sentence
    assert offers == (cause == Cause.HEALTHY)


@pytest.mark.parametrize(("further", "cause"), [(1.0, Cause.LOW_CAPACITY), (0.84, "training data sorted by class")])
def test_a_suspicion_gives_way_to_a_cause_whose_fix_goes_further(
    further: float, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wider = Fork("128 units", Score(1.0, 0.5), Score(0.1, further), cause=Cause.LOW_CAPACITY, helps=True, mends=True)
    fault = next(fault for fault in COURSE_FAULTS if fault.mend == "order")
    tried = (
        Finding(fault, "It is so", "mend it"),
        Fork("samples shuffled", Score(1.0, 0.5), Score(0.4, 0.8), helps=True),
    )
    examined = examined_after(tried, monkeypatch)
    verdict = replace(name_cause(Signals(step=500)), cause=Cause.LOW_CAPACITY)
    report = suspect(examined, Report(verdict, (), wider))
    assert (report.verdict.cause, report.fix) == (cause, wider if cause == Cause.LOW_CAPACITY else tried[1])


class Penalised(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        squares = torch.stack([weight.square().sum() for weight in self.parameters()]).sum()
        return super().training_step(batch, batch_idx) + 0.2 * squares


def test_a_penalty_is_left_out() -> None:
    report = fork(Penalised(0.1), *blobs())
    assert report.verdict.cause == "terms that outweigh the error"
    assert report.fix is not None
    assert "cross_entropy" in report.fix.change


class Detached(Lit):
    def __init__(self, rate: float) -> None:
        super().__init__(rate, widths=(20, 4, 10))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        features = self.network[1](self.network[0](batch[0])).detach()
        return torch.nn.functional.cross_entropy(self.network[2](features), batch[1])


def test_what_nothing_mends_is_named_though_other_rates_help_a_little() -> None:
    report = fork(Detached(0.003), *blobs())
    assert report.verdict.cause == "parameters that no gradient reaches"
    assert report.fix is None


class Frozen(Lit):
    def __init__(self, rate: float) -> None:
        super().__init__(rate, widths=(20, 3, 64, 10))
        self.network[0].requires_grad_(False)


def test_a_frozen_layer_is_let_go() -> None:
    report = fork(Frozen(0.1), *blobs())
    assert report.verdict.cause == "frozen parameters that never learned"
    assert report.fix is not None
    assert "nothing frozen" in report.fix.change


class MeanOfNothing(Lit):
    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        loss = torch.nn.functional.cross_entropy(self.network(batch[0]), batch[1], reduction="none")
        first = batch[1] == 0
        return (loss * first).sum() / first.sum()  # some batches have no such label


def test_a_batch_without_a_finite_loss_is_found() -> None:
    report = fork(MeanOfNothing(0.1), *blobs())
    assert report.verdict.cause == "a loss without a finite gradient"
    assert "`div`" in report.verdict.sentence
    assert "test_examination.py" in report.verdict.sentence


def test_nothing_shows_in_a_sound_module() -> None:
    batches, held_out = blobs()
    examined = examine(Subject(Lit(0.1), batches, held_out))
    assert [finding for finding in examined.findings if finding.fault.certain] == []
    assert examined.task is not None
    assert examined.task.kind == "classes"


def test_numbers_that_are_not_finite_are_found_in_any_batch() -> None:
    batches, held_out = blobs()
    batches[7][0][3, 4] = torch.nan
    report = fork(Lit(0.1), batches, held_out)
    assert report.verdict.cause == "numbers that are not finite"


def test_a_suspicion_that_no_fork_can_test_is_not_called_healthy() -> None:
    again = next(fault for fault in COURSE_FAULTS if fault == "the same batch again")
    found = Finding(again, again.sentence, again.remedy)
    report = fork(Lit(0.1), *blobs(), findings=[found])
    assert (report.verdict.cause, report.verdict.runner_up) == (Cause.UNSURE, "the same batch again")


class Deviation(Logging):
    """A loss of its own, of which nobody knows what the targets ask for."""

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        inputs, labels = batch
        super().training_step(batch, batch_idx)
        scores = self.network(inputs)[:, 0]
        centre = (scores - scores.detach().mean()) / (scores.detach().std() + 1e-3)
        return torch.where(labels > 4, (5 - centre).clamp(min=0), centre.abs()).mean()


def test_where_mending_cannot_be_measured_a_suspicion_explains_what_stays_at_chance() -> None:
    batches, held_out = blobs(scale=1e4)
    report = fork(Deviation(3.0, "Adam"), batches, held_out)
    assert report.verdict.cause == "inputs far from unit scale"
    assert report.verdict.confidence == 0.9
    sound = fork(Deviation(0.01, "Adam"), *blobs())
    assert sound.verdict.cause not in {finding.fault for finding in report.findings}


def test_a_rare_class_is_weighted() -> None:
    def rare(batches: list[Batch]) -> list[Batch]:
        return [(x, (y == 0).long() * (x[:, 0] > 0)) for x, y in batches]

    training, held_out = blobs()
    report = fork(Lit(0.003), rare(training), rare(held_out))
    assert report.verdict.cause == "one class makes up nearly all"
    assert report.fix is not None
    assert "rare classes weighted" in report.fix.change
    assert (report.fix.before.accuracy or 1) < 0.8 < 0.85 < (report.fix.after.accuracy or 0)


def test_what_the_runs_own_callback_found_is_taken_up(tmp_path: Path) -> None:
    assert read_findings(tmp_path / "diagnosis.json") == []
    kept = {"fault": FAULTS[0], "sentence": "It is so", "remedy": "mend it"}
    write_json(tmp_path / "diagnosis.json", {"findings": [kept, {**kept, "fault": "of another version"}]})
    (finding,) = read_findings(tmp_path / "diagnosis.json")
    assert (finding.fault, finding.where, finding.change) == (FAULTS[0], "It is so", finding.change)
    batches, held_out = blobs()
    assert finding in examine(Subject(Lit(0.1), batches, held_out), [finding]).findings


@pytest.mark.parametrize("rate", [1e-6, 30.0])
def test_a_rate_is_still_a_rate(rate: float) -> None:
    expected = Cause.TOO_LOW if rate < 1 else Cause.TOO_HIGH
    assert fork(Lit(rate), *blobs()).verdict.cause == expected


@pytest.mark.parametrize("text", ['{"findings": [3]}', '{"findings": [{}]}', "[" * 100_000, '{"findings": 3}', "\0"])
def test_damaged_findings_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "diagnosis.json").write_text(text)
    with pytest.raises(UsageError, match=r"diagnosis\.json: not a diagnosis"):
        read_findings(tmp_path / "diagnosis.json")
