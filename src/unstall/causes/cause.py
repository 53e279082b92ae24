"""One fault, one entry: what it is called, how one batch shows it, what is said of it and what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unstall.audit import Site

Shown = Mapping[str, Any] | None
"""The values of a fault's sentence, with the `site` to blame; None if the fault does not show."""


class Fault(str):
    """Something that is put together wrong. As text it is its name.

    Args:
        name: In a few words.
        check: Looks for it in what one step (`Observation`), or the course of the training (`Course`), showed.
        sentence: What happens, with `{}` for the values that the check returns.
        remedy: What to do, as a clause.
        example: The line as it should be; empty where it cannot be said in general.
        certain: Whether it is wrong whatever comes of it. Others are suspicions: a fork has to prove them.
        mend: What a fork changes to prove it (`unstall.forks.mended`): `output`, `inputs`, `order`, `balance`,
            `activation`, `dropout`, `schedule`, `clip`, `decay`, `held`, `frozen`, `modes`, `optimizer` or `longer`;
            empty where no change from outside mends it.
    """

    check: Callable[[Any], Shown]
    sentence: str
    remedy: str
    example: str
    certain: bool
    mend: str

    def __new__(
        cls,
        name: str,
        check: Callable[[Any], Shown],
        sentence: str,
        remedy: str,
        example: str = "",
        certain: bool = False,
        mend: str = "",
    ) -> Fault:
        fault = super().__new__(cls, name)
        fault.check, fault.sentence, fault.remedy = check, sentence, remedy
        fault.example, fault.certain, fault.mend = example, certain, mend
        return fault

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return str(self), self.check, self.sentence, self.remedy, self.example, self.certain, self.mend

    @property
    def value(self) -> str:
        """Its name, as of a `Cause`."""
        return str(self)


@dataclass(frozen=True)
class Finding:
    """A fault that shows.

    Args:
        fault: Which.
        sentence: What happens.
        remedy: What to do.
        site: The user's own line; None where none is to blame, or none is known.
    """

    fault: Fault
    sentence: str
    remedy: str
    site: Site | None = None

    @property
    def where(self) -> str:
        """The sentence with the line to blame."""
        return self.sentence if self.site is None else f"{self.sentence} ({self.site})"

    @property
    def change(self) -> str:
        """The remedy with the line as it should be."""
        return f"{self.remedy}, such as `{self.fault.example}`" if self.fault.example else self.remedy


def find(faults: Sequence[Fault], seen: Any) -> list[Finding]:
    """Return the faults that show, the certain ones first, else in their order."""
    found = []
    for fault in faults:
        values: Shown = None
        with suppress(Exception):  # what cannot be computed of such tensors (sparse, nested) does not show
            values = fault.check(seen)
        if values is not None:
            sentence, remedy = fault.sentence.format(**values), fault.remedy.format(**values)
            found.append(Finding(fault, sentence, remedy, values.get("site")))
    return sorted(found, key=lambda finding: not finding.fault.certain)
