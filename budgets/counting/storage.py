"""How a tensor is stored, as so many numbers of a type or packed by a library; and the tensors in a nest of objects."""

from collections import deque
from collections.abc import Iterable, Mapping
from math import prod
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

_PLAIN = frozenset({Tensor, nn.Parameter})


def elements(tensor: Tensor) -> int:
    """Count the numbers that a tensor stands for: of one that a library packed into bytes, more than it holds."""
    packed = None if is_plain(tensor) else getattr(tensor, "quant_state", None)
    return prod(packed.shape) if packed is not None else tensor.numel()


def stored(tensor: Tensor) -> list[Tensor]:
    """List the tensors that a tensor is stored as: itself, or the data, scales and offsets of a packed one."""
    if is_plain(tensor):
        return [tensor]
    if hasattr(tensor, "__tensor_flatten__"):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return [each for part in parts for each in stored(part)]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    if tensor.layout in {torch.sparse_csr, torch.sparse_bsr}:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in {torch.sparse_csc, torch.sparse_bsc}:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor, *tensors_in(getattr(tensor, "quant_state", None))]


def is_plain(tensor: Tensor) -> bool:
    """Return whether a tensor is stored as itself and stands for what it holds."""
    return type(tensor) in _PLAIN and tensor.layout is torch.strided and not tensor.__dict__


def tensors_in(value: Any) -> list[Tensor]:
    """List the tensors in a nest of containers, dataclasses and plain objects; what modules hold is no part of it."""
    found: list[Tensor] = []
    _collect(value, found, set())
    return found


def _collect(value: Any, found: list[Tensor], seen: set[int]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
        return
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        parts = value
    elif isinstance(value, (nn.Module, type, FunctionType, ModuleType)):
        return
    else:
        slots = (getattr(value, name, None) for name in getattr(type(value), "__slots__", ()))
        parts = [*getattr(value, "__dict__", {}).values(), *slots]
    if id(value) not in seen:
        seen.add(id(value))
        for part in parts:
            _collect(part, found, seen)
