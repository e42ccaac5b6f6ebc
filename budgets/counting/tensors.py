"""What a model holds: each tensor once, whoever owns it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from featherpress.budgets.counting.memory import Footprint


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity, with all names of each, and its persistent buffers' bytes by module path."""

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    buffer_bytes: Mapping[str, int]
    buffers: tuple[Tensor, ...] = ()

    @property
    def bytes(self) -> int:
        """What a weights file must hold."""
        return sum(map(_size, self.by_id.values())) + sum(self.buffer_bytes.values())

    @property
    def footprint(self) -> Footprint:
        """What a weights file would hold at other precisions; whole-number buffers keep their type."""
        tensors = [*self.by_id.values(), *self.buffers]
        floats = sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())
        return Footprint.of(floats, sum(_size(tensor) for tensor in tensors if not tensor.is_floating_point()))

    def rows(self, unused: set[int]) -> dict[str, dict[str, Any]]:
        """Sum the tensors up by owning module; a tensor with several owners has a row of its own."""
        rows: dict[str, dict[str, Any]] = {path: {"bytes": size} for path, size in self.buffer_bytes.items()}
        for key, tensor in self.by_id.items():
            names, size = self.names[key], tensor.numel()
            tied = len(names) > 1
            row = rows.setdefault("shared: " + ", ".join(names) if tied else names[0].rpartition(".")[0], {})
            if tied:
                row["owners"] = names
            row["params"] = row.get("params", 0) + size
            row["bytes"] = row.get("bytes", 0) + _size(tensor)
            state = "trainable" if tensor.requires_grad else "frozen"
            row[state] = row.get(state, 0) + size
            if key in unused:
                row["unused"] = row.get("unused", 0) + size
        return rows


def list_tensors(model: nn.Module) -> TensorRows:
    """List a model's parameters and persistent buffers."""
    names: dict[int, tuple[str, ...]] = {}
    by_id: dict[int, Tensor] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        names[id(tensor)] = (*names.get(id(tensor), ()), name)
        by_id[id(tensor)] = tensor
    buffers = _buffers(model)
    sizes: dict[str, int] = {}
    for path, buffer in buffers.values():
        sizes[path] = sizes.get(path, 0) + _size(buffer)
    return TensorRows(by_id=by_id, names=names, buffer_bytes=sizes, buffers=tuple(b for _, b in buffers.values()))


def _buffers(model: nn.Module) -> dict[int, tuple[str, Tensor]]:
    """List persistent buffers once, by identity, with the path of their first owner."""
    found: dict[int, tuple[str, Tensor]] = {}
    for path, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                found.setdefault(id(buffer), (path, buffer))
    return found


def _size(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
