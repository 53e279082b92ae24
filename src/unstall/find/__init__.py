"""The learning rate that trains best.

In: a module and its data. Out: a rate, and the races that it won. The question: *how fast can it learn?*
"""

from unstall.find.pick import LearningRateSearch
from unstall.find.range_test import InMemoryCheckpoint
from unstall.find.report import picture, save, show, table
from unstall.find.search import find_learning_rate
from unstall.find.setting import Config, merged, overlay_for, overlay_with_rate, rate_of_fit, settings_in
from unstall.find.words import explanation, reason_for

__all__ = [
    "Config",
    "InMemoryCheckpoint",
    "LearningRateSearch",
    "explanation",
    "find_learning_rate",
    "merged",
    "overlay_for",
    "overlay_with_rate",
    "picture",
    "rate_of_fit",
    "reason_for",
    "save",
    "settings_in",
    "show",
    "table",
]
