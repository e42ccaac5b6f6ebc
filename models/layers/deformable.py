"""Modulated deformable convolution."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

__all__ = ["DeformableConv", "sampled_convolution"]

_KERNEL = 3
_TAPS = _KERNEL * _KERNEL


class DeformableConv(nn.Module):
    """A 3x3 convolution that samples at learnt offsets and weighs each sample by a learnt mask.

    y(p) = sum_k w_k * m_k(p) * x(p + p_k + d_k(p)), m = 2 * sigmoid(mask(x)); offsets and masks start at zero, so
    that it begins as a plain convolution.

    Shapes: (N, in, H, W) -> (N, out, H, W).
    Parameters: 9*in*out/groups + 18*(9*in + 1) + 9*(m*in + 1), m = `mask_kernel`^2; `bias` is None until a norm is
    folded in.
    Source: Zhu et al. 2019, Deformable ConvNets v2, eq. 1.
    """

    bias: nn.Parameter | None

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1, mask_kernel: int = _KERNEL) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, _KERNEL, _KERNEL))
        self.register_parameter("bias", None)
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
        offset, mask = self.offset(x), 2.0 * torch.sigmoid(self.mask(x))
        if x.device.type == "cpu":
            y = sampled_convolution(x, offset, self.weight, mask)
            return y if self.bias is None else y + self.bias.view(-1, 1, 1)
        z: Tensor = deform_conv2d(x, offset, self.weight, self.bias, padding=_KERNEL // 2, mask=mask)
        return z


def sampled_convolution(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Compute `deform_conv2d` of a 3x3 kernel with padding 1 from `grid_sample` and one matrix product.

    The same function and gradients up to rounding. On CPUs it is several times faster, since torchvision's kernel runs
    its backward pass on one core, one value at a time; `benchmarks/deformable.py` measures by how much. Positions and
    samples are at least float32, as bfloat16 cannot name a pixel beyond the 256th; only the product is in the weight's.

    Shapes: x (N, C, H, W), offset (N, 18, H, W) as (tap, y, x), weight (out, C / groups, 3, 3), mask (N, 9, H, W)
    -> (N, out, H, W).
    """
    batch, channels, height, width = x.shape
    out, per_group = weight.shape[:2]
    groups = channels // per_group
    dtype = torch.promote_types(x.dtype, torch.float32)
    x, offset, mask = x.to(dtype), offset.to(dtype), mask.to(dtype)
    tap = torch.arange(_TAPS, device=x.device, dtype=dtype).view(1, _TAPS, 1, 1)
    dy, dx = offset.view(batch, _TAPS, 2, height, width).unbind(dim=2)
    rows = torch.arange(height, device=x.device, dtype=dtype).view(1, 1, height, 1)
    columns = torch.arange(width, device=x.device, dtype=dtype).view(1, 1, 1, width)
    y = rows + torch.floor(tap / _KERNEL) - 1 + dy
    x_at = columns + tap % _KERNEL - 1 + dx
    grid = torch.stack([(2 * x_at + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    grid = grid.view(batch, _TAPS * height, width, 2)
    samples = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    samples = samples.view(batch, channels, _TAPS, height * width) * mask.reshape(batch, 1, _TAPS, height * width)
    samples = samples.view(batch, groups, per_group * _TAPS, height * width).to(weight.dtype)
    kernel = weight.reshape(groups, out // groups, per_group * _TAPS)
    return torch.matmul(kernel, samples).view(batch, out, height, width)
