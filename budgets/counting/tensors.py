"""What a model holds: each tensor once, whoever owns it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
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
#: The names of a tensor, its elements that count as parameters, whether they are trained and unused, and its bytes.
Owned = tuple[tuple[str, ...], int, bool, bool, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRows:
    """A model's parameters by identity with all names and the elements of each, and its persistent buffers by path.

    `parts` are the tensors that one of them is stored as, by its identity, where that may not be itself; `words` are
    the last parts of all names, of buffers that are not saved too.
    """

    by_id: Mapping[int, Tensor]
    names: Mapping[int, tuple[str, ...]]
    elements: Mapping[int, int]
    buffers: tuple[tuple[str, Tensor], ...]
    parts: Mapping[int, Sequence[Tensor]]
    words: Set[str]

    def measure(self) -> Callable[[int], int]:
        """Return what tells the bytes that a weights file must hold; floating-point elements at a size, 0 their own."""
        numbers: defaultdict[torch.dtype, int] = defaultdict(int)
        for tensor in chain(self.by_id.values(), (buffer for _, buffer in self.buffers)):
            if id(tensor) not in self.parts:
                numbers[tensor.dtype] += tensor.numel()
        for part in chain.from_iterable(self.parts.values()):
            numbers[part.dtype] += part.numel()
        return measure_of(numbers)

    def size(self, tensor: Tensor) -> int:
        """Return the bytes of one of its tensors."""
        parts = self.parts.get(id(tensor))
        return tensor.nbytes if parts is None else sum(size_of(part.numel(), part.dtype) for part in parts)

    def owned(self, unused: set[int]) -> list[Owned]:
        """List what each parameter, and each persistent buffer, adds to the row of its owners."""
        names, elements, parts = self.names, self.elements, self.parts
        owned = [
            (names[key], elements[key], each.requires_grad, key in unused, self.size(each) if parts else each.nbytes)
            for key, each in self.by_id.items()
        ]
        return owned + [((path + ".",), 0, False, False, self.size(buffer)) for path, buffer in self.buffers]


def rows_of(owned: Iterable[Owned]) -> dict[str, dict[str, Any]]:
    """Sum tensors up by owning module; a tensor with several owners has a row of its own."""
    rows: defaultdict[str, dict[str, Any]] = defaultdict(
        lambda: {"params": 0, "trainable": 0, "frozen": 0, "unused": 0, "bytes": 0}
    )
    for names, amount, trainable, unused, size in owned:
        row = rows["shared: " + ", ".join(names) if len(names) > 1 else names[0].rpartition(".")[0]]
        if len(names) > 1:
            row["owners"] = names
        row["params"] += amount
        row["trainable" if trainable else "frozen"] += amount
        row["unused"] += amount * unused
        row["bytes"] += size
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
    words: set[str] = set()
    for path, module in tree:
        words.update(module._parameters, module._buffers)
        for name, tensor in module._parameters.items():
            if tensor is not None:
                key, full = id(tensor), f"{path}.{name}" if path else name
                names[key] = (*names[key], full) if key in names else (full,)
                by_id[key] = tensor
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
    return TensorRows(
        by_id=by_id, names=names, elements=numbers, buffers=tuple(buffers.values()), parts=parts, words=words
    )
