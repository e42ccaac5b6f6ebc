"""The backbone: MobileNetV1 at a quarter of its width."""

from itertools import pairwise

from torch import Tensor, nn

from featherpress.models.layers.convolution import ConvNorm

TAP_CHANNELS = (64, 128, 256)

_LEAK = 0.1
_STAGE1 = (8, 16, 32, 32, 64, 64)
_STAGE1_STRIDES = (1, 2, 1, 2, 1)
_STAGE2 = (64, 128, 128, 128, 128, 128, 128)
_STAGE3 = (128, 256, 256)


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Stack a depthwise 3x3 and a pointwise convolution, each with BatchNorm and a leaky relu."""
    return nn.Sequential(
        *ConvNorm(in_channels, in_channels, 3, stride=stride, groups=in_channels, activation=nn.LeakyReLU(_LEAK)),
        *ConvNorm(in_channels, out_channels, 1, activation=nn.LeakyReLU(_LEAK)),
    )


def _halving_stage(widths: tuple[int, ...]) -> nn.Sequential:
    blocks = [_separable(a, b, stride=2 if i == 0 else 1) for i, (a, b) in enumerate(pairwise(widths))]
    return nn.Sequential(*blocks)


class MobileNetV1Quarter(nn.Module):
    """MobileNetV1 x 0.25 without its classifier, tapped at strides 8, 16 and 32.

    Shapes: (N, 3, H, W) -> [(N, 64, H/8, W/8), (N, 128, H/16, W/16), (N, 256, H/32, W/32)], sides rounded up.
    Parameters: 213,072.
    Source: Howard et al. 2017, MobileNets; the leaky relu is RetinaFace's (Deng et al. 2020).
    """

    def __init__(self) -> None:
        super().__init__()
        stem = ConvNorm(3, _STAGE1[0], 3, stride=2, activation=nn.LeakyReLU(_LEAK))
        steps = zip(pairwise(_STAGE1), _STAGE1_STRIDES, strict=True)
        self.stage1 = nn.Sequential(stem, *(_separable(a, b, stride) for (a, b), stride in steps))
        self.stage2 = _halving_stage(_STAGE2)
        self.stage3 = _halving_stage(_STAGE3)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the three taps, finest first."""
        p3 = self.stage1(images)
        p4 = self.stage2(p3)
        return [p3, p4, self.stage3(p4)]
