"""Detection heads: boxes, class logits and landmarks for each prior."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from featherpress.models.layers.convolution import ConvNorm

Detections = tuple[Tensor, Tensor, Tensor]

BOX, CLASSES, LANDMARKS = 4, 2, 10


def _per_prior(*outputs: Tensor) -> Detections:
    """Lay each (N, anchors * values, H, W) out as (N, H * W * anchors, values): row, column, size order."""
    boxes, logits, landmarks = (
        x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)
        for x, values in zip(outputs, (BOX, CLASSES, LANDMARKS), strict=True)
    )
    return boxes, logits, landmarks


def _join(levels: Sequence[Detections]) -> Detections:
    boxes, logits, landmarks = (torch.cat(parts, dim=1) for parts in zip(*levels, strict=True))
    return boxes, logits, landmarks


class SeparateHeads(nn.Module):
    """One 1x1 convolution per level and output: nine for three levels.

    Shapes: L tensors (N, C, H_l, W_l) -> (N, P, 4), (N, P, 2), (N, P, 10) with P = anchors * sum H_l * W_l.
    Parameters: 16 * anchors * L * (C + 1).
    Source: Deng et al. 2020, RetinaFace.
    """

    def __init__(self, channels: int, *, levels: int, anchors: int) -> None:
        super().__init__()

        def branch(values: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(channels, anchors * values, 1) for _ in range(levels))

        self.classes, self.boxes, self.landmarks = branch(CLASSES), branch(BOX), branch(LANDMARKS)

    def forward(self, features: list[Tensor]) -> Detections:
        """Predict at every level and join the levels."""
        return _join(
            [
                _per_prior(box(x), cls(x), landmark(x))
                for x, cls, box, landmark in zip(features, self.classes, self.boxes, self.landmarks, strict=True)
            ]
        )


class SharedHead(nn.Module):
    """A trunk of two depthwise-separable convolutions shared by the three outputs of a level.

    Shapes: (N, C, H, W) -> (N, P, 4), (N, P, 2), (N, P, 10) with P = anchors * H * W.
    Parameters: 2 * (9*C + C^2 + 2*C) + 16 * anchors * (C + 1); at 32 with 2 anchors 3,808.
    """

    def __init__(self, channels: int, *, anchors: int) -> None:
        super().__init__()
        trunk: list[nn.Module] = []
        for _ in range(2):
            trunk += [
                nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
                ConvNorm(channels, channels, 1, activation=nn.ReLU()),
            ]
        self.trunk = nn.Sequential(*trunk)
        self.boxes = nn.Conv2d(channels, anchors * BOX, 1)
        self.classes = nn.Conv2d(channels, anchors * CLASSES, 1)
        self.landmarks = nn.Conv2d(channels, anchors * LANDMARKS, 1)

    def forward(self, x: Tensor) -> Detections:
        """Predict at one level."""
        x = self.trunk(x)
        return _per_prior(self.boxes(x), self.classes(x), self.landmarks(x))


class SharedHeads(nn.ModuleList):
    """One `SharedHead` per level.

    Shapes: as `SeparateHeads`.
    """

    def __init__(self, channels: int, *, levels: int, anchors: int) -> None:
        super().__init__(SharedHead(channels, anchors=anchors) for _ in range(levels))

    def forward(self, features: list[Tensor]) -> Detections:
        """Predict at every level and join the levels."""
        return _join([head(x) for head, x in zip(self, features, strict=True)])
