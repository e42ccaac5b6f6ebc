"""Modulated deformable convolution."""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

__all__ = ["DeformableConv"]

_KERNEL = 3
_TAPS = _KERNEL * _KERNEL


class DeformableConv(nn.Module):
    """A 3x3 convolution that samples at learnt offsets and weighs each sample by a learnt mask.

    y(p) = sum_k w_k * m_k(p) * x(p + p_k + d_k(p)), m = 2 * sigmoid(mask(x)); offsets and masks start at zero, so
    that it begins as a plain convolution.

    Shapes: (N, in, H, W) -> (N, out, H, W).
    Parameters: 9*in*out/groups + 18*(9*in + 1) + 9*(m*in + 1), m = `mask_kernel`^2.
    Source: Zhu et al. 2019, Deformable ConvNets v2, eq. 1.
    """

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1, mask_kernel: int = _KERNEL) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, _KERNEL, _KERNEL))
        self.offset = nn.Conv2d(in_channels, 2 * _TAPS, _KERNEL, padding=_KERNEL // 2)
        self.mask = nn.Conv2d(in_channels, _TAPS, mask_kernel, padding=mask_kernel // 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel as `nn.Conv2d` does, and set offsets and masks to zero."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        for conv in (self.offset, self.mask):
            nn.init.zeros_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Sample x where the offsets point."""
        mask = 2.0 * torch.sigmoid(self.mask(x))
        y: Tensor = deform_conv2d(x, self.offset(x), self.weight, padding=_KERNEL // 2, mask=mask)
        return y
