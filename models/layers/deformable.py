"""Modulated deformable convolution."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

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
    sampled = True
    """Whether it is computed on CPUs by `sampled_convolution`; without, by torchvision's operator everywhere."""

    def __init__(self, in_channels: int, out_channels: int, *, groups: int = 1, mask_kernel: int = _KERNEL) -> None:
        super().__init__()
        _operator()  # A counter would take what the import runs for the model's work.
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, _KERNEL, _KERNEL))
        self.register_parameter("bias", None)
        self.offset = nn.Conv2d(in_channels, 2 * _TAPS, _KERNEL, padding=_KERNEL // 2)
        self.mask = nn.Conv2d(in_channels, _TAPS, mask_kernel, padding=mask_kernel // 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the kernel as `nn.Conv2d` does, and set offsets and masks to zero."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        for tensor in (*self.offset.parameters(), *self.mask.parameters()):
            nn.init.zeros_(tensor)

    def forward(self, x: Tensor) -> Tensor:
        """Sample x where the offsets point."""
        offset, mask = self.offset(x), 2.0 * torch.sigmoid(self.mask(x))
        if self.sampled and x.device.type == "cpu":
            y = sampled_convolution(x, offset, self.weight, mask)
            return y if self.bias is None else y + self.bias.view(-1, 1, 1)
        z: Tensor = _operator()(x, offset, self.weight, self.bias, padding=_KERNEL // 2, mask=mask)
        return z


def _operator() -> Callable[..., Tensor]:
    """Import torchvision's operator: seconds, of which only models with this layer know."""
    from torchvision.ops import deform_conv2d  # noqa: PLC0415

    operator: Callable[..., Tensor] = deform_conv2d
    return operator


def sampled_convolution(x: Tensor, offset: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Compute `deform_conv2d` of a 3x3 kernel with padding 1 from `grid_sample` and one matrix product.

    The same function and gradients up to rounding. On CPUs it is several times faster, since torchvision's kernel runs
    its backward pass on one core, one value at a time; `benchmarks/deformable.py` measures by how much. Positions and
    samples are at least float32, as bfloat16 cannot name a pixel beyond the 256th; only the product is in the weight's.

    Shapes: x (N, C, H, W), offset (N, 18, H, W) as (tap, y, x), weight (out, C / groups, 3, 3), mask (N, 9, H, W)
    -> (N, out, H, W).
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    places = _places(offset.to(dtype))
    narrows = weight.shape[1] == x.shape[1] and weight.shape[0] < x.shape[1]
    apply = _project_then_sample if narrows else _sample_then_project
    return apply(x, places, weight, mask.to(dtype))


def _places(offset: Tensor) -> Tensor:
    """Turn offsets into the places of the samples as `grid_sample` names them, from -1 to 1 between the outer edges.

    Shapes: (N, 18, H, W) -> (N, 9, H, W, 2) of x, y.
    """
    batch, _, height, width = offset.shape

    def numbers(count: int) -> Tensor:
        return torch.arange(count, device=offset.device, dtype=offset.dtype)

    tap = numbers(_KERNEL).repeat_interleave(_KERNEL).view(1, _TAPS, 1, 1)
    y = (2 * (numbers(height).view(1, 1, height, 1) + tap) - 1) / height - 1
    tap = numbers(_KERNEL).repeat(_KERNEL).view(1, _TAPS, 1, 1)
    x = (2 * (numbers(width).view(1, 1, 1, width) + tap) - 1) / width - 1
    dy, dx = offset.view(batch, _TAPS, 2, height, width).unbind(dim=2)
    return torch.stack([torch.add(x, dx, alpha=2 / width), torch.add(y, dy, alpha=2 / height)], dim=-1)


def _sample_then_project(x: Tensor, places: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Sample every input channel at every tap, then multiply by the kernel: 9 * C samples a position."""
    batch, channels, height, width = x.shape
    out, per_group = weight.shape[:2]
    groups = channels // per_group
    samples = _sample(x.to(places.dtype), places.view(batch, _TAPS * height, width, 2))
    samples = samples.view(batch, channels, _TAPS, height * width) * mask.reshape(batch, 1, _TAPS, height * width)
    samples = samples.view(batch, groups, per_group * _TAPS, height * width).to(weight.dtype)
    kernel = weight.reshape(groups, out // groups, per_group * _TAPS)
    return torch.matmul(kernel, samples).view(batch, out, height, width)


def _project_then_sample(x: Tensor, places: Tensor, weight: Tensor, mask: Tensor) -> Tensor:
    """Multiply by each tap of an ungrouped kernel, then sample the products: 9 * out samples a position.

    Sampling is linear in what is sampled, and beyond the border both are zero, so that the order does not matter.
    """
    batch, channels, height, width = x.shape
    out = weight.shape[0]
    kernel = weight.reshape(out, channels, _TAPS).permute(2, 0, 1).reshape(_TAPS * out, channels)
    products = torch.matmul(kernel, x.reshape(batch, channels, height * width))
    products = products.to(places.dtype).view(batch * _TAPS, out, height, width)
    samples = _sample(products, places.view(batch * _TAPS, height, width, 2)).view(batch, _TAPS, out, height, width)
    return (samples * mask.unsqueeze(2)).sum(dim=1).to(x.dtype)


def _sample(x: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
