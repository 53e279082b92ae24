"""What depends on what: a map of the outcome for each pair of settings."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import TYPE_CHECKING, Any

from unstall.runs import Figure
from unstall.sweep.report import made, shown
from unstall.sweep.space import Choices, Range, Settings
from unstall.sweep.study import Shared

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

MOST = 9
"""Maps in a picture; of more pairs, those of the settings that matter most."""
MARKS = ("X", "v", "^", "s", "D", "P", "*", "o")
FEWEST = 4
"""Trials for which Optuna is asked how much each setting matters."""


def draw(shared: Shared) -> Figure | None:
    """Draw the trials of a study over each pair of its settings.

    Colour is the outcome, of several trials at one place the best; a mark is what its diagnosis said of it. With each
    setting stands its share in the outcome's variance, by Optuna (PED-ANOVA: Watanabe et al. 2023, arXiv:2304.10255).

    Returns:
        The picture; None if there is no pair of settings or no outcome to draw.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    trials = [trial for trial in made(shared) if _outcome(trial) is not None or "cause" in trial.user_attrs]
    maps: list[tuple[Settings, str, str, list[FrozenTrial], dict[str, float]]] = []
    parts: dict[frozenset[str], Settings] = {}
    for part in shared.space.parts:
        parts.setdefault(frozenset(part), part)  # the same settings share a map
    for part in parts.values():
        own = [trial for trial in trials if set(trial.params) == set(part)]
        shares = importances(shared, own)
        order = sorted(part, key=lambda name: -shares.get(name, 0.0))
        maps += [(part, first, second, own, shares) for first, second in itertools.combinations(order, 2)]
    maps = [each for each in maps if each[3]][:MOST]
    outcomes = [value for trial in trials if (value := _outcome(trial)) is not None]
    if not maps or not outcomes:
        return None
    columns = min(3, len(maps))
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(5.2 * columns, 4.3 * rows + 0.5), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    colours = Normalize(*_extent(outcomes, shared.plan.maximize))
    causes = list(dict.fromkeys(trial.user_attrs["cause"] for trial in trials if "cause" in trial.user_attrs))
    marks = {cause: MARKS[index % len(MARKS)] for index, cause in enumerate(causes)}
    palette = "viridis" if shared.plan.maximize else "viridis_r"
    for place, (part, first, second, own, shares) in zip(axes, maps, strict=False):
        names = (first, second) if list(part).index(first) < list(part).index(second) else (second, first)
        domains = shared.space.domains[names[0]], shared.space.domains[names[1]]
        _map(place, domains, names, own, colours, palette, marks)
        labels = [f"{name}{f' ({shares[name]:.0%} of the outcome)' if name in shares else ''}" for name in names]
        place.set_xlabel(labels[0])
        place.set_ylabel(labels[1])
    for place in axes[len(maps) :]:
        place.axis("off")
    from matplotlib.cm import ScalarMappable

    figure.colorbar(ScalarMappable(colours, palette), ax=axes, label=f"{shared.plan.metric}, best epoch", shrink=0.8)
    if marks:
        style: dict[str, Any] = {"color": "black", "markerfacecolor": "white", "linestyle": ""}
        handles = [Line2D([], [], marker=mark, label=cause, **style) for cause, mark in marks.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), fontsize=8)
    return figure


def importances(shared: Shared, trials: list[FrozenTrial]) -> dict[str, float]:
    """Return each setting's share in what the outcome depends on; empty where there are too few trials to tell."""
    import optuna

    ended = [trial for trial in trials if trial.state.name == "COMPLETE" and trial.value is not None]
    if len(ended) < FEWEST or len({trial.value for trial in ended}) < 2:
        return {}
    alone = optuna.create_study(direction=shared.study.direction)
    alone.add_trials(ended)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = optuna.importance.get_param_importances(alone)
    return {name: share for name, share in found.items() if math.isfinite(share)}


def _map(
    axes: Axes,
    domains: tuple[Range | Choices, Range | Choices],
    names: tuple[str, str],
    trials: list[FrozenTrial],
    colours: Any,
    palette: str,
    marks: dict[str, str],
) -> None:
    """Draw the trials at their places: a square where both settings are lists, a point elsewhere."""
    worst_first = sorted(trials, key=lambda trial: _goodness(trial, palette))
    places: dict[tuple[float, float], FrozenTrial] = {}
    for trial in worst_first:  # of several at one place, the best is seen
        x, y = (_position(domain, trial.params[name]) for domain, name in zip(domains, names, strict=True))
        places[x, y] = trial
    across, up = domains
    if isinstance(across, Choices):
        turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if _is_wide(across) else {}
        axes.set_xticks(range(len(across.values)), [shown(label) for label in across.values], fontsize=8, **turned)
        axes.set_xlim(-0.5, len(across.values) - 0.5)
    elif across.log:
        axes.set_xscale("log")
    if isinstance(up, Choices):
        axes.set_yticks(range(len(up.values)), [shown(label) for label in up.values], fontsize=8)
        axes.set_ylim(-0.5, len(up.values) - 0.5)
    elif up.log:
        axes.set_yscale("log")
    values = {place: value for place, trial in places.items() if (value := _outcome(trial)) is not None}
    if isinstance(across, Choices) and isinstance(up, Choices):
        cells = [[values.get((x, y), math.nan) for x in range(len(across.values))] for y in range(len(up.values))]
        axes.set_facecolor("0.85")
        axes.imshow(cells, cmap=palette, norm=colours, aspect="auto", origin="lower")
    elif values:
        xs, ys = zip(*values, strict=True)
        axes.scatter(xs, ys, c=list(values.values()), cmap=palette, norm=colours, s=60, edgecolors="0.4")
    for (x, y), trial in places.items():
        mark = marks.get(trial.user_attrs.get("cause", ""))
        if mark is not None:
            axes.scatter([x], [y], marker=mark, s=30, color="white", edgecolors="black", linewidths=0.8, zorder=3)


def _outcome(trial: FrozenTrial) -> float | None:
    """What a trial reached, also one that was ended early."""
    value = trial.value if trial.value is not None else trial.user_attrs.get("best")
    return None if value is None or not math.isfinite(value) else float(value)


def _goodness(trial: FrozenTrial, palette: str) -> float:
    value = _outcome(trial)
    return -math.inf if value is None else value if palette == "viridis" else -value


def _position(domain: Range | Choices, value: Any) -> float:
    return float(list(domain.values).index(value)) if isinstance(domain, Choices) else float(value)


def _is_wide(domain: Choices) -> bool:
    return sum(len(shown(label)) for label in domain.values) > 40


def _extent(outcomes: list[float], maximize: bool) -> tuple[float, float]:
    """Return the ends of the colours; of a loss, which has no upper end, without the worst quarter."""
    ordered = sorted(outcomes)
    top = ordered[-1] if maximize else ordered[math.ceil(0.75 * (len(ordered) - 1))]
    return ordered[0], top if top > ordered[0] else ordered[0] + 1e-9
