"""What a model holds: each tensor once, whoever owns it."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.budgets.counting.memory import size_of

#: All modules of a model by path, itself first, one that has several paths under each.
Tree = Sequence[tuple[str, nn.Module]]
_PLAIN = frozenset({Tensor, nn.Parameter})
#: How many numbers of a weight are looked at for zeros before all of them are.
SAMPLE = 256
#: The share of numbers that are not zero from which on a weight counts as dense.
DENSE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity with all names of each, and its persistent buffers with a module's path."""

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    buffers: tuple[tuple[str, Tensor], ...]

    def measure(self) -> Callable[[int], int]:
        """Return what tells the bytes that a weights file must hold; floating-point elements at a size, 0 their own."""
        numbers = Counter[torch.dtype]()
        for tensor in (*self.by_id.values(), *(buffer for _, buffer in self.buffers)):
            for part in stored(tensor):
                numbers[part.dtype] += part.numel()
        return lambda float_size: sum(size_of(amount, dtype, float_size) for dtype, amount in numbers.items())

    def rows(self, unused: set[int]) -> dict[str, dict[str, Any]]:
        """Sum the tensors up by owning module; a tensor with several owners has a row of its own."""
        rows: dict[str, dict[str, Any]] = {}

        def add(row: dict[str, Any], tensor: Tensor, *states: str) -> None:
            row["bytes"] = row.get("bytes", 0) + _size(tensor)
            for state in states:
                row[state] = row.get(state, 0) + elements(tensor)

        for path, buffer in self.buffers:
            add(rows.setdefault(path, {}), buffer)
        for key, tensor in self.by_id.items():
            names = self.names[key]
            tied = {"owners": names} if len(names) > 1 else {}
            row = rows.setdefault("shared: " + ", ".join(names) if tied else names[0].rpartition(".")[0], tied)
            states = ["params", "trainable" if tensor.requires_grad else "frozen", *["unused"] * (key in unused)]
            add(row, tensor, *states)
        return rows


def list_tensors(tree: Tree) -> TensorRows:
    """List a model's parameters and persistent buffers, each buffer at its first owner."""
    names: dict[int, tuple[str, ...]] = {}
    by_id: dict[int, Tensor] = {}
    buffers: dict[int, tuple[str, Tensor]] = {}
    for path, module in tree:
        for name, tensor in module._parameters.items():
            if tensor is not None:
                names[id(tensor)] = (*names.get(id(tensor), ()), f"{path}.{name}" if path else name)
                by_id[id(tensor)] = tensor
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                buffers.setdefault(id(buffer), (path, buffer))
    return TensorRows(by_id=by_id, names=names, buffers=tuple(buffers.values()))


def elements(tensor: Tensor) -> int:
    """Count the numbers that a tensor stands for: of one that a library packed into bytes, more than it holds."""
    packed = None if _is_plain(tensor) else getattr(tensor, "quant_state", None)
    return prod(packed.shape) if packed is not None else tensor.numel()


def stored(tensor: Tensor) -> list[Tensor]:
    """List the tensors that a tensor is stored as: itself, or the data, scales and offsets of a packed one."""
    if _is_plain(tensor):
        return [tensor]
    if hasattr(tensor, "__tensor_flatten__"):
        parts = (getattr(tensor, name) for name in tensor.__tensor_flatten__()[0])
        return [each for part in parts for each in stored(part)]
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]
    return [tensor, *tensors_in(getattr(tensor, "quant_state", None))]


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in _PLAIN and tensor.layout is torch.strided and not tensor.__dict__


def _size(tensor: Tensor) -> int:
    return sum(size_of(part.numel(), part.dtype) for part in stored(tensor))


def note_storage(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Say what is stored otherwise than as so many numbers of a type: packed weights, and those that are zero."""
    packed = [tensor for tensor in rows.by_id.values() if len(stored(tensor)) > 1]
    if packed:
        yield (
            f"{sum(map(elements, packed)):,} parameters are packed by a library, in {sum(map(_size, packed)):,} bytes: "
            "the count is of what they stand for, the bytes are what is stored"
        )
    modules = {id(module): module for _, module in tree}
    hidden = [part for module in modules.values() for part in _unpacked(module)]
    if hidden:
        kept = sum(part.numel() * (1 if part.is_quantized else part.itemsize) for part in hidden)
        yield (
            f"{sum(part.numel() for part in hidden):,} weights that a library packed are not among the parameters, and "
            f"take {kept:,} bytes more"
        )
    yield from _note_zeros(tree, rows)


def _unpacked(module: nn.Module) -> list[Tensor]:
    """Unpack what a quantised layer of PyTorch keeps out of its parameters."""
    held: Any = vars(module).get("_packed_params")
    unpack = held.unpack if isinstance(held, torch.ScriptObject) else tuple  # type: ignore[attr-defined]
    return [part for part in unpack() if part is not None]


def _note_zeros(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Find weights with zeros by a sample of each, and masks of pruning; a mask says what its weight will be."""
    named = (
        (f"{path}.{name}" if path else name, held) for path, module in tree for name, held in module._buffers.items()
    )
    masks = {name.removesuffix("_mask"): held for name, held in named if held is not None and name.endswith("_mask")}
    held, left = 0, 0
    for key, tensor in rows.by_id.items():
        values = masks.get(rows.names[key][0].removesuffix("_orig"), tensor)
        usual = tensor.dim() > 1 and len(stored(tensor)) == 1 and tensor.is_floating_point() and tensor.itemsize > 1
        usual = usual and not values.is_meta
        if usual and not bool(values.detach().flatten()[:: max(1, values.numel() // SAMPLE)].all()):
            kept = int(values.count_nonzero())
            # A row for padding, or a table that starts at zero, is not pruned.
            if 0 < kept < values.numel() * DENSE:
                held, left = held + values.numel(), left + kept
    if held:
        yield f"{left:,} of {held:,} weights in pruned tensors are not zero ({left / held:.1%}): all are counted"


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
