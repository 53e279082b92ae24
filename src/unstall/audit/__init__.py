"""What one batch can tell.

In: a module just before its first step, and a batch. Out: what its loss compares, who learns, what depends on what. The
question: *is it put together right?*
"""

from unstall.audit.comparison import ACTIVATIONS, LOSSES, RECURRENT, SHAPES, Comparison
from unstall.audit.evaluation import in_both_modes
from unstall.audit.observation import Observation, observe
from unstall.audit.record import Call, Recording, Site, tensors_in
from unstall.audit.reference import Reference
from unstall.audit.stand_in import StandIn, compared_in

__all__ = [
    "ACTIVATIONS",
    "LOSSES",
    "RECURRENT",
    "SHAPES",
    "Call",
    "Comparison",
    "Observation",
    "Recording",
    "Reference",
    "Site",
    "StandIn",
    "compared_in",
    "in_both_modes",
    "observe",
    "tensors_in",
]
