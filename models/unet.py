"""A small U-Net, for dense prediction where nothing larger is at hand."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class UNet(nn.Module):
    """Tell classes apart at every other pixel: an encoder of four levels, and a decoder that joins each again.

    Shapes: images (N, 3, H, W) of any sides from 16 -> logits (N, classes, H / 2, W / 2), rounded up.
    Source: Ronneberger et al. 2015, U-Net, with padding and BatchNorm, strides in place of pooling, nearest upsampling.
    """

    def __init__(self, *, classes: int, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.encoder = nn.ModuleList(_block(before, after, stride=2) for before, after in pairwise([3, *widths]))
        self.decoder = nn.ModuleList(_block(below + beside, beside, stride=1) for beside, below in pairwise(widths))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits at half the images' size."""
        levels: list[Tensor] = []
        for block in self.encoder:
            levels.append(block(levels[-1] if levels else images))
        joined = levels.pop()
        for block in reversed(self.decoder):
            beside = levels.pop()
            size: Sequence[int] = beside.shape[-2:]
            joined = block(torch.cat([F.interpolate(joined, size=list(size), mode="nearest"), beside], dim=1))
        logits: Tensor = self.head(joined)
        return logits


def unet(*, classes: int, width: int = 16) -> UNet:
    """Build a U-Net; `width` is the channels of its first level, doubled at each of the next three.

    Shapes: as `UNet`.
    """
    return UNet(classes=classes, width=width)


def _block(before: int, after: int, *, stride: int) -> nn.Sequential:
    """Two convolutions of 3x3, the first with a stride."""
    layers: list[nn.Module] = []
    for channels, step in ((before, stride), (after, 1)):
        layers += [nn.Conv2d(channels, after, 3, stride=step, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers)
