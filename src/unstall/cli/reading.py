"""A config's text as plain data, whoever wrote it: never more, nor deeper, than a person would write."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import yaml

from unstall.errors import UsageError

LONGEST = 1_000_000
"""Characters. A run's resolved config has some five thousand."""
MOST = 20_000
"""Values, those that an alias stands for counted anew each time, as jsonargparse copies them."""
DEEPEST = 50
"""Levels. A network within a module within a module is at the tenth."""
TEXTS_DEEP = 5
"""Texts within texts: jsonargparse reads a text as YAML once more for each class within a class."""


def load(text: str, named: str) -> Any:
    """Return the plain data of a YAML text.

    Args:
        text: The YAML.
        named: What to call it: `config=mine.yaml`.

    Raises:
        UsageError: if it is not YAML, too long, too deep, or one whose aliases refer to themselves or multiply.
    """
    if len(text) > LONGEST:
        raise UsageError(f"{named}: has {len(text):,} characters, at most {LONGEST:,} are read; write less into it")
    try:
        check_extent(text, named)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{named}: not YAML, {error}") from None
    except (ValueError, TypeError) as error:  # a date of month 13; a mapping as a key
        raise UsageError(f"{named}: not YAML, {error}") from error


def check_extent(text: str, named: str) -> None:
    """Count before anything is built, by the parser's events: an alias counts as what it stands for.

    Raises:
        UsageError: see `load`.
    """
    sizes: dict[str, int | None] = {}  # of what an anchor names; None while that is still being read
    open_: list[tuple[str | None, int]] = []  # the anchor of each collection around, and its size so far
    total = 1
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        size = 0
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, 1))
            if event.anchor:
                sizes[event.anchor] = None
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, size = open_.pop()
            if anchor:
                sizes[anchor] = size
        elif isinstance(event, yaml.ScalarEvent):
            size = 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.AliasEvent):
            known = sizes.get(event.anchor or "", 1)  # one that was never named is YAML's own error
            if known is None:
                raise UsageError(f"{named}: the alias *{event.anchor} refers to itself; write the values out")
            size = known
        if open_ and size:
            open_[-1] = (open_[-1][0], open_[-1][1] + size)
        total = max([total, size, *(count for _, count in open_[-1:])])
        if len(open_) > DEEPEST:
            raise UsageError(f"{named}: is nested over {DEEPEST} levels deep; write it flatter")
        if total > MOST:
            raise UsageError(f"{named}: stands for over {MOST:,} values; write less into it, without aliases")


def check_plain(value: Any, named: str, most: int = MOST) -> None:
    """Count what is no text any more, such as a checkpoint: what is shared counts anew each time.

    Args:
        value: Mappings, sequences and whatever they hold.
        named: What to call it.
        most: Values.

    Raises:
        UsageError: see `load`.
    """
    count = 0
    open_: list[Iterator[Any]] = [iter((value,))]
    while open_:
        inner = next(open_[-1], open_)
        if inner is open_:
            open_.pop()
            continue
        count += 1
        if isinstance(inner, dict):
            open_.append(chain(inner.keys(), inner.values()))
        elif isinstance(inner, list | tuple | set | frozenset):
            open_.append(iter(inner))
        if len(open_) > DEEPEST:
            raise UsageError(f"{named}: is nested over {DEEPEST} levels deep, or in itself; take another")
        if count > most:
            raise UsageError(f"{named}: stands for over {most:,} values; take another")


def read_again(text: str, depth: int) -> Any:
    """Return what a text within a config is read as by jsonargparse, once more; itself, if that is all it is.

    Raises:
        UsageError: see `load`; and for texts within texts beyond what a person would write.
    """
    if not any(sign in text for sign in ":[{'\"\\|>-"):
        return text
    try:
        check_extent(text, "a text in the config")
        read = yaml.safe_load(text)
    except UsageError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, OverflowError):
        return text
    if depth >= TEXTS_DEEP and isinstance(read, dict | list):
        raise UsageError(f"config: holds texts within texts, over {TEXTS_DEEP} deep; write the values themselves")
    return read
