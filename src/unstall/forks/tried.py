"""What was tried, and what came of it."""

from dataclasses import dataclass, field
from typing import Any

from unstall.trials import Score
from unstall.watch import Cause, Verdict


@dataclass(frozen=True)
class Fork:
    """One change and its effect.

    Args:
        change: What was changed, in words.
        before: What the run came to without the change, after as many samples.
        after: What it came to with it.
        overlay: The settings that make the change permanent, as nested dictionaries; None if it has no setting.
        cause: What the change would mend.
        helps: Whether it makes a difference that matters.
        mends: Whether the difference is one between a stall and a healthy run.
    """

    change: str
    before: Score
    after: Score
    overlay: dict[str, Any] | None = field(default=None, repr=False)
    cause: Cause = Cause.UNSURE
    helps: bool = False
    mends: bool = False


@dataclass(frozen=True)
class Report:
    """A diagnosis whose remedies were tried.

    Args:
        verdict: The cause, its confidence and the evidence.
        forks: What was tried, in order.
        fix: The smallest change that helps, or None.
        open_question: What the forks could not tell apart; empty if nothing.
    """

    verdict: Verdict
    forks: tuple[Fork, ...]
    fix: Fork | None
    open_question: str = ""
