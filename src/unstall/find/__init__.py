"""The learning rate that trains best.

In: a module and its data. Out: a rate, and the races that it won. The question: *how fast can it learn?*
"""

from unstall.find.pick import LearningRateSearch
from unstall.find.range_test import InMemoryCheckpoint
from unstall.find.report import find_key, save, show, table
from unstall.find.search import find_learning_rate

__all__ = ["InMemoryCheckpoint", "LearningRateSearch", "find_key", "find_learning_rate", "save", "show", "table"]
