"""Context modules: the receptive field of a level, widened before the heads."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.models.layers.convolution import ConvNorm, require_divisible
from featherpress.models.layers.deformable import DeformableConv


class DeformableContext(nn.Sequential):
    """One grouped modulated deformable 3x3, BatchNorm, relu.

    Shapes: (N, C, H, W) -> (N, C, H, W).
    Parameters: 9*C^2/g + 18*(9*C + 1) + 9*(C + 1) + 2*C.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        require_divisible(channels, groups, block="the deformable context's grouped convolution")
        conv = DeformableConv(channels, channels, groups=groups, mask_kernel=1)
        super().__init__(conv, nn.BatchNorm2d(channels), nn.ReLU())


class SSH(nn.Module):
    """Three branches of growing receptive field (3x3, 5x5, 7x7) from five 3x3 convolutions, concatenated, relu.

    Shapes: (N, C, H, W) -> (N, C, H, W), C divisible by 4.
    Parameters, deformable: at 64 77,655; at 56 64,185.
    Source: Najibi et al. 2017, SSH, fig. 3; deformable in FeatherFace (Kim, Jung, Kim 2025).
    """

    def __init__(self, channels: int, *, deformable: bool) -> None:
        super().__init__()
        require_divisible(channels, 4, block="SSH")
        half, quarter = channels // 2, channels // 4
        leak = 0.1 if channels <= 64 else 0.0

        def conv(in_channels: int, out_channels: int, *, activate: bool) -> nn.Sequential:
            activation = nn.LeakyReLU(leak) if activate else None
            if not deformable:
                return ConvNorm(in_channels, out_channels, 3, activation=activation)
            layers = [DeformableConv(in_channels, out_channels), nn.BatchNorm2d(out_channels)]
            return nn.Sequential(*layers, *([activation] if activation else []))

        self.branch3 = conv(channels, half, activate=False)
        self.stem5 = conv(channels, quarter, activate=True)
        self.branch5 = conv(quarter, quarter, activate=False)
        self.stem7 = conv(quarter, quarter, activate=True)
        self.branch7 = conv(quarter, quarter, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        """See each position at three scales."""
        stem = self.stem5(x)
        return F.relu(torch.cat([self.branch3(x), self.branch5(stem), self.branch7(self.stem7(stem))], dim=1))


class GroupedSSH(nn.Module):
    """SSH whose 3x3 convolutions are grouped and whose deeper branches start from a 1x1 to half the width.

    Shapes: (N, C, H, W) -> (N, C, H, W), C divisible by 4 and by 4 * groups / 2.
    Parameters: at 32 with 4 groups 3,872.
    """

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        require_divisible(channels, 4 * groups, block="GroupedSSH's quarter-width branches")
        half, quarter = channels // 2, channels // 4
        self.reduce = ConvNorm(channels, half, 1, activation=nn.ReLU())
        self.branch3 = ConvNorm(channels, half, 3, groups=groups)
        self.stem5 = ConvNorm(half, half, 3, groups=groups, activation=nn.ReLU())
        self.branch5 = ConvNorm(half, quarter, 3, groups=groups)
        self.stem7 = ConvNorm(half, half, 3, groups=groups, activation=nn.ReLU())
        self.branch7 = ConvNorm(half, quarter, 3, groups=groups)
        self.mix = ConvNorm(channels, channels, 1, groups=groups, activation=nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """See each position at three scales, then mix within the groups."""
        stem = self.stem5(self.reduce(x))
        scales = [self.branch3(x), self.branch5(stem), self.branch7(self.stem7(stem))]
        y: Tensor = self.mix(F.relu(torch.cat(scales, dim=1)))
        return y
