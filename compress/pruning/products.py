"""Operators that multiply and accumulate: their rules make the labels of what they give, and their work is noted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.calls import bind
from featherpress.compress.pruning.labels import Axes, Ids
from featherpress.compress.pruning.parts import same_axes
from featherpress.compress.pruning.trace import Work
from featherpress.compress.pruning.tracing import Rule, Tracer


def convolution(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """Channels in by channels out by kernel."""
    named = bind(func, args, kwargs)
    image, weight, bias = named["input"], named["weight"], named["bias"]
    _convolve(tracer, image, weight, bias, out, groups=named["groups"], transposed=named["transposed"])


def deformable(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """A convolution whose places are inputs, which stay."""
    image, weight, offset, mask, bias = args[:5]
    tracer.lock(offset, "the offsets of a deformable convolution")
    tracer.lock(mask, "the mask of a deformable convolution")
    if args[12] > 1:
        tracer.lock(image, "in groups, each with offsets of its own")
    _convolve(tracer, image, weight, bias, out, groups=args[11])


def _convolve(
    tracer: Tracer, image: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, *, groups: int,
    transposed: bool = False,
) -> None:  # fmt: skip
    labels, own = tracer.labels, tracer.of(weight)
    for ids in own[2:]:
        labels.lock(ids, "a kernel")
    for axis in range(image.dim()):
        if axis != 1:
            labels.lock(tracer.of(image)[axis], "a convolution slides along it")
    channels = tracer.of(image)[1]
    taken, given = (own[0], own[1]) if transposed else (own[1], own[0])
    # Of groups that go whole a single one may be left.
    last = labels.checks and tracer.decisions.chosen.get((tracer.key, 0)) == "whole"
    if groups == 1 and not last:
        meet(tracer, channels, taken, image.shape[1])
    else:
        given = _grouped(tracer, channels, own, weight, groups, transposed=transposed)
    if bias is not None:
        meet(tracer, given, tracer.of(bias)[0], bias.shape[0])
    tracer.give(out, [None, given, *[None] * (out.dim() - 2)])
    if not transposed and given is not None:
        tracer.origins.begin(out, 1, tuple(filter(None, map(tracer.owner, (weight, bias)))))


def meet(tracer: Tracer, some: Ids | None, others: Ids | None, size: int) -> None:
    """Pair two axes, position by position; one of a single position broadcasts."""
    if size > 1:
        tracer.labels.same(some, others)


def _grouped(
    tracer: Tracer, channels: Ids | None, own: Sequence[Ids | None], weight: Tensor, groups: int, *, transposed: bool
) -> Ids | None:
    """Cut whole groups, or an equal share of each, whichever leaves more units; return the labels that come out."""
    labels, given = tracer.labels, own[0]
    if channels is None or given is None or transposed:
        for ids in (channels, own[0], own[1]):
            labels.lock(ids, "in groups of a convolution that cannot be cut alike")
        return None
    taken, made = channels.reshape(groups, -1), given.reshape(groups, -1)
    both = np.concatenate([taken, made], axis=1)
    options = [("whole", labels.components(both))]
    if own[1] is not None:
        options.append(("share", labels.components(taken.T) + labels.components(made.T)))
    how = tracer.decide(lambda: options)
    tracer.trace.groups[tracer.owner(weight)] = how
    if how is None:
        for ids in (channels, own[0], own[1]):
            labels.lock(ids, "in groups of a convolution that cannot be cut alike")
        return None
    if how == "whole":
        labels.lock(own[1], "the width of a group: groups go as a whole")
        labels.tie_rows(both)
    else:
        labels.same(taken[0], own[1])
        for rows in (taken, made):
            labels.tie_rows(rows.T)
    return given


def product(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """(..., n, k) by (..., k, m)."""
    _multiply(tracer, args[0], args[1], out)


def added_product(tracer: Tracer, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Tensor) -> None:
    """A product, and a bias that broadcasts."""
    _multiply(tracer, args[1], args[2], out)
    axes = tracer.of(out)
    tracer.give(out, same_axes(tracer, [out, args[0]], out))
    owners = tuple(filter(None, map(tracer.owner, (args[2], args[0]))))
    if axes[-1] is not None and args[0].dim() == 1 and id(args[2]) in tracer.weights:
        tracer.origins.begin(out, out.dim() - 1, owners)


def _multiply(tracer: Tracer, left: Tensor, right: Tensor, out: Tensor) -> None:
    some, others = tracer.of(left), tracer.of(right)
    inner = left.shape[-1]
    meet(tracer, some[-1], others[-2 if right.dim() > 1 else 0], inner)
    batch = []
    for place in range(out.dim() - 2 if right.dim() > 1 else 0):
        meet(tracer, some[place], others[place], left.shape[place])
        batch.append(some[place])
    rows = list(some[len(batch) : -1])
    tracer.give(out, [*batch, *rows, *(others[-1:] if right.dim() > 1 else ())])
    owner = tracer.owner(right)
    if owner and id(right) in tracer.weights and others[-1] is not None and right.dim() == 2:
        tracer.origins.begin(out, out.dim() - 1, (owner,))


def note_work(tracer: Tracer, args: Sequence[Any], macs: int) -> None:
    """Write down the factors of an operator that multiplies and accumulates: axes that can shrink."""
    path, _, name, _ = tracer.key
    axes: Axes = ()
    match name:
        case "aten::convolution" | "torchvision::deform_conv2d":
            axes = tracer.of(args[1])
        case "aten::mm" | "aten::bmm":
            axes = (*tracer.of(args[0]), *tracer.of(args[1])[-1:])
        case "aten::mv":
            axes = tracer.of(args[0])
        case "aten::addmm" | "aten::baddbmm":
            axes = (*tracer.of(args[1]), *tracer.of(args[2])[-1:])
        case _:
            for tensor in (each for each in args if isinstance(each, Tensor)):
                tracer.lock(tensor, f"goes into {name}, whose cost has no rule")
    tracer.trace.work.append(Work(path, macs, [ids for ids in axes if ids is not None]))


PRODUCTS: dict[str, Rule] = {
    "aten::convolution": convolution,
    "torchvision::deform_conv2d": deformable,
    "aten::mm": product,
    "aten::bmm": product,
    "aten::mv": product,
    "aten::addmm": added_product,
    "aten::baddbmm": added_product,
}
