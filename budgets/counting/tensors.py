"""What a model holds: each tensor once, whoever owns it."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

from torch import Tensor, nn

from featherpress.budgets.counting.memory import size_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity with all names of each, and its persistent buffers with a module's path."""

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    buffers: tuple[tuple[str, Tensor], ...]

    def size(self, float_size: int = 0) -> int:
        """Return the bytes that a weights file must hold, its floating-point elements perhaps in another size."""
        tensors = [*self.by_id.values(), *(buffer for _, buffer in self.buffers)]
        return sum(size_of(tensor.numel(), tensor.dtype, float_size) for tensor in tensors)

    def rows(self, unused: set[int]) -> dict[str, dict[str, Any]]:
        """Sum the tensors up by owning module; a tensor with several owners has a row of its own."""
        rows: dict[str, dict[str, Any]] = {}

        def add(row: dict[str, Any], tensor: Tensor, *states: str) -> None:
            row["bytes"] = row.get("bytes", 0) + size_of(tensor.numel(), tensor.dtype)
            for state in states:
                row[state] = row.get(state, 0) + tensor.numel()

        for path, buffer in self.buffers:
            add(rows.setdefault(path, {}), buffer)
        for key, tensor in self.by_id.items():
            names = self.names[key]
            tied = {"owners": names} if len(names) > 1 else {}
            row = rows.setdefault("shared: " + ", ".join(names) if tied else names[0].rpartition(".")[0], tied)
            states = ["params", "trainable" if tensor.requires_grad else "frozen", *["unused"] * (key in unused)]
            add(row, tensor, *states)
        return rows


def list_tensors(model: nn.Module) -> TensorRows:
    """List a model's parameters and persistent buffers, each buffer at its first owner."""
    names: dict[int, tuple[str, ...]] = {}
    by_id: dict[int, Tensor] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names[id(tensor)] = (*names.get(id(tensor), ()), name)
        by_id[id(tensor)] = tensor
    buffers: dict[int, tuple[str, Tensor]] = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                buffers.setdefault(id(buffer), (path, buffer))
    return TensorRows(by_id=by_id, names=names, buffers=tuple(buffers.values()))


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
