"""What a run shows while it trains.

In: the losses, weights and gradients of ordinary steps. Out: signals, and the cause that explains them. The question:
*does something look wrong?* Whether it is, `forks` tries.
"""

from unstall.watch.callback import Diagnosis
from unstall.watch.causes import STALLS, Cause, describe
from unstall.watch.conclusion import LEARNED
from unstall.watch.linear import LinearBaseline
from unstall.watch.meter import Meter
from unstall.watch.rules import Evidence, Verdict, name_cause
from unstall.watch.signals import Signals
from unstall.watch.targets import TargetCounts

__all__ = [
    "LEARNED",
    "STALLS",
    "Cause",
    "Diagnosis",
    "Evidence",
    "LinearBaseline",
    "Meter",
    "Signals",
    "TargetCounts",
    "Verdict",
    "describe",
    "name_cause",
]
