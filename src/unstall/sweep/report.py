"""What a study has found so far: how far it is, the best trials, and the best one's settings as an overlay."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from unstall.sweep.meanwhile import meanwhile
from unstall.sweep.study import ERROR, Shared, counts

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

RUN = "run"
"""Under which a trial keeps its run's folder."""


def made(shared: Shared) -> list[FrozenTrial]:
    """Return the trials that are over and count."""
    return [trial for trial in shared.study.get_trials(deepcopy=False) if trial.state.is_finished() and counts(trial)]


def ranked(shared: Shared) -> list[FrozenTrial]:
    """Return the trials that were made to their end, the best first."""
    whole = [trial for trial in made(shared) if trial.value is not None and trial.state.name == "COMPLETE"]
    return sorted(whole, key=lambda trial: trial.value or 0.0, reverse=shared.plan.maximize)


def best_settings(shared: Shared) -> tuple[FrozenTrial, dict[str, Any]] | None:
    """Return the best trial and its settings; None if none was made to its end."""
    trials = ranked(shared)
    return (trials[0], shared.space.settings(trials[0].params)) if trials else None


def overlay(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Return some settings of a config as one that goes on top of another.

    Args:
        config: The resolved config of a run.
        names: Of the settings, dotted, without `init_args`; one that the config lacks is left out.
    """
    found: dict[str, Any] = {}
    for name in sorted(names, key=lambda name: -name.count(".")):  # a class, which holds its arguments, at the end
        node, path = config, list[str]()
        for part in name.split("."):
            if isinstance(node, Mapping) and "class_path" in node and part not in node:
                node, path = node.get("init_args") or {}, [*path, "init_args"]
            if not isinstance(node, Mapping) or part not in node:
                break
            node, path = node[part], [*path, part]
        else:
            place = found
            for part in path[:-1]:
                place = place.setdefault(part, {})
            place[path[-1]] = node
    return found


def table(shared: Shared, rows: int = 5) -> Table:
    """Return the best trials, for the terminal; below, what came of the others."""
    trials, all_made = ranked(shared), made(shared)
    result = Table(title=f"The best of {len(all_made)} trials", title_style="")
    names = list(shared.space.domains)
    for name in (shared.plan.metric, *names, RUN):
        result.add_column(name, overflow="fold")
    for trial in trials[:rows]:
        cells = [shown(trial.params.get(name, "")) for name in names]
        result.add_row(f"{trial.value:.4f}", *cells, str(trial.user_attrs.get(RUN, "")))
    causes = [trial.user_attrs.get("cause", trial.user_attrs.get("given_up")) for trial in all_made]
    stalls = {cause: causes.count(cause) for cause in dict.fromkeys(causes) if cause}
    errors = [trial.user_attrs[ERROR] for trial in all_made if ERROR in trial.user_attrs]
    pruned = sum(trial.state.name == "PRUNED" for trial in all_made)
    words = [f"{pruned} ended early"] if pruned else []
    words += [f"{count} {cause}" for cause, count in stalls.items()]
    words += [f"{len(errors)} failed, the first: {errors[0]}"] if errors else []
    result.caption = "; ".join(words) or None
    return result


def shown(value: Any) -> str:
    """Return a setting's value as short as it tells."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def progress(shared: Shared, console: Console, seconds: float = 2) -> Iterator[None]:
    """Show how many trials are made, by whichever process, and the best so far, until the end of the context."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    bar = Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console)
    task = bar.add_task("no result yet", total=len(shared.plan.places()))

    def update() -> None:
        best = best_settings(shared)
        if best is not None:
            settings = ", ".join(f"{name.rpartition('.')[2]} {shown(v)}" for name, v in best[0].params.items())
            bar.update(task, description=f"{shared.plan.metric} {best[0].value:.4f}: {settings}")
        bar.update(task, completed=len(made(shared)))

    def update_if_possible() -> None:
        with contextlib.suppress(Exception):  # the database is busy for once
            update()

    with bar:
        update_if_possible()
        try:
            with meanwhile(update, seconds):
                yield
        finally:
            update_if_possible()
