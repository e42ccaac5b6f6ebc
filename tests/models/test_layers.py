"""Layers against their formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from featherpress.models.layers.attention import CBAM, GroupedGate, SharedCBAM
from featherpress.models.layers.bifpn import BiFPN, BiFPNCell, FusionNode, same_max_pool
from featherpress.models.layers.context import SSH, DeformableContext, GroupedSSH
from featherpress.models.layers.deformable import DeformableConv, sampled_convolution
from featherpress.models.layers.heads import SeparateHeads, SharedHead
from featherpress.models.layers.shuffle import ChannelShuffle, ShuffleBottleneck

widths = st.integers(1, 24).map(lambda n: 4 * n)


def parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@given(c=widths, r=st.integers(1, 64))
@settings(max_examples=20, deadline=None)
def test_attention_formulas(c: int, r: int) -> None:
    """CBAM has 2*C*h + h + C + 100 parameters, the grouped gate 2*C where h divides C."""
    h = max(c // r, 1)
    assert parameters(CBAM(c, r)) == 2 * c * h + h + c + 100
    if c % h == 0:
        assert parameters(GroupedGate(c, r)) == 2 * c


@given(c=widths, n=st.integers(1, 3))
@settings(max_examples=10, deadline=None)
def test_pyramid_formulas(c: int, n: int) -> None:
    """A full BiFPN has n cells of 4 * (9C + C^2 + C + 2C) + 10, and laterals of 832*C + 15*C."""
    cell = 4 * (9 * c + c * c + c + 2 * c) + 10
    assert parameters(BiFPNCell(c, groups=1, bias=True)) == cell
    assert parameters(BiFPN((64, 128, 256), c, repeats=n)) == n * cell + 832 * c + 15 * c


@given(c=widths)
@settings(max_examples=10, deadline=None)
def test_context_and_head_formulas(c: int) -> None:
    """Deformable context, shuffle bottleneck and heads follow their formulas at any width."""
    assert parameters(DeformableContext(c, groups=2)) == 9 * c * c // 2 + 18 * (9 * c + 1) + 9 * (c + 1) + 2 * c
    assert parameters(ShuffleBottleneck(c, groups=2)) == c * c + 9 * c // 2 + 4 * c
    assert parameters(SeparateHeads(c, levels=3, anchors=2)) == 96 * (c + 1)
    assert parameters(SharedHead(c, anchors=2)) == 2 * (9 * c + c * c + 2 * c) + 32 * (c + 1)


def test_documented_block_sizes() -> None:
    """The blocks that MODELS lists at one width have exactly that many parameters."""
    assert parameters(SSH(64, deformable=True)) == 77_655
    assert parameters(SSH(56, deformable=True)) == 64_185
    assert parameters(GroupedSSH(32, groups=4)) == 3_872
    assert parameters(SharedHead(32, anchors=2)) == 3_808
    assert parameters(SharedCBAM((64, 128, 256), 32)) + parameters(SharedCBAM((32, 32, 32), 32)) == 1_288


def test_deformable_starts_as_plain_convolution() -> None:
    """With offsets and mask at zero, a deformable convolution is the plain one of the same weight."""
    torch.manual_seed(0)
    conv, x = DeformableConv(4, 6, groups=2), torch.randn(2, 4, 9, 7)
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, padding=1, groups=2), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("groups", "out", "size"), [(1, 12, (8, 8)), (1, 4, (8, 8)), (1, 2, (3, 7)), (2, 12, (5, 9)), (4, 4, (13, 1))]
)
def test_sampled_convolution_is_deform_conv2d(groups: int, out: int, size: tuple[int, int]) -> None:
    """Built from samples, a deformable convolution has torchvision's values and gradients, beyond the border too.

    Fewer channels out than in take the other order of sampling and multiplying.
    """
    torch.manual_seed(0)
    inputs = (
        torch.randn(2, 8, *size, requires_grad=True),
        (3 * torch.randn(2, 18, *size)).requires_grad_(),
        torch.randn(out, 8 // groups, 3, 3, requires_grad=True),
        torch.rand(2, 9, *size, requires_grad=True),
    )
    x, offset, weight, mask = inputs
    ours, theirs = sampled_convolution(*inputs), deform_conv2d(x, offset, weight, padding=1, mask=mask)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    direction = torch.randn_like(theirs)
    pairs = zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    )
    for mine, reference in pairs:
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("out", [1, 2])
def test_positions_survive_bfloat16(out: int) -> None:
    """Offsets in bfloat16 still name pixels beyond the 256th column: only values are rounded, not places."""
    torch.manual_seed(0)
    x, mask = torch.randn(1, 2, 3, 600), torch.ones(1, 9, 3, 600)
    offset, weight = torch.full((1, 18, 3, 600), 0.5), torch.randn(out, 2, 3, 3)
    low = sampled_convolution(x, offset.bfloat16(), weight, mask.bfloat16())
    torch.testing.assert_close(low, deform_conv2d(x, offset, weight, padding=1, mask=mask), rtol=1e-4, atol=1e-3)


def test_deformable_follows_its_offsets() -> None:
    """An offset of one column makes every sample come from the pixel to the right."""
    torch.manual_seed(0)
    conv, x = DeformableConv(3, 2), torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        conv.offset.bias[1::2] = 1.0
    moved = F.conv2d(F.pad(x, (1, 2, 1, 1)), conv.weight)[..., 1:]
    torch.testing.assert_close(conv(x), moved, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 2)])
def test_same_pooling_pads_like_its_source(size: tuple[int, int]) -> None:
    """Halving rounds up; an even side is padded with zeros at the end, an odd one at both ends."""
    x = -torch.ones(1, 1, *size)
    y = same_max_pool(x)
    assert y.shape[-2:] == (-(-size[0] // 2), -(-size[1] // 2))
    even = [side % 2 == 0 for side in size]
    assert y[0, 0, -1, -1] == 0
    assert y[0, 0, 0, 0] == (-1 if all(even) and min(size) > 2 else 0)


def test_shuffle_orders_undo_each_other() -> None:
    """`group_first` interleaves the groups as ShuffleNet does, and `channel_first` undoes it."""
    x = torch.arange(8.0).view(1, 8, 1, 1)
    there = ChannelShuffle(8, groups=2)
    back = ChannelShuffle(8, groups=2, order="channel_first")
    assert there(x).flatten().tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    assert torch.equal(back(there(x)), x)


def test_fusion_is_a_convex_blend() -> None:
    """Equal inputs come through the fusion scaled by no more than the epsilon, whatever the weights."""
    node = FusionNode(1, weights=2, groups=1, bias=True)
    seen: list[torch.Tensor] = []
    node.depthwise.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        node.weights.copy_(torch.tensor([3.0, 1.0]))
    x = torch.ones(2, 1, 4, 4)
    node(x, x)
    torch.testing.assert_close(seen[0], F.silu(x), rtol=1e-3, atol=1e-4)
