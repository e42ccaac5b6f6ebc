"""Operators that mix channels, computed on those that a cut leaves: so the oracle's original does without the rest."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from featherpress.compress.pruning.calls import bind, in_double
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.rules import REDUCTIONS, reduced
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.tracing import Tracer


class Masked:
    """Computes operators that mix channels on those that are kept."""

    def __init__(self, cut: Cut) -> None:
        self.cut = cut

    def __call__(self, tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
        """Compute an operator."""
        kwargs = in_double(kwargs)
        how = _MASKED.get(tracer.key[2])
        out = how(self, tracer, func, args, kwargs) if how else None
        return func(*args, **kwargs) if out is None else out

    def places(self, ids: Ids | None) -> Tensor | None:
        """Return the positions of an axis that are kept, None if all are."""
        if ids is None or self.cut.alive[ids].all():
            return None
        return torch.from_numpy(self.cut.alive[ids].nonzero()[0])

    def select(self, tracer: Tracer, tensor: Tensor, axes: Sequence[int]) -> tuple[Tensor, dict[int, Tensor]]:
        """Take what is kept along axes."""
        found = {axis: places for axis in axes if (places := self.places(tracer.of(tensor)[axis])) is not None}
        for axis, places in found.items():
            tensor = tensor.index_select(axis, places)
        return tensor, found


def _put(small: Tensor, places: dict[int, Tensor], shape: Sequence[int]) -> Tensor:
    """Put results back among zeros."""
    for axis, where in places.items():
        sizes = list(small.shape)
        sizes[axis] = shape[axis]
        small = small.new_zeros(sizes).index_copy(axis, where, small)
    return small


def _reduce(mask: Masked, tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    gone = reduced(args[0].dim(), bind(func, args, kwargs).get("dim"))
    small, places = mask.select(tracer, args[0], sorted(gone))
    return func(small, *args[1:], **kwargs) if places else None


def _layer_norm(mask: Masked, tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    many = len(args[1])
    last = list(range(args[0].dim() - many, args[0].dim()))
    small, places = mask.select(tracer, args[0], last)
    if not places:
        return None
    rest = []
    for each in args[2:4]:
        for axis, where in places.items() if each is not None else ():
            each = each.index_select(axis - last[0], where)  # noqa: PLW2901
        rest.append(each)
    out = func(small, list(small.shape[-many:]), *rest, *args[4:], **kwargs)
    shape = args[0].shape
    return (_put(out[0], places, shape), *out[1:]) if isinstance(out, tuple) else _put(out, places, shape)


def _group_norm(mask: Masked, tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    image, weight, bias, batch, channels, positions, groups, *rest = args
    small, places = mask.select(tracer, image, [1])
    if not places:
        return None
    left = len(places[1])
    if left % groups != 0 or tracer.decisions.chosen.get((tracer.key, 0)) == "whole":
        groups = left // (channels // groups)
    some = [None if each is None else each.index_select(0, places[1]) for each in (weight, bias)]
    out = func(small, *some, batch, left, positions, groups, *rest, **kwargs)
    return (_put(out[0], places, image.shape), *out[1:])


def _product(mask: Masked, tracer: Tracer, func: Any, args: Any, kwargs: Any) -> Any:
    place = 1 if tracer.key[2] in {"aten::addmm", "aten::baddbmm"} else 0
    left = args[place]
    where = mask.places(tracer.of(left)[-1])
    if where is None:
        return None
    shown = torch.zeros(left.shape[-1], dtype=left.dtype)
    shown[where] = 1
    return func(*args[:place], left * shown, *args[place + 1 :], **kwargs)


_MASKED: dict[str, Callable[..., Any]] = {
    **{f"aten::{name}": _reduce for name in REDUCTIONS.split()},
    "aten::native_layer_norm": _layer_norm,
    "aten::_fused_rms_norm": _layer_norm,
    "aten::native_group_norm": _group_norm,
    **{f"aten::{name}": _product for name in ("mm", "bmm", "addmm", "baddbmm")},
}
