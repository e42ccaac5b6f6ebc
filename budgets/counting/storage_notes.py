"""What a reader has to know of weights that are stored otherwise than as so many numbers of a type."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.budgets.counting.packed import PACKED, note_packed
from featherpress.budgets.counting.tensors import TensorRows, Tree

#: How many numbers of each weight are looked at for zeros before all of them are.
SAMPLE = 64
#: The share of numbers that are not zero from which on a weight counts as dense.
DENSE = 0.95
_PACKED = frozenset(PACKED)


def note_storage(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Say what is stored otherwise than as so many numbers of a type: packed weights, and those that are zero."""
    packed = [rows.by_id[key] for key, parts in rows.parts.items() if key in rows.by_id and len(parts) > 1]
    if packed:
        yield (
            f"{sum(rows.elements[id(tensor)] for tensor in packed):,} parameters are packed by a library, in "
            f"{sum(map(rows.size, packed)):,} bytes: the count is of what they stand for, the bytes are what is stored"
        )
    modules = {id(module): module for _, module in tree if "_packed_params" in vars(module)}
    hidden = [part for module in modules.values() for part in _unpacked(module)]
    if hidden:
        kept = sum(part.numel() * (1 if part.is_quantized else part.itemsize) for part in hidden)
        yield (
            f"{sum(part.numel() for part in hidden):,} weights that a library packed are not among the parameters, and "
            f"take {kept:,} bytes more"
        )
    if not _PACKED.isdisjoint(rows.words):
        yield from note_packed(
            (f"{path}.{name}", held.shape)
            for path, module in tree
            for name, held in (*module._parameters.items(), *module._buffers.items())
            if held is not None and name in _PACKED
        )
    yield from _note_zeros(tree, rows)


def _unpacked(module: nn.Module) -> list[Tensor]:
    """Unpack what a quantised layer of PyTorch keeps out of its parameters."""
    held: Any = vars(module)["_packed_params"]
    unpack = held.unpack if isinstance(held, torch.ScriptObject) else tuple  # type: ignore[attr-defined]
    return [part for part in unpack() if part is not None]


def _note_zeros(tree: Tree, rows: TensorRows) -> Iterator[str]:
    """Find weights with zeros by a sample of each, and masks of pruning; a mask says what its weight will be."""
    has_masks = any(word.endswith("_mask") for word in rows.words)
    masks = {
        f"{path}.{name}".strip(".").removesuffix("_mask"): held
        for path, module in (tree if has_masks else ())
        for name, held in module._buffers.items()
        if held is not None and name.endswith("_mask")
    }
    usual = {
        key: masks.get(rows.names[key][0].removesuffix("_orig"), tensor) if masks else tensor
        for key, tensor in rows.by_id.items()
        if tensor.dim() > 1 and key not in rows.parts and tensor.is_floating_point() and tensor.itemsize > 1
    }
    samples: defaultdict[torch.device, list[Tensor]] = defaultdict(list)
    for values in usual.values():
        if not values.is_meta:
            samples[values.device].append(values)
    with torch.no_grad():  # nearly always none is zero
        if all(bool(torch.cat(list(map(_sample, found))).all()) for found in samples.values()):
            return
    held, left = 0, 0
    for values in usual.values():
        kept = values.numel() if values.is_meta else int(values.count_nonzero())
        # A row for padding, or a table that starts at zero, is no sparse weight.
        if 0 < kept < values.numel() * DENSE:
            held, left = held + values.numel(), left + kept
    if held:
        which = "pruned tensors" if masks else "tensors that are partly zero"
        yield f"{left:,} of {held:,} weights in {which} are not zero ({left / held:.1%}): all are counted"


def _sample(values: Tensor) -> Tensor:
    total = values.numel()
    step = max(1, total // SAMPLE)
    if values.is_contiguous():
        return values.as_strided((total // step,), (step,))
    return values.flatten()[::step]
