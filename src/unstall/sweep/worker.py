"""A process's share of a study: take a trial, train, tell; until none is left."""

import time
from collections.abc import Callable
from typing import Any

from unstall.sweep.study import ERROR, PLACE, Shared
from unstall.sweep.trial import UnmeasuredError, Watch

Train = Callable[[dict[str, Any], Watch], None]
"""Trains with some settings and a callback."""


def work(shared: Shared, train: Train, wanted: Callable[[], bool] = lambda: True) -> None:
    """Make trials until every one of the study is made, by whichever process.

    What an error of the settings ends is noted, and not tried again; what is broken off is left for whoever goes on.

    Args:
        shared: The study.
        train: Makes one training run.
        wanted: Whether to go on; asked before each trial.

    Raises:
        UnmeasuredError: if no trial can be judged.
        OSError: if no run can be kept, as on a full disk.
        optuna.exceptions.StorageInternalError: if the database is gone.
    """
    from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
    from optuna.trial import TrialState

    places = shared.plan.places()
    while wanted():
        trial = shared.take()
        if trial is None:
            shared.fill()
            if not shared.is_running():
                return
            time.sleep(1)  # others are at the last ones, and may be ended
            continue
        plan = shared.plan
        watch = Watch(trial, plan.metric, plan.maximize, by_diagnosis=plan.pruner == "diagnosis")
        state, value = TrialState.FAIL, None
        try:
            with shared.alive(trial):
                train(shared.space.suggest(trial, list(places[trial.user_attrs[PLACE]])), watch)
            watch.note()
            pruned = watch.given_up is not None
            state, value = (TrialState.PRUNED, None) if pruned else (TrialState.COMPLETE, watch.best)
        except UpdateFinishedTrialError:
            continue  # it was silent for so long that another process repeats it
        except (OSError, StorageInternalError, UnmeasuredError):
            raise
        except Exception as error:  # what these settings make a user's own code raise
            trial.set_user_attr(ERROR, f"{type(error).__name__}: {' '.join(str(error).split())}"[:500])
        finally:
            shared.study.tell(trial, value, state, skip_if_finished=True)
