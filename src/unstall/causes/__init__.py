"""Why a run does not do better: one fault, one entry.

In: what one training step, or the course of the training, showed. Out: the faults that show in it, each with a
sentence, a remedy and the line to blame. The question: *what can be wrong, and how does it show?*
"""

from unstall.causes.activations import ACTIVATION_FAULTS, LINEAR_FAULTS
from unstall.causes.cause import Fault, Finding, find
from unstall.causes.course import COURSE_FAULTS, Course
from unstall.causes.inputs import INPUT_FAULTS
from unstall.causes.learners import LEARNER_FAULTS
from unstall.causes.losses import LOSS_FAULTS
from unstall.causes.tried import TRIED_FAULTS

FAULTS = (*ACTIVATION_FAULTS, *LOSS_FAULTS, *LEARNER_FAULTS, *INPUT_FAULTS, *LINEAR_FAULTS)

__all__ = ["COURSE_FAULTS", "FAULTS", "TRIED_FAULTS", "Course", "Fault", "Finding", "find"]
