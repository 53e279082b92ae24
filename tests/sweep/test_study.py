"""A study in its database: what waits, what is taken, and what cannot be opened."""

import dataclasses
import importlib.util
import sys
from pathlib import Path

import pytest

from sweep.searcher import plan
from unstall.errors import UsageError
from unstall.sweep import study
from unstall.sweep.study import ERROR, PLACE, Shared, counts, open_study, sampler

needs_optuna = pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="Optuna is not installed")


def opened(folder: Path, method: str = "random") -> Shared:
    shared = open_study(plan(f"sqlite:///{folder / 'study.db'}", method))
    shared.fill()
    return shared


def states(shared: Shared) -> list[str]:
    return [trial.state.name for trial in shared.study.get_trials()]


def test_without_optuna_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match=r"pip install 'unstall\[sweep\]'"):
        open_study(plan(f"sqlite:///{tmp_path / 'study.db'}"))


@needs_optuna
def test_filling_twice_adds_nothing(tmp_path: Path) -> None:
    shared = opened(tmp_path, "grid")
    shared.fill()
    assert states(opened(tmp_path, "grid")) == ["WAITING"] * 4


@needs_optuna
def test_no_trial_is_taken_twice_and_one_that_was_broken_off_waits_again(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    first, second = opened(tmp_path), opened(tmp_path)
    one, other = first.take(), second.take()
    assert one is not None
    assert other is not None
    assert one.number != other.number
    settings = first.space.suggest(one)
    first.study.tell(one, state=TrialState.FAIL)
    second.study.tell(other, 1.0)
    first.fill()
    again = [trial for trial in first.study.get_trials() if trial.user_attrs[PLACE] == one.user_attrs[PLACE]]
    assert [trial.state.name for trial in again] == ["FAIL", "WAITING"]
    assert again[1].system_attrs["fixed_params"] == settings


@needs_optuna
def test_what_failed_by_its_settings_is_not_repeated(tmp_path: Path) -> None:
    from optuna.trial import TrialState

    shared = opened(tmp_path)
    trial = shared.take()
    assert trial is not None
    trial.set_user_attr(ERROR, "ValueError: no")
    shared.study.tell(trial, state=TrialState.FAIL)
    shared.fill()
    assert states(shared) == ["FAIL", *["WAITING"] * 3]
    assert counts(shared.study.get_trials()[0])


@needs_optuna
def test_of_two_that_were_filled_at_once_the_first_is_made(tmp_path: Path) -> None:
    shared = opened(tmp_path)
    shared.study.enqueue_trial({}, user_attrs={PLACE: 1})
    taken = []
    while (trial := shared.take()) is not None:
        taken.append(trial.user_attrs[PLACE])
    assert taken == list(range(4))


@needs_optuna
def test_another_space_is_refused_by_what_differs(tmp_path: Path) -> None:
    own = plan(f"sqlite:///{tmp_path / 'study.db'}")
    open_study(own)
    with pytest.raises(UsageError, match=r"space.b was \[1, 2\] and is \[1\]"):
        open_study(dataclasses.replace(own, space=own.space | {"b": [1]}))
    with pytest.raises(UsageError, match="seed_everything was 0 and is 1"):
        open_study(dataclasses.replace(own, base={"seed_everything": 1}))
    open_study(dataclasses.replace(own, trials=6)).fill()
    assert len(open_study(own).study.get_trials()) == 6


@needs_optuna
def test_of_a_list_of_spaces_the_one_that_differs_is_said(tmp_path: Path) -> None:
    parts = [{"a": [1, 2]}, {"b": [1, 2]}]
    own = dataclasses.replace(plan(f"sqlite:///{tmp_path / 'study.db'}", "grid"), space=parts)
    open_study(own)
    with pytest.raises(UsageError, match=r"another one, space.1.b was \[1, 2\] and is \[1\];"):
        open_study(dataclasses.replace(own, space=[parts[0], {"b": [1]}]))


@needs_optuna
@pytest.mark.parametrize(
    ("own", "found"),
    [
        ({"pruner": "none"}, "NopPruner"),
        ({"pruner": "diagnosis"}, "NopPruner"),
        ({"pruner": "median"}, "MedianPruner"),
        ({"pruner": "hyperband"}, "HyperbandPruner"),
        ({"method": "hyperband"}, "HyperbandPruner"),
    ],
)
def test_pruners_are_optunas(own: dict[str, str], found: str) -> None:
    assert type(study.pruner(dataclasses.replace(plan("sqlite://"), **own))).__name__ == found  # type: ignore[arg-type]


@needs_optuna
def test_chance_is_the_same_whoever_makes_a_trial(tmp_path: Path) -> None:
    chosen = []
    for name in "ab":
        (tmp_path / name).mkdir()
        shared = opened(tmp_path / name)
        trials = [trial for _ in range(3) if (trial := shared.take()) is not None]
        order = trials if name == "a" else reversed(trials)
        found = {}
        for trial in order:
            shared.study.sampler = sampler(shared.plan, trial.user_attrs[PLACE])
            found[trial.number] = shared.space.suggest(trial)
        chosen.append(found)
    assert chosen[0] == chosen[1]
    assert len({tuple(settings.values()) for settings in chosen[0].values()}) == 3
