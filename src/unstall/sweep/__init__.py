"""A search over any settings, by Optuna.

In: settings with ranges or lists, and how to train with some of them. Out: a study that outlives its processes, the
best settings, a map of what depends on what. The question: *which settings together?*
"""

from unstall.sweep.picture import draw
from unstall.sweep.report import best_settings, overlay, progress, table
from unstall.sweep.space import Space, setting_name, words
from unstall.sweep.study import METHODS, PRUNERS, Plan, Shared, open_study
from unstall.sweep.trial import Watch
from unstall.sweep.worker import work

__all__ = [
    "METHODS",
    "PRUNERS",
    "Plan",
    "Shared",
    "Space",
    "Watch",
    "best_settings",
    "draw",
    "open_study",
    "overlay",
    "progress",
    "setting_name",
    "table",
    "words",
    "work",
]
