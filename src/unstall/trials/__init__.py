"""The same start, the same batches, the same random numbers: trials that differ in one thing.

In: a module, its data, the trainer that would fit it. Out: what became of each variant, and which did best. The
question: *what would have happened if?*
"""

from unstall.data import find_targets, samples_in
from unstall.trials.batches import (
    blank,
    can_be_one,
    concatenated,
    first_samples,
    inputs_of,
    scale_of_inputs,
    scaled,
    select,
    take_samples,
    with_inputs,
)
from unstall.trials.copies import copied, factories, put_back, run_its_own_code
from unstall.trials.judge import HELPS, MATTERS, Judge, Score
from unstall.trials.lane import in_fit, training_step
from unstall.trials.learning_rate import LearningRate, learning_rate_of
from unstall.trials.loaders import Data
from unstall.trials.optimization import check_optimization
from unstall.trials.rehearsal import Rehearsal, ScratchLogger, quiet, rehearse, throwaway_trainer
from unstall.trials.runner import race, unchanged_random_state
from unstall.trials.variants import Outcome, State, StepOptions, Variant

__all__ = [
    "HELPS",
    "MATTERS",
    "Data",
    "Judge",
    "LearningRate",
    "Outcome",
    "Rehearsal",
    "Score",
    "ScratchLogger",
    "State",
    "StepOptions",
    "Variant",
    "blank",
    "can_be_one",
    "check_optimization",
    "concatenated",
    "copied",
    "factories",
    "find_targets",
    "first_samples",
    "in_fit",
    "inputs_of",
    "learning_rate_of",
    "put_back",
    "quiet",
    "race",
    "rehearse",
    "run_its_own_code",
    "samples_in",
    "scale_of_inputs",
    "scaled",
    "select",
    "take_samples",
    "throwaway_trainer",
    "training_step",
    "unchanged_random_state",
    "with_inputs",
]
