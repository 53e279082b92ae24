"""Records the functions that one training step calls, and what flows from one into the next."""

from __future__ import annotations

import linecache
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

LIBRARIES = (
    *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
    *(str(path) for path in (Path(__file__).parents[1], Path(torch.__file__).parents[1])),
)
"""Frames in these folders (Python, packages, this one) are not where a user called something."""


@dataclass(frozen=True)
class Site:
    """A line of somebody's code.

    Args:
        file: Its path.
        line: Counted from 1.
        function: What the line is in.
        code: The line itself, stripped.
    """

    file: str
    line: int
    function: str
    code: str

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}, in {self.function}: {self.code}"


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a torch function.

    Args:
        name: Of the function: `linear`, `softmax`, `cross_entropy`, `mul`, ...; in place it has the same.
        inputs: The tensors among its arguments, in order.
        arguments: All arguments that are no tensors, by name or position.
        outputs: The tensors that it returned.
        site: Where it was called; None if no frame outside of libraries is known.
    """

    name: str
    inputs: tuple[Tensor, ...]
    arguments: Mapping[str | int, Any]
    outputs: tuple[Tensor, ...]
    site: Site | None

    @property
    def in_place(self) -> bool:
        """Whether it changed a tensor that it was given; or returned it, as dropout does in evaluation."""
        return any(output is given for output in self.outputs for given in self.inputs)

    def detached(self) -> Call:
        """Return the same without the graph, which would keep parameters and their gradients."""
        inputs, outputs = (tuple(tensor.detach() for tensor in side) for side in (self.inputs, self.outputs))
        return replace(self, inputs=inputs, outputs=outputs)


@dataclass
class Recording(TorchFunctionMode):
    """The calls made while it is entered, in order, and which of them made a tensor.

    `torch.nn.functional`'s functions are seen as wholes: what `cross_entropy` calls is not seen.
    """

    calls: list[Call] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._makers: dict[int, list[int]] = {}
        self._places: dict[int, int] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the function, and note it if it returns a tensor."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = tuple(tensors_in(result))
        if outputs:
            inputs = tuple(tensors_in([*args, *kwargs.values()]))
            given: list[tuple[str | int, Any]] = [*enumerate(args), *kwargs.items()]
            others = {key: value for key, value in given if not isinstance(value, Tensor)}
            name = _name_of(func)
            call = Call(name.rstrip("_"), inputs, others, outputs, _site())
            self._places[id(call)] = len(self.calls)
            for output in outputs:
                # A function that returns its argument, as dropout does in evaluation, has made nothing.
                if not call.in_place or name.endswith("_") or others.get("inplace"):
                    self._makers.setdefault(id(output), []).append(len(self.calls))
            self.calls.append(call)
        return result

    def maker_of(self, tensor: Tensor, before: Call | None = None) -> Call | None:
        """Return the call that made a tensor; None for parameters, batches and other things that were there before.

        Args:
            tensor: Which.
            before: The last one before this call, where others changed the tensor in place later on.
        """
        end = len(self.calls) if before is None else self._places[id(before)]
        places = [place for place in self._makers.get(id(tensor), ()) if place < end]
        return self.calls[places[-1]] if places else None


def tensors_in(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples, lists, mappings and data classes."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part, depth - 1)
    elif depth and isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part, depth - 1)
    elif depth and is_dataclass(value) and not isinstance(value, type):
        yield from tensors_in([getattr(value, each.name) for each in fields(value)], depth - 1)


def _name_of(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    if name == "__get__":  # a property of a tensor, such as `.T` or `.data`
        owner = getattr(function, "__self__", None)
        return str(getattr(owner, "__name__", name))
    return name.strip("_") if name.startswith("__") else name


def _site() -> Site | None:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(LIBRARIES) and (file[0] != "<" or file.startswith("<ipython")):  # a notebook's cell
            code = linecache.getline(file, frame.f_lineno).strip()
            return Site(file, frame.f_lineno, frame.f_code.co_name, code)
        frame = frame.f_back
    return None
