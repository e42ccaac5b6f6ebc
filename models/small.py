"""A plain convolutional classifier: for small images, and for trying things out in seconds."""

from torch import nn

_STAGES = 3


def small_classifier(*, num_classes: int = 10, width: int = 16) -> nn.Module:
    """Build three stages of two 3 x 3 convolutions, twice as wide and half the size each, a mean, and logits.

    Shapes: images (N, 3, H, W) of 8 pixels a side or more -> logits (N, num_classes).
    """
    stages, inner = [], 3
    for number in range(_STAGES):
        outer = width * 2**number
        stages.append(nn.Sequential(*_layer(inner, outer, stride=1), *_layer(outer, outer, stride=2)))
        inner = outer
    return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inner, num_classes))


def _layer(inner: int, outer: int, *, stride: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
    return conv, nn.BatchNorm2d(outer), nn.ReLU(inplace=True)
