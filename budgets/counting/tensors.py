"""What a model holds: each tensor once, whoever owns it."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from featherpress.budgets.counting.memory import measure_of, size_of
from featherpress.budgets.counting.packed import PACKED, note_packed
from featherpress.budgets.counting.wrappers import as_written
from featherpress.errors import UsageError

#: All modules of a model by path, itself first, one that has several paths under each.
Tree = Sequence[tuple[str, nn.Module]]
_PLAIN = frozenset({Tensor, nn.Parameter})
#: How many numbers of a weight are looked at for zeros before all of them are.
SAMPLE = 256
#: The share of numbers that are not zero from which on a weight counts as dense.
DENSE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity with all names and the elements of each, and its persistent buffers by path."""

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    elements: Mapping[int, int]
    buffers: tuple[tuple[str, Tensor], ...]

    def measure(self) -> Callable[[int], int]:
        """Return what tells the bytes that a weights file must hold; floating-point elements at a size, 0 their own."""
        numbers: defaultdict[torch.dtype, int] = defaultdict(int)
        for tensor in chain(self.by_id.values(), (buffer for _, buffer in self.buffers)):
            for part in stored(tensor):
                numbers[part.dtype] += part.numel()
        return measure_of(numbers)

    def rows(self, unused: set[int]) -> dict[str, dict[str, Any]]:
        """Sum the tensors up by owning module; a tensor with several owners has a row of its own."""
        rows: defaultdict[str, dict[str, Any]] = defaultdict(
            lambda: {"params": 0, "trainable": 0, "frozen": 0, "unused": 0, "bytes": 0}
        )
        for path, buffer in self.buffers:
            rows[path]["bytes"] += _size(buffer)
        for key, tensor in self.by_id.items():
            names, amount = self.names[key], self.elements[key]
            row = rows["shared: " + ", ".join(names) if len(names) > 1 else names[0].rpartition(".")[0]]
            if len(names) > 1:
                row["owners"] = names
            row["params"] += amount
            row["trainable" if tensor.requires_grad else "frozen"] += amount
            row["unused"] += amount * (key in unused)
            row["bytes"] += _size(tensor)
        return rows


def list_modules(model: nn.Module) -> Tree:
    """List all modules under all their names, the model first; a compiled one as it was written."""
    found: list[tuple[str, nn.Module]] = []
    _walk("", model, found)
    return found


def _walk(path: str, module: nn.Module, found: list[tuple[str, nn.Module]]) -> None:
    found.append((path, module))
    prefix = path and path + "."
    for name, child in module._modules.items():
        if child is not None:
            _walk(prefix + name, as_written(child), found)


def list_tensors(tree: Tree) -> TensorRows:
    """List a model's parameters and persistent buffers, each buffer at its first owner.

    Errors: UsageError for a model with lazy parameters.
    """
    names: dict[int, tuple[str, ...]] = {}
    by_id: dict[int, Tensor] = {}
    buffers: dict[int, tuple[str, Tensor]] = {}
    for path, module in tree:
        prefix = path and path + "."
        for name, tensor in module._parameters.items():
            if tensor is not None:
                names[id(tensor)] = (*names.get(id(tensor), ()), prefix + name)
                by_id[id(tensor)] = tensor
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                buffers.setdefault(id(buffer), (path, buffer))
    if any(map(is_lazy, (*by_id.values(), *(buffer for _, buffer in buffers.values())))):
        raise UsageError(
            f"{type(tree[0][1]).__name__} has parameters without a shape yet (a lazy module): "
            "run it once before counting it"
        )
    numbers = {key: elements(tensor) for key, tensor in by_id.items()}
    return TensorRows(by_id=by_id, names=names, elements=numbers, buffers=tuple(buffers.values()))


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
    if _is_plain(tensor):
        return tensor.nbytes
    return sum(size_of(part.numel(), part.dtype) for part in stored(tensor))


def note_storage(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Say what is stored otherwise than as so many numbers of a type: packed weights, and those that are zero."""
    packed = [tensor for tensor in rows.by_id.values() if not _is_plain(tensor) and len(stored(tensor)) > 1]
    if packed:
        yield (
            f"{sum(map(elements, packed)):,} parameters are packed by a library, in {sum(map(_size, packed)):,} bytes: "
            "the count is of what they stand for, the bytes are what is stored"
        )
    modules = {id(module): module for _, module in tree if "_packed_params" in vars(module)}
    hidden = [part for module in modules.values() for part in _unpacked(module)]
    if hidden:
        kept = sum(part.numel() * (1 if part.is_quantized else part.itemsize) for part in hidden)
        yield (
            f"{sum(part.numel() for part in hidden):,} weights that a library packed are not among the parameters, and "
            f"take {kept:,} bytes more"
        )
    yield from note_packed(
        (f"{path}.{name}", held.shape)
        for path, module in tree
        for name, held in (*module._parameters.items(), *module._buffers.items())
        if held is not None and name in PACKED
    )
    yield from _note_zeros(tree, rows)


def _unpacked(module: nn.Module) -> list[Tensor]:
    """Unpack what a quantised layer of PyTorch keeps out of its parameters."""
    held: Any = vars(module)["_packed_params"]
    unpack = held.unpack if isinstance(held, torch.ScriptObject) else tuple  # type: ignore[attr-defined]
    return [part for part in unpack() if part is not None]


def _note_zeros(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Find weights with zeros by a sample of each, and masks of pruning; a mask says what its weight will be."""
    masks = {
        f"{path}.{name}".strip(".").removesuffix("_mask"): held
        for path, module in tree
        for name, held in module._buffers.items()
        if held is not None and name.endswith("_mask")
    }
    usual = {
        key: masks.get(rows.names[key][0].removesuffix("_orig"), tensor) if masks else tensor
        for key, tensor in rows.by_id.items()
        if tensor.dim() > 1 and _is_plain(tensor) and tensor.is_floating_point() and tensor.itemsize > 1
    }
    samples: defaultdict[torch.device, list[Tensor]] = defaultdict(list)
    for values in usual.values():
        if not values.is_meta:
            samples[values.device].append(_sample(values))
    # Nearly always none is zero.
    if all(bool(torch.cat(found).all()) for found in samples.values()):
        return
    held, left = 0, 0
    for values in usual.values():
        kept = values.numel() if values.is_meta or bool(_sample(values).all()) else int(values.count_nonzero())
        # A row for padding, or a table that starts at zero, is no sparse weight.
        if 0 < kept < values.numel() * DENSE:
            held, left = held + values.numel(), left + kept
    if held:
        which = "pruned tensors" if masks else "tensors that are partly zero"
        yield f"{left:,} of {held:,} weights in {which} are not zero ({left / held:.1%}): all are counted"


def _sample(values: Tensor) -> Tensor:
    values = values.detach()
    step = max(1, values.numel() // SAMPLE)
    if values.is_contiguous():
        return values.as_strided((values.numel() // step,), (step,))
    return values.flatten()[::step]


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
