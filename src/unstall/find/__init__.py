"""The learning rate that trains best.

In: a module and its data. Out: a rate, and the races that it won. The question: *how fast can it learn?*
"""

from unstall.find.pick import LearningRateSearch
from unstall.find.range_test import InMemoryCheckpoint
from unstall.find.report import save, show, table
from unstall.find.search import find_learning_rate
from unstall.find.setting import Config, configured_rate, merged, overlay_for, overlay_with_rate

__all__ = [
    "Config",
    "InMemoryCheckpoint",
    "LearningRateSearch",
    "configured_rate",
    "find_learning_rate",
    "merged",
    "overlay_for",
    "overlay_with_rate",
    "save",
    "show",
    "table",
]
