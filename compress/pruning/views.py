"""Rules of operators that move channels about: views, permutations, joins and parts."""

from collections.abc import Callable, Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.calls import bind
from featherpress.compress.pruning.labels import Axes, Ids
from featherpress.compress.pruning.tracing import Tracer

Rule = Callable[[Tracer, Any, Sequence[Any], dict[str, Any], Any], None]


def align(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Pair runs of axes with the same product; axes of one position are in none."""
    olds = [axis for axis, size in enumerate(before) if size != 1]
    news = [axis for axis, size in enumerate(after) if size != 1]
    while olds and news:
        left, right = [olds.pop(0)], [news.pop(0)]
        many, others = before[left[0]], after[right[0]]
        while many != others:
            if many < others:
                left.append(olds.pop(0))
                many *= before[left[-1]]
            else:
                right.append(news.pop(0))
                others *= after[right[-1]]
        yield left, right


def view(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Carry labels through a change of shape.

    Where an axis is taken apart, one of its parts stays free, and what is in one position of it is tied.
    """
    source: Tensor = args[0]
    axes = tracer.of(source)
    made: list[Ids | None] = [None] * out.dim()
    for part, (olds, news) in enumerate(align(source.shape, out.shape)):
        labelled = [axis for axis in olds if axes[axis] is not None]
        if len(labelled) > 1:
            for axis in labelled:
                tracer.labels.lock(axes[axis], "joined with another axis by a view")
        elif labelled:
            whole = _spread(axes[labelled[0]], olds.index(labelled[0]), [source.shape[axis] for axis in olds])
            axis, ids = _split(tracer, whole.reshape([out.shape[axis] for axis in news]), part)
            if ids is not None:
                made[news[axis]] = ids
    tracer.give(out, made)
    tracer.origins.move(source, out, lambda array: _reshape_origin(array, source.shape, out.shape))


def _spread(ids: Ids | None, place: int, sizes: Sequence[int]) -> Ids:
    """Repeat labels along the axes beside theirs."""
    assert ids is not None
    shape = [1] * len(sizes)
    shape[place] = len(ids)
    return np.broadcast_to(ids.reshape(shape), sizes)


def _split(tracer: Tracer, whole: Ids, part: int) -> tuple[int, Ids | None]:
    """Choose the axis of an array that stays free; return it and its labels."""
    for axis in range(whole.ndim):
        if whole.shape[axis] > 1 and (whole == whole.take([0], axis)).all():
            whole = whole.take([0], axis)
    wide = [axis for axis in range(whole.ndim) if whole.shape[axis] > 1]
    if len(wide) < 2:
        axis = wide[0] if wide else 0
        return axis, whole.ravel() if wide else None
    rows = {axis: np.moveaxis(whole, axis, 0).reshape(whole.shape[axis], -1) for axis in wide}
    axis = tracer.decide(lambda: [(axis, tracer.labels.components(rows[axis])) for axis in reversed(wide)], part)
    if axis not in rows:
        tracer.labels.lock(whole.ravel(), "taken apart by a view of which no part can shrink")
        return 0, None
    return axis, tracer.labels.bundle(rows[axis])


def _reshape_origin(array: Ids, before: Sequence[int], after: Sequence[int]) -> Ids:
    """Change the shape of an array that broadcasts."""
    shape = [1] * len(after)
    parts = list(align(before, after))
    sizes = list(array.shape)
    for olds, news in parts:
        if any(array.shape[axis] != 1 for axis in olds):
            for axis in olds:
                sizes[axis] = before[axis]
            for axis in news:
                shape[axis] = after[axis]
    return np.broadcast_to(array, sizes).reshape(shape)


def move(tracer: Tracer, args: Sequence[Any], out: Tensor, order: Sequence[int | None]) -> None:
    """Give axes in another order; None is a new one."""
    axes = tracer.of(args[0])
    tracer.give(out, [None if axis is None else axes[axis] for axis in order])

    def moved(array: Ids) -> Ids:
        kept = [axis for axis in order if axis is not None]
        left = [axis for axis in range(array.ndim) if axis not in kept]
        sizes = [1 if axis is None else array.shape[axis] for axis in order]
        return array.transpose([*kept, *left]).reshape(sizes)

    if all(args[0].shape[axis] == 1 for axis in range(args[0].dim()) if axis not in order):
        tracer.origins.move(args[0], out, moved)


def transpose(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Exchange two axes; `t` those that a matrix has."""
    many = args[0].dim()
    one, other = (args[1] % many, args[2] % many) if len(args) > 1 else (0, many - 1)
    order = list(range(many))
    if many > 1:
        order[one], order[other] = other, one
    move(tracer, args, out, order)
    tracer.follow_weight(args[0], out)


def permute(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Put axes in another order."""
    move(tracer, args, out, [axis % args[0].dim() for axis in args[1]])


def unsqueeze(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Add an axis of one position."""
    place = args[1] % out.dim()
    move(tracer, args, out, [*range(place), None, *range(place, args[0].dim())])


def squeeze(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Take axes of one position away."""
    many = args[0].dim()
    given = bind(func, args, kwargs).get("dim", list(range(many)))
    given = [given] if isinstance(given, int) else given
    gone = {axis % many for axis in given if args[0].shape[axis] == 1} if many else set()
    move(tracer, args, out, [axis for axis in range(many) if axis not in gone])


def expand(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Repeat axes of one position, as often as what they meet is wide."""
    more = out.dim() - args[0].dim()
    move(tracer, args, out, [*[None] * more, *range(args[0].dim())])
    axes = list(tracer.of(out))
    for axis, size in enumerate(out.shape):
        if size > 1 and (axis < more or args[0].shape[axis - more] == 1):
            axes[axis] = tracer.repeated(size, axis)
    tracer.give(out, axes)


def select(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Take one position of an axis, which locks it."""
    axis, place = args[1] % args[0].dim(), args[2]
    axes = tracer.of(args[0])
    tracer.labels.lock(axes[axis], "one position is taken out of it")
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
        tracer.labels.lock(ids, "no channels of the model's own")
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
    lock_axes(tracer, args[0], out, moved, "shifted along it")


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
        tracer.lock(each, "used to look up positions")
    for axis in used:
        tracer.labels.lock(axes[axis], "looked up by position")
    rest: list[Ids | None] = [ids for axis, ids in enumerate(axes) if axis not in used]
    wide = out.dim() - len(rest)
    together = used == list(range(used[0], used[0] + len(used))) if used else True
    place = used[0] if together and used else 0
    tracer.give(out, [*rest[:place], *[None] * wide, *rest[place:]])


def index_select(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Look up positions of one axis."""
    lock_axes(tracer, args[0], out, {args[1] % args[0].dim()}, "looked up by position")


def embedding(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Look up rows, which stay."""
    table = tracer.of(args[0])
    tracer.labels.lock(table[0], "rows of an embedding, one for each word")
    tracer.lock(args[1], "used to look up rows")
    tracer.give(out, [*[None] * (out.dim() - 1), table[1]])


def pixel_shuffle(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """(N, C * r * r, H, W) to (N, C, rH, rW): the channels of one block go together."""
    axes = list(tracer.of(args[0]))
    place = out.dim() - 3
    ids = axes[place]
    if ids is not None:
        axes[place] = tracer.labels.bundle(ids.reshape(out.shape[place], -1))
    tracer.give(out, axes)


def pixel_unshuffle(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """(N, C, rH, rW) to (N, C * r * r, H, W)."""
    axes = list(tracer.of(args[0]))
    place = out.dim() - 3
    ids = axes[place]
    if ids is not None:
        axes[place] = np.repeat(ids, out.shape[place] // len(ids))
    tracer.give(out, axes)


def channel_shuffle(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """(N, g * c, ...): channels of one place in each group go together, so that groups stay as many."""
    ids = tracer.of(args[0])[1]
    axes = list(tracer.of(args[0]))
    if ids is not None:
        rows = ids.reshape(args[1], -1)
        tracer.labels.tie_rows(rows.T)
        axes[1] = rows.T.ravel()
    tracer.give(out, axes)


def as_strided(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Name the strides that a tensor has anyway, as pooling to one position does; any other use is not followed."""
    wide = [axis for axis, size in enumerate(out.shape) if size > 1]
    dense = [prod(out.shape[after] for after in wide[place + 1 :]) for place in range(len(wide))]
    if args[0].shape != out.shape or [args[2][axis] for axis in wide] != dense or any(args[3:]):
        raise NotImplementedError
    tracer.give(out, tracer.of(args[0]))


VIEWS: dict[str, Rule] = {
    **dict.fromkeys(("view", "_unsafe_view", "reshape", "_reshape_alias", "view_copy"), view),
    **dict.fromkeys(("transpose", "t", "swapdims", "transpose_copy", "t_copy"), transpose),
    "permute": permute,
    "unsqueeze": unsqueeze,
    "squeeze": squeeze,
    "expand": expand,
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
    **dict.fromkeys(("index_select",), index_select),
    "embedding": embedding,
    "as_strided": as_strided,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
}
