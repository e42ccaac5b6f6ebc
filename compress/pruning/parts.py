"""Rules of operators that take axes apart, look positions up in them, and put them together."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.calls import bind
from featherpress.compress.pruning.labels import Axes, Ids
from featherpress.compress.pruning.tracing import Rule, Tracer


def select(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Take one position of an axis, which locks it."""
    axis, place = args[1] % args[0].dim(), args[2]
    axes = tracer.of(args[0])
    tracer.labels.lock(axes[axis], "the code picks single positions of it")
    tracer.give(out, [ids for each, ids in enumerate(axes) if each != axis])
    tracer.origins.move(
        args[0], out, lambda array: array.take([place if array.shape[axis] > 1 else 0], axis).squeeze(axis)
    )


def unbind(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Sequence[Tensor]) -> None:
    """Take every position of an axis."""
    axis = bind(func, args, kwargs)["dim"]
    for place, each in enumerate(out):
        select(tracer, func, [args[0], axis, place], {}, each)


def slice_(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Take a run of positions."""
    named = bind(func, args, kwargs)
    which = slice(named["start"], named["end"], named["step"])
    _take(tracer, args[0], out, named["dim"] % args[0].dim(), which)


def _take(tracer: Tracer, source: Tensor, out: Tensor, axis: int, which: slice) -> None:
    axes = list(tracer.of(source))
    ids = axes[axis]
    axes[axis] = None if ids is None else ids[which]
    tracer.give(out, axes)
    tracer.origins.move(
        source, out, lambda array: array if array.shape[axis] == 1 else array[(slice(None),) * axis + (which,)]
    )


def split(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Sequence[Tensor]) -> None:
    """Take an axis apart; parts of one size are tied, position by position."""
    axis = bind(func, args, kwargs)["dim"] % args[0].dim()
    ids = tracer.of(args[0])[axis]
    sizes = [each.shape[axis] for each in out]
    if ids is not None and len(set(sizes)) == 1:
        tracer.labels.tie_rows(ids.reshape(-1, sizes[0]).T)
    start = 0
    for each, size in zip(out, sizes, strict=True):
        _take(tracer, args[0], each, axis, slice(start, start + size))
        start += size


def cat(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Put axes one after another; the others are the same."""
    tensors = [each for each in args[0] if not (each.dim() == 1 and each.shape[0] == 0)]
    axis = bind(func, args, kwargs)["dim"] % out.dim()
    axes: list[Ids | None] = list(same_axes(tracer, tensors, out, skip=axis))
    parts = [tracer.of(each)[axis] for each in tensors]
    if any(ids is not None for ids in parts):
        joined = []
        for place, (each, ids) in enumerate(zip(tensors, parts, strict=True)):
            joined.append(still(tracer, each.shape[axis], place) if ids is None else ids)
        axes[axis] = np.concatenate(joined)
    tracer.give(out, axes)


def still(tracer: Tracer, many: int, place: int = 0) -> Ids:
    """Make labels of positions that stay."""
    ids = tracer.labels.fresh(many, (tracer.key, place))
    if not tracer.labels.checks:
        tracer.labels.lock(ids, "filled in by the code, not by a layer")
    return ids


def stack(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Put tensors side by side along a new axis."""
    axis = bind(func, args, kwargs)["dim"] % out.dim()
    axes = same_axes(tracer, args[0], args[0][0])
    tracer.give(out, [*axes[:axis], None, *axes[axis:]])


def same_axes(tracer: Tracer, tensors: Sequence[Tensor], out: Tensor, skip: int | None = None) -> Axes:
    """Unify the axes of tensors that are paired position by position, as broadcasting does."""
    axes: list[Ids | None] = [None] * out.dim()
    for axis, size in enumerate(out.shape):
        if axis == skip or size == 1:
            continue
        found: list[Ids | None] = []
        for tensor in tensors:
            own = axis - out.dim() + tensor.dim()
            if own >= 0 and tensor.shape[own] == size:
                found.append(tracer.of(tensor)[own])
        first = next((ids for ids in found if ids is not None), None)
        if first is None:
            continue
        for ids in found:
            if ids is not first:
                tracer.labels.same(first, ids)
        axes[axis] = None if any(ids is None for ids in found) else first
    return tuple(axes)


def repeat(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Tile axes."""
    source, times = args[0], args[1]
    more = len(times) - source.dim()
    own = [None] * more + list(tracer.of(source))
    tracer.give(out, [None if ids is None else np.tile(ids, many) for ids, many in zip(own, times, strict=True)])


def flip(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Turn axes around."""
    turned = {axis % out.dim() for axis in args[1]}
    tracer.give(
        out, [ids if ids is None or axis not in turned else ids[::-1] for axis, ids in enumerate(tracer.of(args[0]))]
    )


def roll(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Shift axes, which locks those that are shifted."""
    moved = {axis % out.dim() for axis in bind(func, args, kwargs)["dims"] or range(out.dim())}
    lock_axes(tracer, args[0], out, moved, "the code shifts along it")


def lock_axes(tracer: Tracer, source: Tensor, out: Tensor, axes: set[int], reason: str) -> None:
    """Carry labels to a result of the same axes, but for some, which are locked."""
    own = tracer.of(source)
    for axis in axes:
        tracer.labels.lock(own[axis], reason)
    tracer.give(out, [None if axis in axes else ids for axis, ids in enumerate(own)])


def index(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Look up positions, which locks the axes that are looked up in."""
    source, indices = args[0], args[1]
    used = [axis for axis, each in enumerate(indices) if each is not None]
    axes = tracer.of(source)
    for each in (each for each in indices if each is not None):
        tracer.lock(each, "its values are positions to look up")
    for axis in used:
        tracer.labels.lock(axes[axis], "the code looks up positions in it")
    rest: list[Ids | None] = [ids for axis, ids in enumerate(axes) if axis not in used]
    wide = out.dim() - len(rest)
    together = used == list(range(used[0], used[0] + len(used))) if used else True
    place = used[0] if together and used else 0
    tracer.give(out, [*rest[:place], *[None] * wide, *rest[place:]])


def index_select(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Look up positions of one axis."""
    lock_axes(tracer, args[0], out, {args[1] % args[0].dim()}, "the code looks up positions in it")


def embedding(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Look up rows, which stay."""
    table = tracer.of(args[0])
    tracer.labels.lock(table[0], "an embedding has one for each word")
    tracer.lock(args[1], "its values are words to look up")
    tracer.give(out, [*[None] * (out.dim() - 1), table[1]])


PARTS: dict[str, Rule] = {
    "select": select,
    "unbind": unbind,
    "slice": slice_,
    **dict.fromkeys(("split", "split_with_sizes", "unsafe_split", "unsafe_split_with_sizes", "unsafe_chunk"), split),
    "cat": cat,
    "stack": stack,
    "repeat": repeat,
    "flip": flip,
    "roll": roll,
    **dict.fromkeys(("index", "_unsafe_index"), index),
    "index_select": index_select,
    "embedding": embedding,
}
