"""What one operator costs: a small integer formula for each that multiplies and accumulates.

The convention is "core-macs": products of a convolution, a linear layer, a matrix product, attention or a deformable
convolution, padding included; no bias, normalisation, pooling or resampling. FLOPs are twice that.
A formula gets what the dispatcher gets (positional arguments, defaults trimmed) and what the operator returned.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

CONVENTION = "core-macs"
CONVENTION_TEXT = (
    "multiply-accumulates of convolution, linear, matmul, attention and deformable convolution; "
    "no bias, normalisation, pooling or resampling; FLOPs = 2 x MACs"
)

Formula = Callable[[Sequence[Any], Any], int]


def _convolution(args: Sequence[Any], out: Any) -> int:
    """N * C_out * positions * C_in / groups * kernel; a transposed one has one kernel an input position instead."""
    image, weight = args[0], args[1]
    places = out.numel()
    if not places and 0 in out.shape[2:] and 0 not in image.shape:  # PyTorch before 2.9 answers on meta tensors
        sides = ("x".join(map(str, tensor.shape[2:])) for tensor in (weight, image))
        raise RuntimeError("a kernel of {} has no place on a map of {}".format(*sides))
    transposed = bool(args[6]) if len(args) > 6 else False
    positions = image.numel() if transposed else places
    return int(positions * weight.numel() // max(weight.shape[0], 1))


def _convolution_backward(args: Sequence[Any], out: Any) -> int:
    """What the convolution itself costs, once for the gradient of its image and once for that of its weight."""
    gradient, image, weight, _, *window, wanted = args
    return int(sum(wanted[:2])) * _convolution((image, weight, None, *window), gradient)


def _convolution_tbc(args: Sequence[Any], out: Any) -> int:
    """(T, N, C_in) by a weight (kernel, C_in, C_out)."""
    return int(out.numel() * prod(args[1].shape[:2]))


def _deformable_convolution(args: Sequence[Any], out: Any) -> int:
    """Cost of the plain convolution of the same shape; sampling and the mask are element-wise."""
    return int(out.numel() * prod(args[1].shape[1:]))


def _matrix_product(left: Tensor, right: Tensor) -> int:
    """(..., n, k) by (..., k, m): every element of the left meets m columns; of a sparse one those that are stored."""
    if left.layout is torch.strided and right.layout is not torch.strided:
        return int(left.numel() // left.shape[-1] * _elements(right))
    if right.layout is not torch.strided:
        stored = (_stored(each, axis, right.shape[-2]) for each, axis in ((left, -1), (right, -2)))
        return int(torch.stack(tuple(stored)).prod(0).sum())
    return int(_elements(left) * right.shape[-1])


def _elements(tensor: Tensor) -> int:
    """How many elements a tensor stores: of a sparse one in blocks all of each block."""
    if tensor.layout is torch.strided:
        return tensor.numel()
    return int((tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()).numel())


def _stored(tensor: Tensor, axis: int, length: int) -> Tensor:
    """How many elements a sparse matrix stores at each place of an axis."""
    return torch.bincount(tensor.to_sparse().coalesce().indices()[axis], minlength=length)


def _mm(args: Sequence[Any], out: Any) -> int:
    return _matrix_product(args[0], args[1])


def _grouped_mm(args: Sequence[Any], out: Any) -> int:
    """Each row by the matrix of its group; where the inner axis is the one in groups, each element by every column.

    Rows and columns that belong to no group are counted too: which those are, only values tell.
    """
    left, right = args[0], args[1]
    if left.dim() == 3 and right.dim() == 2:
        return int(prod(left.shape[1:]) * right.shape[-1])
    return _matrix_product(left, right)


def _int8_mm(args: Sequence[Any], out: Any) -> int:
    """(n, k) by a packed weight (m, k)."""
    return int(args[0].numel() * args[1].shape[0])


def _addmm(args: Sequence[Any], out: Any) -> int:
    return _matrix_product(args[1], args[2])


def _mv(args: Sequence[Any], out: Any) -> int:
    return _elements(args[0])


def _distances(args: Sequence[Any], out: Any) -> int:
    """Of each row to each: a matrix product, with a column for each side's own sum of squares."""
    return int(out.numel() * (args[0].shape[-1] + 2))


def _packed_linear(args: Sequence[Any], out: Any) -> int:
    """(..., k) by a weight in a library's own packing: each of the outputs is a sum over k."""
    result = out if isinstance(out, Tensor) else out[0]
    return int(result.numel() * args[0].shape[-1])


def _packed_convolution(args: Sequence[Any], out: Any) -> int:
    """Weights are packed in an object that gives them back."""
    return int(out.numel() * prod(args[1].unpack()[0].shape[1:]))


def _addmv(args: Sequence[Any], out: Any) -> int:
    return _elements(args[1])


def _addr(args: Sequence[Any], out: Any) -> int:
    return int(args[1].numel() * args[2].numel())


def _trilinear(args: Sequence[Any], out: Any) -> int:
    """A bilinear form as two products: x1 by the weight (rows * a * b * outputs), then by x2 (rows * b * outputs)."""
    left, weight, right = args[0], args[1], args[2]
    rows = left.numel() // left.shape[-1]
    return int(rows * weight.numel() + rows * weight.shape[0] * right.shape[-1])


def _attention(args: Sequence[Any], out: Any) -> int:
    """Scores and weighted sum, all L * S pairs (a causal mask saves nothing in this convention)."""
    query, key, value = args[0], args[1], args[2]
    pairs = prod(query.shape[:-1]) * key.shape[-2]
    return int(pairs * (query.shape[-1] + value.shape[-1]))


def _multi_head(query: Tensor, key: Tensor, value: Tensor, width: int) -> int:
    """Four projections and the attention between them; tensors are (N, L, E), width is E."""
    pairs = query.shape[0] * query.shape[1] * key.shape[1]
    projected = 2 * query.numel() + key.numel() + value.numel()
    return int(projected * width + 2 * pairs * width)


def _native_multi_head(args: Sequence[Any], out: Any) -> int:
    return _multi_head(args[0], args[1], args[2], int(args[3]))


def _encoder_layer(args: Sequence[Any], out: Any) -> int:
    """Multi-head self-attention and the two linear layers after it."""
    source = args[0]
    rows = source.numel() // source.shape[-1]
    hidden = [t for t in args[14:] if isinstance(t, Tensor) and t.dim() == 2]
    return _multi_head(source, source, source, int(args[1])) + sum(int(rows * w.numel()) for w in hidden[:2])


def _recurrent_layer(args: Sequence[Any], out: Any) -> int:
    """One layer in one direction: both weights meet each of the T * N rows."""
    rows = args[0].numel() // args[0].shape[-1]
    return int(rows * (args[1].numel() + args[2].numel()))


_ATTENTION = (
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
    "_scaled_dot_product_attention_math_for_mps",
)

#: Products of rows with a weight in four or eight bits.
_BITSANDBYTES = ("gemm_4bit", "gemv_4bit", "int8_linear_matmul", "int8_scaled_mm", "int8_mixed_scaled_mm")

#: Operator, without overload and in-place underscore, to its formula.
FORMULAS: Mapping[str, Formula] = MappingProxyType(
    {
        "aten::convolution": _convolution,
        "aten::convolution_backward": _convolution_backward,
        "aten::conv_tbc": _convolution_tbc,
        "aten::mm": _mm,
        "aten::bmm": _mm,
        "aten::_int_mm": _mm,
        "aten::_scaled_mm": _mm,
        "aten::_grouped_mm": _grouped_mm,
        "aten::_scaled_grouped_mm": _grouped_mm,
        "aten::_scaled_mm_v2": _mm,
        "aten::_scaled_grouped_mm_v2": _grouped_mm,
        "aten::_sparse_addmm": _addmm,
        "aten::_sparse_mm_reduce_impl": _mm,
        "aten::_weight_int8pack_mm": _int8_mm,
        "aten::addmm": _addmm,
        "aten::_addmm_activation": _addmm,
        "aten::baddbmm": _addmm,
        "aten::addbmm": _addmm,
        "aten::mv": _mv,
        "aten::dot": _mv,
        "aten::vdot": _mv,
        "aten::addmv": _addmv,
        "aten::addr": _addr,
        "aten::_trilinear": _trilinear,
        "aten::_euclidean_dist": _distances,
        **{f"aten::{name}": _attention for name in _ATTENTION},
        "aten::_native_multi_head_attention": _native_multi_head,
        "aten::_transformer_encoder_layer_fwd": _encoder_layer,
        "higher_order::flex_attention": _attention,
        "aten::mkldnn_rnn_layer": _recurrent_layer,
        "torchvision::deform_conv2d": _deformable_convolution,
        **{f"quantized::linear{kind}": _packed_linear for kind in ("", "_relu", "_dynamic", "_relu_dynamic")},
        **{f"quantized::conv{axes}d{kind}": _packed_convolution for axes in (1, 2, 3) for kind in ("", "_relu")},
        **{f"bitsandbytes::{name}": _packed_linear for name in _BITSANDBYTES},
    }
)
