"""What the most common operators return on meta tensors, worked out in a few comparisons.

PyTorch's own meta kernels are written in Python too, and general: half a millisecond for an addition. Those here
answer only what is plain, contiguous floating-point tensors of one type whose shapes fit, and return None for all
else, invalid calls included, so that PyTorch gives the answer or raises the error.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.budgets.counting.operators import STORES_VALUES

MetaKernel = Callable[[Sequence[Any], Mapping[str, Any]], Any]
FLOATS = frozenset({torch.float32, torch.float64, torch.float16, torch.bfloat16})
#: Types whose norms keep their statistics in the type itself.
WIDE = frozenset({torch.float32, torch.float64})
#: A subclass may have a mind of its own.
CLASSES = frozenset({Tensor, nn.Parameter})
META = torch.device("meta")
aten = torch.ops.aten
_empty_strided = torch.empty_strided


def _plain(first: Any, *others: Any) -> bool:
    """Return whether all are contiguous tensors of one floating-point type, and the first on meta."""
    dtype = first.dtype
    if dtype not in FLOATS or type(first) not in CLASSES or not (first.is_meta and first.is_contiguous()):
        return False
    for other in others:  # twice as fast as `all`
        if other.dtype is not dtype or type(other) not in CLASSES or not other.is_contiguous():
            return False
    return True


@lru_cache(maxsize=4096)
def _steps(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor."""
    steps, step = [], 1
    for side in reversed(shape):
        steps.append(step)
        step *= max(side, 1)
    return tuple(reversed(steps))


def _made(shape: Sequence[int], like: Tensor) -> Tensor:
    # `torch.empty` looks for a memory format first, and takes twice as long.
    return _empty_strided(shape, _steps(tuple(shape)), dtype=like.dtype, device=META)


def _same(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """One tensor, and numbers that change neither shape nor type."""
    x = args[0]
    if not _only_numbers(args, kwargs):
        return None
    return _made(x.shape, x) if _plain(x) else _in_order(x)


def _only_numbers(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return whether numbers and words are all that comes after a tensor."""
    if not kwargs and len(args) == 1:
        return True
    return all(isinstance(value, (int, float, str)) for value in (*args[1:], *kwargs.values()))


def _in_order(x: Tensor) -> Tensor | None:
    """Make a dense result whose axes follow one another as those of a view do."""
    strides = x.stride()
    if not _alike(x, x) or 0 in x.shape or 0 in strides or len(set(strides)) < len(strides):
        return None
    steps, step = list(strides), 1
    for axis in sorted(range(x.dim()), key=strides.__getitem__):
        steps[axis], step = step, step * x.shape[axis]
    return torch.empty_strided(x.shape, steps, dtype=x.dtype, device=META)


def _compare(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """One tensor with a number."""
    x, number = args
    fits = isinstance(number, (int, float)) and _plain(x)
    return torch.empty(x.shape, dtype=torch.bool, device=META) if fits else None


def _masked_fill(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, mask, number = args
    fits = mask.dtype is torch.bool and mask.is_meta and mask.is_contiguous() and isinstance(number, (int, float))
    return _made(x.shape, x) if fits and mask.shape == x.shape and _plain(x) else None


def _roll(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, shifts, dims = args[0], args[1], args[2] if len(args) > 2 else []
    fits = len(shifts) == len(dims) and len(dims) > 0 and all(-x.dim() <= dim < x.dim() for dim in dims)
    return _made(x.shape, x) if fits and 0 not in x.shape and _plain(x) else None


def _look_up(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Rows by their numbers."""
    x, indices = args
    index = indices[0]
    if len(indices) != 1 or index is None or index.dtype is not torch.int64 or not index.is_meta or x.dim() < 2:
        return None
    fits = type(index) in CLASSES and index.is_contiguous() and 0 not in (*index.shape, *x.shape) and _plain(x)
    return _made((*index.shape, *x.shape[1:]), x) if fits else None


def _same_in_place(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    return args[0] if _plain(args[0]) and _only_numbers(args, kwargs) else None


def _clone(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, layout = args[0], kwargs.get("memory_format")
    if layout is torch.contiguous_format:
        return _made(x.shape, x) if _alike(x, x) else None
    return _made(x.shape, x) if layout in {None, torch.preserve_format} and _plain(x) else None


def _broadcast(left: Sequence[int], right: Sequence[int]) -> list[int] | None:
    """Broadcast two shapes, None if they do not fit."""
    pairs = list(zip_longest(reversed(left), reversed(right), fillvalue=1))
    if any(a not in {b, 1} and b != 1 for a, b in pairs):
        return None
    return [b if a == 1 else a for a, b in reversed(pairs)]


def _binary(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Two tensors, or a tensor and a number."""
    left, right = args[0], args[1]
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return _same(args, kwargs) if isinstance(left, Tensor) else None
    if not _plain(left, right) or "rounding_mode" in kwargs:
        return None
    shape = left.shape if left.shape == right.shape else _broadcast(left.shape, right.shape)
    return None if shape is None else _made(shape, left)


def _binary_in_place(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    out = _binary(args, kwargs)
    return args[0] if out is not None and out.shape == args[0].shape else None


def _empty(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    if kwargs.get("memory_format") is not None or kwargs.get("layout", torch.strided) is not torch.strided:
        return None
    dtype = kwargs.get("dtype") or torch.get_default_dtype()
    return torch.empty(args[0], dtype=dtype, device=META) if kwargs.get("device") == META else None


def _window_sides(
    sides: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Count the places of a window along each axis."""
    return [
        (side + 2 * pad - gap * (size - 1) - 1) // step + 1
        for side, size, step, pad, gap in zip(sides, kernel, stride, padding, dilation, strict=True)
    ]


def _convolution(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """A batched convolution that is not transposed."""
    x, weight, bias, stride, padding, dilation, transposed, _, groups = args
    if transposed or not (_plain(x, weight) if bias is None else _plain(x, weight, bias)):
        return None
    window = tuple(stride), tuple(padding), tuple(dilation)
    shape = _convolved(x.shape, weight.shape, None if bias is None else bias.shape, window, groups)
    return None if shape is None else _made(shape, x)


@lru_cache(maxsize=4096)
def _convolved(
    image: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    window: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
    groups: int,
) -> tuple[int, ...] | None:
    """Work out the shape of a convolution's result by shapes, and by strides, paddings and dilations."""
    if len(image) < 3 or len(weight) != len(image):
        return None
    batch, channels, *sides = image
    out, inside, *kernel = weight
    if channels != inside * groups or out % groups or bias not in {None, (out,)}:
        return None
    if not (batch and channels and all(sides)) or any(len(axes) != len(sides) for axes in window):
        return None
    sides = _window_sides(sides, kernel, *window)
    return (batch, out, *sides) if min(sides) > 0 and min(window[1]) >= 0 else None


def _product(rank: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Matrices, or batches of as many."""
    left, right = args[0], args[1]
    fits = left.dim() == right.dim() == rank and left.shape[:-2] == right.shape[:-2]
    fits = fits and left.shape[-1] == right.shape[-2] and _alike(left, right)
    return _made((*left.shape[:-1], right.shape[-1]), left) if fits else None


def _addmm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """A vector of biases and a product."""
    bias, left, right = args[:3]
    out = _product(2, (left, right), {})
    fits = out is not None and _alike(bias, left) and bias.shape == out.shape[1:]
    return out if fits else None


def _alike(left: Tensor, right: Tensor) -> bool:
    """Return whether two tensors of any layout are of one floating-point type, and one of them on meta."""
    usual = type(left) in CLASSES and type(right) in CLASSES
    return usual and (left.is_meta or right.is_meta) and left.dtype is right.dtype and left.dtype in FLOATS


def normalise(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Batch normalisation by running statistics, without those it returns, which are empty."""
    x, weight, bias, mean, var, training = args[:6]
    vectors = [vector for vector in (weight, bias, mean, var) if vector is not None]
    if training or mean is None or var is None or x.dim() < 2 or x.dtype not in WIDE or not _plain(x, *vectors):
        return None
    channels = (x.shape[1],)
    for vector in vectors:
        if vector.shape != channels:
            return None
    return _made(x.shape, x)


def _batch_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    out = normalise(args, kwargs)
    if out is None:
        return None
    nothing = _made((0,), out)
    return out, nothing, nothing


def _layer_norm(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor] | None:
    x, shape, weight, bias = args[:4]
    tensors = [tensor for tensor in (weight, bias) if tensor is not None]
    if x.dtype not in WIDE or not _plain(x, *tensors):
        return None
    lead = x.dim() - len(shape)
    if lead < 0 or list(x.shape[lead:]) != list(shape) or any(list(t.shape) != list(shape) for t in tensors):
        return None
    statistics = (*x.shape[:lead], *(1 for _ in shape))
    return _made(x.shape, x), _made(statistics, x), _made(statistics, x)


def _softmax(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, dim = args[:2]
    usual = not any(args[2:]) and kwargs.get("dtype") is None
    return _made(x.shape, x) if usual and -x.dim() <= dim < x.dim() and _plain(x) else None


def _reduce(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Sum, mean or maximum over some axes."""
    x, dims = args[0], args[1] if len(args) > 1 else []
    keep = bool(args[2]) if len(args) > 2 else False
    if kwargs or not dims or 0 in x.shape or not _plain(x) or any(not -x.dim() <= dim < x.dim() for dim in dims):
        return None
    axes = {dim % x.dim() for dim in dims}
    if len(axes) != len(dims):
        return None
    return _made([1 if i in axes else s for i, s in enumerate(x.shape) if keep or i not in axes], x)


def _cat(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    tensors, dim = args[0], args[1] if len(args) > 1 else 0
    if not tensors or not _plain(*tensors):
        return None
    first = tensors[0]
    if any(t.dim() != first.dim() for t in tensors) or not -first.dim() <= dim < first.dim():
        return None
    axis = dim % first.dim()
    shape, before, after = list(first.shape), first.shape[:axis], first.shape[axis + 1 :]
    for each in tensors:
        if each.shape[:axis] != before or each.shape[axis + 1 :] != after or 0 in each.shape:
            return None
    shape[axis] = sum([each.shape[axis] for each in tensors])
    return _made(shape, first)


def _stack(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    tensors, dim = args[0], args[1] if len(args) > 1 else 0
    if not tensors or not _plain(*tensors):
        return None
    shape = list(tensors[0].shape)
    rank = len(shape) + 1
    if 0 in shape or any(t.shape != tensors[0].shape for t in tensors) or not -rank <= dim < rank:
        return None
    shape.insert(dim % rank, len(tensors))
    return _made(shape, tensors[0])


def _sum_all(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    return _made((), args[0]) if len(args) == 1 and not kwargs and _plain(args[0]) else None


def _pad(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Pad the last axes first, each at its start and its end."""
    x, pads = args[0], args[1]
    if len(pads) % 2 or len(pads) > 2 * x.dim() or min(pads, default=0) < 0 or 0 in x.shape or not _plain(x):
        return None
    shape = list(x.shape)
    for axis in range(len(pads) // 2):
        shape[-1 - axis] += pads[2 * axis] + pads[2 * axis + 1]
    return _made(shape, x)


def _upsample_2d(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Repeat the nearest place, up or down to a size."""
    x, size = args[0], args[1]
    fits = x.dim() == 4 and len(size) == 2 and min(size) > 0 and 0 not in x.shape
    return _made((*x.shape[:2], *size), x) if fits and _plain(x) else None


def _max_pool_2d(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Tensor, Tensor] | None:
    """Maxima and their places, over windows that are not rounded up."""
    x, *window = args
    defaults: list[Any] = [None, [], [0], [1], False]
    kernel, stride, padding, dilation, ceil = [*window, *defaults[len(window) :]]
    axes = (kernel, stride or kernel, padding, dilation)
    if ceil or kwargs or x.dim() != 4 or 0 in x.shape or any(len(axis) not in {1, 2} for axis in axes):
        return None
    size, step, pad, gap = (list(axis) * (2 // len(axis)) for axis in axes)
    fits = min(step + gap) > 0 and all(0 <= 2 * before <= side for before, side in zip(pad, size, strict=True))
    sides = _window_sides(x.shape[2:], size, step, pad, gap) if fits else [0]
    if min(sides) < 1 or not _plain(x):
        return None
    shape = (*x.shape[:2], *sides)
    return _made(shape, x), torch.empty(shape, dtype=torch.int64, device=META)


def _deformable_convolution(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Sample at every place that has offsets; torchvision does not compare shapes on meta tensors either."""
    x, weight, offset, mask, bias = args[:5]
    fits = x.dim() == offset.dim() == 4 and _plain(x, weight, offset, mask, bias)
    return _made((x.shape[0], weight.shape[0], *offset.shape[2:]), x) if fits else None


def _grid_sample(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """One value for each place of a grid, in two or three dimensions."""
    x, grid = args[:2]
    fits = x.dim() == grid.dim() and x.shape[0] == grid.shape[0] and grid.shape[-1] == x.dim() - 2
    return _made((*x.shape[:2], *grid.shape[1:-1]), x) if fits and 0 not in x.shape and _alike(x, grid) else None


def _grouped_product(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    """Rows by the matrix of their group, in any type: PyTorch's answer is for half precision alone."""
    left, right = args[:2]
    fits = right.dim() == 3 and left.dim() == 2 and left.shape[-1] == right.shape[-2] and _alike(left, right)
    return _made((left.shape[0], right.shape[-1]), left) if fits and not any(args[3:]) and len(kwargs) < 2 else None


def _unsafe_view(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor | None:
    x, shape = args
    return x.view(shape) if x.is_meta and x.is_contiguous() else None


def _store_values(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """How much a sparse tensor stores is in values."""
    raise RuntimeError("what a sparse tensor stores is in values that meta tensors do not have")


_UNARY = (
    *("relu", "leaky_relu", "sigmoid", "silu", "hardswish", "hardsigmoid", "gelu", "tanh", "elu", "hardtanh", "mish"),
    *("exp", "sqrt", "rsqrt", "neg"),
)
_BINARY = ("add", "sub", "mul", "div")


def _operator(name: str, overload: str = "default") -> Any:
    return getattr(getattr(aten, name), overload)


#: Operator to its answer; by name one that exists only once its library is imported.
META_KERNELS: Mapping[Any, MetaKernel] = {
    **{_operator(name): _same for name in _UNARY},
    **{
        _operator(name + "_"): _same_in_place
        for name in _UNARY
        if hasattr(aten, name + "_") and "default" in getattr(aten, name + "_").overloads()
    },
    **{_operator(name, "Scalar"): _same for name in _BINARY},
    **{_operator(name, "Tensor"): _binary for name in _BINARY},
    **{_operator(name + "_", "Tensor"): _binary_in_place for name in _BINARY},
    **{_operator(name, "Scalar"): _compare for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    aten.masked_fill.Scalar: _masked_fill,
    aten.roll.default: _roll,
    aten.index.Tensor: _look_up,
    aten.clone.default: _clone,
    aten.empty.memory_format: _empty,
    aten.convolution.default: _convolution,
    aten.mm.default: partial(_product, 2),
    aten.addmm.default: _addmm,
    aten.native_batch_norm.default: _batch_norm,
    aten.native_layer_norm.default: _layer_norm,
    aten._softmax.default: _softmax,
    aten._safe_softmax.default: _softmax,
    aten.mean.dim: _reduce,
    aten.amax.default: _reduce,
    aten.sum.dim_IntList: _reduce,
    aten.cat.default: _cat,
    aten._unsafe_view.default: _unsafe_view,
    aten.stack.default: _stack,
    aten.sum.default: _sum_all,
    aten.mean.default: _sum_all,
    aten.bmm.default: partial(_product, 3),
    aten.constant_pad_nd.default: _pad,
    aten.upsample_nearest2d.default: _upsample_2d,
    aten.max_pool2d_with_indices.default: _max_pool_2d,
    aten.zeros.default: _empty,
    aten.ones.default: _empty,
    "torchvision::deform_conv2d": _deformable_convolution,
    "aten::grid_sampler_2d": _grid_sample,
    "aten::grid_sampler_3d": _grid_sample,
    "aten::_grouped_mm": _grouped_product,
    **dict.fromkeys(STORES_VALUES, _store_values),
}
