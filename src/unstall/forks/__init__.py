"""Change one thing, train on, compare.

In: a module, its data and, where there is one, the run that stalled. Out: the cause, and the smallest change that was
seen to help. The question: *what is it, and what mends it?*
"""

from unstall.forks.diagnosis import diagnose_module, diagnose_run
from unstall.forks.plan import fork
from unstall.forks.report import FIX, command, content_of, read_signals, summary, write_report
from unstall.forks.subject import screening_steps
from unstall.forks.tried import Fork, Report

__all__ = [
    "FIX",
    "Fork",
    "Report",
    "command",
    "content_of",
    "diagnose_module",
    "diagnose_run",
    "fork",
    "read_signals",
    "screening_steps",
    "summary",
    "write_report",
]
