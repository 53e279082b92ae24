"""Copies of a module that can learn, whatever it is made of."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from functools import partial
from types import ModuleType
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.compile import to_uncompiled
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer

from unstall.errors import UsageError

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module) -> Module:
    """Return a copy with weights of its own, which can be trained beside the module.

    `copy.deepcopy` alone refuses a tensor with a graph, which `torch.nn.utils.weight_norm` and some modules keep, and a
    lazy buffer; and it leaves weights of a scripted part behind that no optimizer takes.

    Raises:
        UsageError: if a part, such as a lock or an open file, has no copy.
    """
    memo = {**factories(module), **{id(tensor): tensor.detach().clone() for tensor in _with_graph(module)}}
    for buffer in module.buffers():
        if isinstance(buffer, UninitializedBuffer):
            memo[id(buffer)] = cast(Any, UninitializedBuffer)(device=buffer.device, dtype=buffer.dtype)
    try:
        with torch.no_grad():
            twin = copy.deepcopy(module, memo)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"model={type(module).__name__}: it cannot be copied ({reason}); make what has no copy in setup or where "
            "it is used"
        ) from error
    run_its_own_code(twin)
    for original, weight in zip(module.parameters(), twin.parameters(), strict=True):
        if weight.requires_grad != original.requires_grad:
            weight.requires_grad_(original.requires_grad)
    return twin


def run_its_own_code(twin: nn.Module) -> None:
    """Have a copy run uncompiled: its compiled steps and calls are those of the module that it was copied from."""
    for part in twin.modules():
        if isinstance(part, pl.LightningModule) and part._compiler_ctx is not None:
            to_uncompiled(part)
        if vars(part).get("_compiled_call_impl") is not None:
            vars(part)["_compiled_call_impl"] = None


def put_back(module: pl.LightningModule, weights: Mapping[str, Any]) -> None:
    """Load what `state_dict` returned; a module may keep out of it what it does not train."""
    whole = type(module).state_dict is nn.Module.state_dict
    module.load_state_dict(weights, strict=module.strict_loading and whole)


def factories(module: nn.Module) -> dict[int, Any]:
    """Return what copies share with the module, by id: functions with arguments, such as one that makes an optimizer.

    jsonargparse's hold the command line that made them, with its trainer and its data, which a copy would copy.
    """
    shared = (value for value in _attributes(module) if isinstance(value, partial) and not _holds_state(value))
    return {id(factory): factory for factory in shared}


def _holds_state(function: partial[Any]) -> bool:
    if not isinstance(getattr(function.func, "__self__", None), ModuleType | None):  # a method of something
        return True
    return any(isinstance(value, Tensor | nn.Module) for value in (*function.args, *function.keywords.values()))


def _with_graph(module: nn.Module) -> Iterator[Tensor]:
    """Yield the tensors among the attributes of all parts that were computed from others."""
    return (value for value in _attributes(module) if isinstance(value, Tensor) and value.grad_fn is not None)


def _attributes(module: nn.Module) -> Iterator[Any]:
    """Yield the attributes of all parts, and what is in those that are collections."""
    waiting: list[Any] = [vars(part) for part in module.modules()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, list | tuple | set):
            waiting += value
