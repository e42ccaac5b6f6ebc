"""Rules of operators that give axes another shape, order or number."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.calls import bind
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.tracing import Rule, Tracer


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
                tracer.labels.lock(axes[axis], "a reshape merges it with another axis")
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
        tracer.labels.lock(whole.ravel(), "a reshape splits it into parts of a fixed size")
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
    "as_strided": as_strided,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    **dict.fromkeys(("channel_shuffle", "native_channel_shuffle"), channel_shuffle),
}
