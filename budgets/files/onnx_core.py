"""ONNX's operators that are core work, counted by the formulas of their counterparts in PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from onnx import NodeProto
from torch import Tensor, nn

from featherpress.budgets.counting.count import count
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.errors import FileError

Core = Callable[[NodeProto, Sequence[Any], Any], int]


def _convolution(image: int, weight: int, *, transposed: bool = False) -> Core:
    def macs(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
        channels = inputs[weight].shape[0] if transposed else inputs[weight].shape[1] * _groups(node)
        _require_fit(node, inputs[image].shape[1], channels)
        args = (inputs[image], inputs[weight], None, 1, 0, 1, transposed)
        return FORMULAS["aten::convolution"](args, out)

    return macs


def _groups(node: NodeProto) -> int:
    return next((each.i for each in node.attribute if each.name == "group"), 1)


def _require_fit(node: NodeProto, given: int, taken: int) -> None:
    """Refuse weights for another number of channels than is given: ONNX infers a shape all the same.

    Errors: FileError.
    """
    if given != taken:
        raise FileError(
            f"the graph is broken: {node.op_type} ({node.name or node.output[0]}) has weights for {taken} channels, "
            f"and is given {given}"
        )


def _deformable(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
    _require_fit(node, inputs[0].shape[1], inputs[1].shape[1] * _groups(node))
    return FORMULAS["torchvision::deform_conv2d"](inputs, out)


def _recurrent(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
    _require_fit(node, inputs[0].shape[2], inputs[1].shape[2] if inputs[1].dim() == 3 else 0)
    return FORMULAS["aten::mkldnn_rnn_layer"](inputs, out)


def _matmul(left: int, right: int) -> Core:
    def macs(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
        deep, columns = inputs[left].shape[-1], inputs[right].shape[-1] if inputs[right].dim() > 1 else 1
        return _mm(out.numel() // max(columns, 1), deep, columns)

    return macs


def _gemm(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
    turned = any(each.name == "transA" and each.i for each in node.attribute)
    return _mm(out.shape[0], inputs[0].shape[0 if turned else 1], out.shape[1])


def _mm(rows: int, deep: int, columns: int) -> int:
    twins = torch.empty(rows, deep, device="meta"), torch.empty(deep, columns, device="meta")
    return FORMULAS["aten::mm"](twins, None)


class _Einsum(nn.Module):
    def __init__(self, equation: str) -> None:
        super().__init__()
        self.equation = equation

    def forward(self, *operands: Tensor) -> Tensor:
        return torch.einsum(self.equation, *operands)


def _einsum(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
    equation = next(each.s.decode() for each in node.attribute if each.name == "equation")
    return int(count(_Einsum(equation), *(each.float() for each in inputs)).macs)


def _attention(node: NodeProto, inputs: Sequence[Any], out: Any) -> int:
    """(N, heads, L, E), or (N, L, heads * E) with the heads as an attribute; earlier keys come before."""
    heads = {each.name: each.i for each in node.attribute}
    query, key, value = inputs[:3]
    if query.dim() == 3:
        many, fewer = heads["q_num_heads"], heads["kv_num_heads"]
        query = query.new_empty(query.shape[0], many, query.shape[1], query.shape[2] // many)
        value = value.new_empty(value.shape[0], fewer, value.shape[1], value.shape[2] // fewer)
    past = inputs[4].shape[-2] if len(inputs) > 4 and inputs[4] is not None else 0
    key = key.new_empty(key.shape[-2] + past, 1)
    return FORMULAS["aten::_scaled_dot_product_flash_attention"]((query, key, value), out)


#: ONNX's operators that are core work, to what finds the formula's arguments among theirs.
CORE: Mapping[str, Core] = {
    "Conv": _convolution(0, 1),
    "ConvInteger": _convolution(0, 1),
    "QLinearConv": _convolution(0, 3),
    "ConvTranspose": _convolution(0, 1, transposed=True),
    "DeformConv": _deformable,
    "MatMul": _matmul(0, 1),
    "MatMulInteger": _matmul(0, 1),
    "QLinearMatMul": _matmul(0, 3),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Attention": _attention,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
