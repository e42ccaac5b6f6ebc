"""Small modules whose parameters and MACs were worked out by hand, then the counter asked."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.budgets import count

from .does import Does


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


class OwnConv(nn.Conv2d):
    """A subclass with a forward of its own, which counters by class do not know."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the parent's name
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding) * 2


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    params: int
    macs: int


def deformable(channels: int, out: int, *, groups: int = 1, offset_groups: int = 1, masked: bool = True) -> nn.Module:
    conv = torchvision.ops.DeformConv2d(channels, out, 3, padding=1, groups=groups, bias=False)

    def forward(self: nn.Module, image: Tensor) -> Tensor:
        n, _, h, w = image.shape
        mask = image.new_zeros(n, 9 * offset_groups, h, w) if masked else None
        return self.get_submodule("conv")(image, image.new_zeros(n, 18 * offset_groups, h, w), mask)

    return Does(forward, conv=conv)


CASES = [
    # Convolutions: output positions x C_out x C_in / groups x kernel.
    Case("conv2d", lambda: nn.Conv2d(3, 8, 3, padding=1), ((1, 3, 10, 12),), 8 * 3 * 9 + 8, 10 * 12 * 8 * 3 * 9),
    Case("conv2d without bias", lambda: nn.Conv2d(3, 8, 3, bias=False), ((1, 3, 10, 10),), 216, 8 * 8 * 8 * 3 * 9),
    Case("conv2d stride", lambda: nn.Conv2d(4, 6, 3, 2, 1), ((2, 4, 9, 9),), 222, 2 * 5 * 5 * 6 * 4 * 9),
    Case("conv2d dilated", lambda: nn.Conv2d(4, 6, 3, dilation=2), ((1, 4, 9, 9),), 222, 5 * 5 * 6 * 4 * 9),
    Case("conv2d same", lambda: nn.Conv2d(4, 6, 3, padding="same"), ((1, 4, 9, 7),), 222, 9 * 7 * 6 * 4 * 9),
    Case("conv2d same, even", lambda: nn.Conv2d(4, 6, 4, padding="same"), ((1, 4, 9, 7),), 390, 9 * 7 * 6 * 4 * 16),
    Case("conv2d valid", lambda: nn.Conv2d(4, 6, 3, padding="valid"), ((1, 4, 9, 7),), 222, 7 * 5 * 6 * 4 * 9),
    Case("conv2d grouped", lambda: nn.Conv2d(8, 12, 3, groups=4), ((1, 8, 6, 6),), 12 * 2 * 9 + 12, 4 * 4 * 12 * 2 * 9),
    Case("conv2d depthwise", lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), ((1, 8, 6, 6),), 80, 36 * 8 * 9),
    Case("conv2d oblong", lambda: nn.Conv2d(2, 3, (1, 5)), ((1, 2, 4, 9),), 33, 4 * 5 * 3 * 2 * 5),
    Case("conv2d unbatched", lambda: nn.Conv2d(3, 8, 3), ((3, 10, 10),), 224, 8 * 8 * 8 * 3 * 9),
    Case("conv2d reflect", lambda: nn.Conv2d(3, 8, 3, padding=1, padding_mode="reflect"), ((1, 3, 5, 5),), 224, 5400),
    Case(
        "conv2d by function",
        lambda: Does(lambda s, x: F.conv2d(x, s.w), w=weight(8, 3, 1, 1)),
        ((1, 3, 5, 5),),
        24,
        600,
    ),
    Case("conv2d subclass", lambda: OwnConv(3, 8, 3), ((1, 3, 10, 10),), 224, 8 * 8 * 8 * 3 * 9),
    Case(
        "conv2d by direct forward",
        lambda: Does(lambda s, x: s.conv.forward(x), conv=nn.Conv2d(3, 8, 1)),
        ((1, 3, 5, 5),),
        32,
        25 * 24,
    ),
    Case("conv1d", lambda: nn.Conv1d(4, 6, 3), ((2, 4, 10),), 78, 2 * 8 * 6 * 4 * 3),
    Case(
        "conv1d, time first",
        lambda: Does(lambda s, x: torch.conv_tbc(x, s.w, s.b, 1), w=weight(3, 4, 6), b=weight(6)),
        ((10, 2, 4),),
        78,
        10 * 2 * 6 * 4 * 3,
    ),
    Case("conv3d", lambda: nn.Conv3d(2, 3, 3), ((1, 2, 5, 5, 5),), 165, 27 * 3 * 2 * 27),
    # Transposed: one kernel for each input position.
    Case("transposed", lambda: nn.ConvTranspose2d(4, 6, 3, 2), ((1, 4, 5, 5),), 4 * 6 * 9 + 6, 25 * 4 * 6 * 9),
    Case("transposed grouped", lambda: nn.ConvTranspose2d(4, 6, 2, 2, groups=2), ((1, 4, 5, 5),), 54, 25 * 4 * 3 * 4),
    Case("transposed 1d", lambda: nn.ConvTranspose1d(4, 6, 3), ((2, 4, 5),), 78, 2 * 5 * 4 * 6 * 3),
    # Matrix products.
    Case("linear", lambda: nn.Linear(16, 4), ((5, 16),), 68, 5 * 64),
    Case("linear, one row", lambda: nn.Linear(16, 4), ((16,),), 68, 64),
    Case("linear, three axes", lambda: nn.Linear(16, 4, bias=False), ((2, 5, 16),), 64, 10 * 64),
    Case("matmul", lambda: Does(lambda s, a, b: a @ b), ((5, 3), (3, 7)), 0, 105),
    Case("matmul, batched", lambda: Does(lambda s, a, b: a @ b), ((4, 5, 3), (4, 3, 7)), 0, 420),
    Case("matmul, broadcast", lambda: Does(lambda s, a, b: a @ b), ((4, 5, 3), (3, 7)), 0, 420),
    Case("matrix by vector", lambda: Does(lambda s, a, b: a @ b), ((5, 3), (3,)), 0, 15),
    Case("vector by vector", lambda: Does(lambda s, a, b: a @ b), ((9,), (9,)), 0, 9),
    Case("baddbmm", lambda: Does(lambda s, c, a, b: torch.baddbmm(c, a, b)), ((4, 5, 7), (4, 5, 3), (4, 3, 7)), 0, 420),
    Case("addbmm", lambda: Does(lambda s, c, a, b: torch.addbmm(c, a, b)), ((5, 7), (4, 5, 3), (4, 3, 7)), 0, 420),
    Case("addmv", lambda: Does(lambda s, c, a, b: torch.addmv(c, a, b)), ((5,), (5, 3), (3,)), 0, 15),
    Case("einsum", lambda: Does(lambda s, a, b: torch.einsum("bik,bjk->bij", a, b)), ((2, 5, 3), (2, 7, 3)), 0, 210),
    Case("einsum, one operand", lambda: Does(lambda s, a: torch.einsum("ii->i", a)), ((4, 4),), 0, 0),
    Case("tensordot", lambda: Does(lambda s, a, b: torch.tensordot(a, b, 1)), ((2, 5, 3), (3, 7)), 0, 210),
    Case("bilinear", lambda: nn.Bilinear(3, 4, 5), ((2, 3), (2, 4)), 65, 2 * 5 * 3 * 4 + 2 * 5 * 4),
    # Attention: L * S * (E + E_v) a head.
    Case(
        "scaled dot product",
        lambda: Does(lambda s, q, k, v: F.scaled_dot_product_attention(q, k, v)),
        ((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 6)),
        0,
        2 * 3 * 5 * 7 * (8 + 6),
    ),
    Case(
        "causal attention counts every pair",
        lambda: Does(lambda s, q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        ((1, 2, 6, 4),),
        0,
        2 * 36 * 8,
    ),
    Case(
        "multi-head attention",
        lambda: nn.MultiheadAttention(16, 4, batch_first=True),
        ((2, 5, 16),) * 3,
        4 * 256 + 64,
        2 * 5 * 256 * 4 + 2 * 25 * 32,
    ),
    Case(
        "attention without weights",
        lambda: Does(lambda s, x: s.a(x, x, x, need_weights=False), a=nn.MultiheadAttention(16, 4, batch_first=True)),
        ((2, 5, 16),),
        1088,
        2 * 5 * 256 * 4 + 2 * 25 * 32,
    ),
    Case(
        "encoder layer",
        lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        ((2, 5, 16),),
        1088 + 544 + 528 + 64,
        2 * 5 * 256 * 4 + 2 * 25 * 32 + 10 * 16 * 32 * 2,
    ),
    # Recurrent: gates x (input + hidden) x hidden for each step.
    Case("lstm", lambda: nn.LSTM(6, 5), ((7, 2, 6),), 4 * 5 * 11 + 40, 14 * 4 * 5 * 11),
    Case("lstm, two ways", lambda: nn.LSTM(6, 5, bidirectional=True), ((7, 2, 6),), 520, 2 * 14 * 4 * 5 * 11),
    Case("lstm, two layers", lambda: nn.LSTM(6, 5, 2), ((7, 2, 6),), 500, 14 * 4 * 5 * (11 + 10)),
    Case("lstm, projected", lambda: nn.LSTM(6, 5, proj_size=3), ((7, 2, 6),), 235, 14 * (20 * 9 + 15)),
    Case("gru", lambda: nn.GRU(6, 5), ((7, 2, 6),), 3 * 5 * 11 + 30, 14 * 3 * 5 * 11),
    Case("rnn", lambda: nn.RNN(6, 5), ((7, 2, 6),), 65, 14 * 5 * 11),
    Case("lstm cell", lambda: nn.LSTMCell(6, 5), ((2, 6),), 260, 2 * 4 * 5 * 11),
    # Deformable convolutions cost what the plain convolution of their shape costs.
    Case("deformable", lambda: deformable(4, 6), ((1, 4, 5, 7),), 216, 35 * 6 * 4 * 9),
    Case("deformable v1", lambda: deformable(4, 6, masked=False), ((2, 4, 5, 7),), 216, 2 * 35 * 6 * 4 * 9),
    Case("deformable grouped", lambda: deformable(4, 6, groups=2), ((1, 4, 5, 7),), 108, 35 * 6 * 2 * 9),
    Case("deformable offset groups", lambda: deformable(4, 6, offset_groups=4), ((1, 4, 5, 7),), 216, 35 * 6 * 4 * 9),
    # No core work at all.
    Case("batch norm", lambda: nn.BatchNorm2d(8), ((1, 8, 5, 5),), 16, 0),
    Case("layer norm", lambda: nn.LayerNorm(8), ((5, 8),), 16, 0),
    Case("group norm", lambda: nn.GroupNorm(2, 8), ((1, 8, 5),), 16, 0),
    Case("prelu", nn.PReLU, ((5, 8),), 1, 0),
    Case("max pool", lambda: nn.MaxPool2d(2), ((1, 8, 6, 6),), 0, 0),
    Case("average pool", lambda: nn.AdaptiveAvgPool2d(1), ((1, 8, 6, 6),), 0, 0),
    Case("upsample", lambda: nn.Upsample(scale_factor=2, mode="bilinear"), ((1, 8, 6, 6),), 0, 0),
    Case("embedding", lambda: Does(lambda s, x: s.e(x.long()), e=nn.Embedding(10, 4)), ((3,),), 40, 0),
    Case("softmax and drop-out", lambda: nn.Sequential(nn.Softmax(1), nn.Dropout()), ((3, 4),), 0, 0),
    Case("channel shuffle", lambda: nn.ChannelShuffle(2), ((1, 4, 3, 3),), 0, 0),
    Case("weight norm", lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), ((2, 4),), 18, 24),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_count_equals_the_hand_count(case: Case) -> None:
    """Parameters and MACs are exactly what a person works out, on the meta device, and the rows sum to them."""
    cost = count(case.make(), *(zeros(*shape) for shape in case.inputs))
    assert (cost.params, cost.macs, cost.method) == (case.params, case.macs, "meta")
    assert sum(row.params for row in cost.modules) == case.params
    assert sum(row.macs for row in cost.modules) == case.macs
    assert cost.flops == 2 * case.macs


def wants_device(x: Tensor) -> None:
    if x.device.type == "meta":
        raise ValueError("no meta tensors")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize(("wants", "method"), [(wants_device, "fake"), (lambda x: x.sum().tolist(), "real")])
def test_the_fallbacks_agree_with_the_meta_count(case: Case, wants: Callable[[Tensor], Any], method: str) -> None:
    """Fake tensors and a real run, with the CPU's fused attention and LSTM, give the same numbers."""
    peek = Does(lambda s, *inputs: (wants(inputs[0]), s.inner(*inputs))[1], inner=case.make())
    cost = count(peek, *(zeros(*shape) for shape in case.inputs))
    assert (cost.params, cost.macs, cost.method) == (case.params, case.macs, method)


def test_fused_attention_operators_have_formulas() -> None:
    """The two fast-path operators, called by name, cost what their slow paths cost."""
    attention = nn.MultiheadAttention(16, 4, batch_first=True)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def fast_attention(module: nn.Module, x: Tensor) -> Tensor:
        a = module.a
        return torch._native_multi_head_attention(
            x, x, x, 16, 4, a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias
        )[0]

    def fast_layer(module: nn.Module, x: Tensor) -> Tensor:
        s = module.layer
        a = s.self_attn
        weights = (a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias)
        norms = (s.norm1.weight, s.norm1.bias, s.norm2.weight, s.norm2.bias)
        hidden = (s.linear1.weight, s.linear1.bias, s.linear2.weight, s.linear2.bias)
        return torch._transformer_encoder_layer_fwd(x, 16, 4, *weights, False, False, 1e-5, *norms, *hidden)

    x = zeros(2, 5, 16)
    assert count(Does(fast_attention, a=attention), x).macs == 2 * 5 * 256 * 4 + 2 * 25 * 32
    assert count(Does(fast_layer, layer=layer), x).macs == 2 * 5 * 256 * 4 + 2 * 25 * 32 + 10 * 16 * 32 * 2
