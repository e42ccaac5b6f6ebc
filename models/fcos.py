"""A small FCOS: torchvision's, whose own factory has a ResNet-50 alone, on a backbone of any width.

Source: Tian et al. 2019, FCOS, section 3; the backbone's blocks are those of He et al. 2016, ResNet.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.models.resnet import BasicBlock
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from featherpress.errors import UsageError

_STRIDES = (8, 16, 32)
LEAST_SCORE = 0.05
"""What a model scores less is not given as found."""
_GROUPS = 32
"""The head normalises its channels in so many groups."""


class Pyramid(nn.Module):
    """Convolutions that halve the image five times, and a pyramid of features on the last three.

    Shapes: images (N, 3, H, W) -> maps (N, out_channels, H / s, W / s) for each stride s of 8, 16 and 32.
    """

    def __init__(self, width: int, blocks: int, out_channels: int) -> None:
        super().__init__()
        widths, self.out_channels = (width, 2 * width, 3 * width, 4 * width), out_channels
        self.stem = nn.Sequential(
            Conv2dNormActivation(3, width, stride=2),
            Conv2dNormActivation(width, width, stride=2),
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                Conv2dNormActivation(before, after, stride=2), *(BasicBlock(after, after) for _ in range(blocks))
            )
            for before, after in pairwise(widths)
        )
        self.fpn = FeaturePyramidNetwork([*widths[1:]], out_channels)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return a map for each stride."""
        x, maps = self.stem(images), OrderedDict[str, Tensor]()
        for stride, stage in zip(_STRIDES, self.stages, strict=True):
            x = maps[str(stride)] = stage(x)
        found: dict[str, Tensor] = self.fpn(maps)
        return found


def fcos(num_classes: int, width: int = 32, blocks: int = 1, channels: int = 64, size: int = 320) -> FCOS:
    """Build an FCOS with fresh weights; `num_classes` counts the background, `size` is the side it looks at.

    `width` are the channels of the first stage, of which the later ones have two to four times as many, `blocks` the
    residual blocks of each, and `channels` those of the pyramid and the head.
    Errors: `UsageError` for a size, a width or channels that do not fit.
    """
    if width < 1 or blocks < 0 or channels < _GROUPS or channels % _GROUPS or size < 64:
        raise UsageError(
            f"expected a width from 1, blocks from 0, channels a multiple of {_GROUPS} and a size from 64, got "
            f"{width}, {blocks}, {channels}, {size}"
        )
    anchors = AnchorGenerator(tuple((stride,) for stride in _STRIDES), ((1.0,),) * len(_STRIDES))
    return FCOS(
        Pyramid(width, blocks, channels),
        num_classes,
        anchor_generator=anchors,
        head=FCOSHead(channels, 1, num_classes, num_convs=2),
        score_thresh=LEAST_SCORE,
        fixed_size=(size, size),
    )
