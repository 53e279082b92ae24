"""A study: what is to be tried, what is known of it, in a database that any number of processes share.

Its trials wait in the database from the beginning, one for each *place*; a process takes the next. So no trial is made
twice, whoever asks, and what was left undone by a process that is gone can be told from what was done.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unstall.errors import UsageError
from unstall.sweep.database import BEAT, reached, storage_at, why_gone
from unstall.sweep.meanwhile import meanwhile
from unstall.sweep.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial, Trial

METHODS = ("tpe", "random", "grid", "hyperband")
PRUNERS = ("diagnosis", "median", "hyperband", "none")
PLACE, ERROR, PLAN = "place", "error", "plan"


@dataclass(frozen=True)
class Plan:
    """What a study is.

    Args:
        name: Of the study, in its database.
        storage: The database's URL.
        space: As YAML has it.
        base: All other settings: what the trials have in common.
        method: One of `METHODS`.
        trials: How many; None for a grid, which is as large as it is.
        metric: What is optimized.
        maximize: Whether more of it is better.
        pruner: One of `PRUNERS`.
        epochs: Of a trial, at most; None if that is not known.
        seed: Of what is chosen by chance.
    """

    name: str
    storage: str
    space: Any
    base: dict[str, Any]
    method: str
    trials: int | None
    metric: str
    maximize: bool
    pruner: str
    epochs: int | None
    seed: int

    def places(self) -> list[dict[str, Any]]:
        """Return, for each trial, what is known of its settings beforehand."""
        if self.method == "grid":
            return Space(self.space, grid=True).grid()
        return [{} for _ in range(self.trials or 0)]


class Shared:
    """A study in its database, as a context that ends with leaving it. Made by `open_study`.

    Raises:
        UsageError: at the end of the context, if the database is locked, full or gone.
    """

    def __init__(self, plan: Plan, study: Study, storage: RDBStorage) -> None:
        self.plan, self.study, self.storage = plan, study, storage
        self.space = Space(plan.space, grid=plan.method == "grid")

    def __enter__(self) -> Shared:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Leave the database: a server counts its connections."""
        self.storage.remove_session()
        self.storage.engine.dispose()
        said = None if error is None else why_gone(self.plan.storage, error)
        if said is not None:
            raise UsageError(said) from error

    def fill(self) -> None:
        """Let a trial wait for every place that has none, or whose process is gone."""
        from optuna.storages import fail_stale_trials

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna calls heartbeats experimental
            fail_stale_trials(self.study)
        trials = self.study.get_trials(deepcopy=False)
        held = {trial.user_attrs[PLACE] for trial in trials if counts(trial)}
        begun = {trial.user_attrs[PLACE]: trial.params for trial in trials if trial.params}
        for place, params in enumerate(self.plan.places()):
            if place not in held:
                self.study.enqueue_trial(begun.get(place, params), user_attrs={PLACE: place})

    def take(self) -> Trial | None:
        """Take a trial that waits, as nobody else can; None if there is none."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import Trial, TrialState

        for waiting in self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            identity = self._identity(waiting.number)
            with contextlib.suppress(UpdateFinishedTrialError):
                if not self.storage.set_trial_state_values(identity, state=TrialState.RUNNING):
                    continue
                self.storage.record_heartbeat(identity)
                self.study.sampler = sampler(self.plan, waiting.user_attrs[PLACE])
                trial = Trial(self.study, identity)
                if not self._is_double(waiting):
                    return trial
                self.study.tell(trial, state=TrialState.FAIL)
        return None

    def is_running(self) -> bool:
        """Whether any trial is being made, or waits."""
        from optuna.trial import TrialState

        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING)))

    @contextlib.contextmanager
    def alive(self, trial: Trial) -> Iterator[None]:
        """Give signs of life while a trial is made."""
        identity = self._identity(trial.number)
        with meanwhile(lambda: self.storage.record_heartbeat(identity), BEAT):
            yield

    def _identity(self, number: int) -> int:
        study = self.storage.get_study_id_from_name(self.plan.name)
        return int(self.storage.get_trial_id_from_study_id_trial_number(study, number))

    def _is_double(self, trial: FrozenTrial) -> bool:
        """Whether an earlier one has its place: two processes may have filled the study at the same moment."""
        others = self.study.get_trials(deepcopy=False)
        place = trial.user_attrs[PLACE]
        return any(
            counts(other) and other.number < trial.number and other.user_attrs[PLACE] == place for other in others
        )


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial keeps its place: all but those that were broken off, which are repeated."""
    return trial.state.name != "FAIL" or ERROR in trial.user_attrs


def open_study(plan: Plan) -> Shared:
    """Open a study, or begin it.

    Raises:
        UsageError: if Optuna is not installed, the database cannot be reached or read, or holds another study of this
            name: the settings that differ are named.
    """
    try:
        import optuna
    except ImportError:
        raise UsageError("sweep: needs Optuna; install it: pip install 'unstall[sweep]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    storage = reached(plan.storage, lambda: storage_at(plan.storage))
    directions = optuna.study.StudyDirection
    direction = directions.MAXIMIZE if plan.maximize else directions.MINIMIZE
    study = reached(
        plan.storage,
        lambda: optuna.create_study(
            storage=storage, study_name=plan.name, direction=direction, load_if_exists=True, pruner=pruner(plan)
        ),
    )
    own = {name: getattr(plan, name) for name in ("space", "method", "metric", "maximize", "pruner")}
    present = plan.base | own
    known = study.user_attrs.get(PLAN)
    if known is None:
        study.set_user_attr(PLAN, present)
    elif known != present:
        raise UsageError(
            f"experiment={plan.name}: its study in {plan.storage} is another one, {_difference(known, present)}; "
            "give another --experiment, or the same settings"
        )
    return Shared(plan, study, storage)


def sampler(plan: Plan, place: int) -> BaseSampler:
    """Return what chooses the settings of one trial: the same whichever process makes it."""
    import optuna

    seed = plan.seed * 100_003 + place
    if plan.method in ("grid", "random"):
        return optuna.samplers.RandomSampler(seed=seed % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls the option experimental
        return optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)


def pruner(plan: Plan) -> BasePruner:
    """Return what ends a trial early by its validations, beside its diagnosis."""
    import optuna

    if "hyperband" in (plan.method, plan.pruner):
        return optuna.pruners.HyperbandPruner(max_resource=plan.epochs or "auto")
    return optuna.pruners.MedianPruner() if plan.pruner == "median" else optuna.pruners.NopPruner()


def _difference(known: Any, present: Any, name: str = "") -> str:
    """Say where two nested settings differ, the first three of them; in a list of spaces, where each does."""
    if all(isinstance(side, list) and all(isinstance(part, dict) for part in side) for side in (known, present)):
        known, present = dict(enumerate(known)), dict(enumerate(present))
    if isinstance(known, dict) and isinstance(present, dict):
        keys = [key for key in {**known, **present} if known.get(key) != present.get(key)]
        found = [_difference(known.get(key), present.get(key), f"{name}.{key}" if name else str(key)) for key in keys]
        return ", ".join(found[:3])
    return f"{name} was {known} and is {present}"
