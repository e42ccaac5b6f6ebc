"""What a model holds: each tensor once, whoever owns it."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from featherpress.budgets.counting.memory import measure_of, size_of
from featherpress.budgets.counting.storage import elements, is_plain, stored
from featherpress.budgets.counting.wrappers import as_written
from featherpress.errors import UsageError

#: All modules of a model by path, itself first, one that has several paths under each.
Tree = Sequence[tuple[str, nn.Module]]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity with all names and the elements of each, and its persistent buffers by path.

    `parts` are the tensors that one of them is stored as, by its identity, where that may not be itself.
    """

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    elements: Mapping[int, int]
    buffers: tuple[tuple[str, Tensor], ...]
    parts: Mapping[int, Sequence[Tensor]]

    def measure(self) -> Callable[[int], int]:
        """Return what tells the bytes that a weights file must hold; floating-point elements at a size, 0 their own."""
        numbers: defaultdict[torch.dtype, int] = defaultdict(int)
        for tensor in chain(self.by_id.values(), (buffer for _, buffer in self.buffers)):
            for part in self.parts.get(id(tensor), (tensor,)):
                numbers[part.dtype] += part.numel()
        return measure_of(numbers)

    def size(self, tensor: Tensor) -> int:
        """Return the bytes of one of its tensors."""
        parts = self.parts.get(id(tensor))
        return tensor.nbytes if parts is None else sum(size_of(part.numel(), part.dtype) for part in parts)

    def rows(self, unused: set[int]) -> dict[str, dict[str, Any]]:
        """Sum the tensors up by owning module; a tensor with several owners has a row of its own."""
        rows: defaultdict[str, dict[str, Any]] = defaultdict(
            lambda: {"params": 0, "trainable": 0, "frozen": 0, "unused": 0, "bytes": 0}
        )
        for path, buffer in self.buffers:
            rows[path]["bytes"] += self.size(buffer)
        for key, tensor in self.by_id.items():
            names, amount = self.names[key], self.elements[key]
            row = rows["shared: " + ", ".join(names) if len(names) > 1 else names[0].rpartition(".")[0]]
            if len(names) > 1:
                row["owners"] = names
            row["params"] += amount
            row["trainable" if tensor.requires_grad else "frozen"] += amount
            row["unused"] += amount * (key in unused)
            row["bytes"] += self.size(tensor)
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
    held = [*by_id.values(), *(buffer for _, buffer in buffers.values())]
    if any(map(is_lazy, {type(tensor): tensor for tensor in held}.values())):
        raise UsageError(
            f"{type(tree[0][1]).__name__} has parameters without a shape yet (a lazy module): "
            "run it once before counting it"
        )
    parts = {id(tensor): stored(tensor) for tensor in held if not is_plain(tensor)}
    numbers = {key: elements(tensor) if key in parts else tensor.numel() for key, tensor in by_id.items()}
    return TensorRows(by_id=by_id, names=names, elements=numbers, buffers=tuple(buffers.values()), parts=parts)
