"""The weighted bidirectional feature pyramid over three levels, full and light."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.models.layers.convolution import require_divisible

_NORM_EPS = 1e-3
_NORM_MOMENTUM = 0.01
_FUSION_EPS = 1e-4


def same_max_pool(x: Tensor) -> Tensor:
    """Halve a map by a 3x3 stride-2 maximum with "same" padding in zeros, the odd pixel at the right and bottom.

    Shapes: (N, C, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).
    """
    height, width = x.shape[-2:]
    return F.max_pool2d(F.pad(x, (width % 2, 1, height % 2, 1)), kernel_size=3, stride=2)


class FusionNode(nn.Module):
    """Blend inputs by learnt non-negative weights, then swish and a depthwise-separable convolution.

    w_i = relu(a_i) / (sum_j relu(a_j) + 1e-4);  y = BN(pointwise(depthwise(swish(sum_i w_i x_i)))).

    Shapes: up to `weights` tensors (N, C, H, W) -> (N, C, H, W).
    Parameters: 9*C + C^2/groups + 2*C, C more with a bias, and `weights` scalars.
    Source: Tan, Pang, Le 2020, EfficientDet, section 3.3 (fast normalised fusion).
    """

    def __init__(self, channels: int, *, weights: int, groups: int, bias: bool) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.ones(weights))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(channels, eps=_NORM_EPS, momentum=_NORM_MOMENTUM)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Fuse the inputs; a weight beyond their number still takes part in the normalisation."""
        weights = F.relu(self.weights)
        weights = weights / (weights.sum() + _FUSION_EPS)
        parts: list[Any] = [x * weights[number] for number, x in enumerate(inputs)]
        y: Tensor = self.norm(self.pointwise(self.depthwise(F.silu(sum(parts)))))
        return y


class BiFPNCell(nn.Module):
    """One top-down and one bottom-up pass over P3, P4 and P5.

    The fifth node's third weight has no input of its own: the published model carries it, so it is counted.

    Shapes: three tensors (N, C, H_l, W_l), twice -> three tensors of the same shapes.
    Parameters: four nodes, 2 + 2 + 3 + 3 fusion weights.
    Source: Tan, Pang, Le 2020, EfficientDet, fig. 3.
    """

    def __init__(self, channels: int, *, groups: int, bias: bool) -> None:
        super().__init__()
        self.top_down_p4 = FusionNode(channels, weights=2, groups=groups, bias=bias)
        self.top_down_p3 = FusionNode(channels, weights=2, groups=groups, bias=bias)
        self.bottom_up_p4 = FusionNode(channels, weights=3, groups=groups, bias=bias)
        self.bottom_up_p5 = FusionNode(channels, weights=3, groups=groups, bias=bias)

    def forward(self, top_down: list[Tensor], bottom_up: list[Tensor]) -> list[Tensor]:
        """Pass down from `top_down`'s levels, then up, where P4 and P5 of `bottom_up` enter again."""
        p3, p4, p5 = top_down
        middle = self.top_down_p4(p4, F.interpolate(p5, size=p4.shape[-2:], mode="nearest"))
        out3 = self.top_down_p3(p3, F.interpolate(middle, size=p3.shape[-2:], mode="nearest"))
        out4 = self.bottom_up_p4(bottom_up[1], middle, same_max_pool(out3))
        out5 = self.bottom_up_p5(bottom_up[2], same_max_pool(out4))
        return [out3, out4, out5]


def _lateral(in_channels: int, out_channels: int, *, bias: bool) -> nn.Sequential:
    norm = nn.BatchNorm2d(out_channels, eps=_NORM_EPS, momentum=_NORM_MOMENTUM)
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=bias), norm)


class BiFPN(nn.Module):
    """Lateral 1x1 convolutions to a common width, then `repeats` cells.

    `light` leaves out every bias and the second set of laterals, which P4 and P5 otherwise get for the bottom-up
    pass of the first cell, and splits the pointwise convolutions into `groups`.

    Shapes: three tensors (N, in_l, H_l, W_l) -> three tensors (N, C, H_l, W_l).
    Parameters: repeats * cell + sum over laterals of (in_l * C + 2*C, C more with a bias).
    Source: Tan, Pang, Le 2020, EfficientDet; FeatherFace (Kim, Jung, Kim 2025) for three levels.
    """

    def __init__(
        self, in_channels: tuple[int, int, int], channels: int, *, repeats: int, groups: int = 1, light: bool = False
    ) -> None:
        super().__init__()
        require_divisible(channels, groups, block="BiFPN's grouped pointwise convolution")
        self.laterals = nn.ModuleList(_lateral(width, channels, bias=not light) for width in in_channels)
        again = () if light else in_channels[1:]
        self.bottom_up_laterals = nn.ModuleList(_lateral(width, channels, bias=True) for width in again)
        self.cells = nn.ModuleList(BiFPNCell(channels, groups=groups, bias=not light) for _ in range(repeats))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Bring the levels to one width and mix them in both directions."""
        top_down = [lateral(x) for lateral, x in zip(self.laterals, features, strict=True)]
        bottom_up = top_down
        if self.bottom_up_laterals:
            again = [lateral(x) for lateral, x in zip(self.bottom_up_laterals, features[1:], strict=True)]
            bottom_up = [top_down[0], *again]
        for cell in self.cells:
            top_down = bottom_up = cell(top_down, bottom_up)
        return top_down
