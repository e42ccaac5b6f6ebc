"""Classifiers of a few hundred weights, so that a whole distillation takes a second."""

from torch import nn


def net(*, width: int = 8, classes: int = 3) -> nn.Module:
    """Build two strided convolutions with normalisation, a mean, and logits."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, width, 5, stride=4, padding=2), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, width, 3, stride=4, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


def tied(*, classes: int = 3) -> nn.Module:
    """Build the same with one block under three names."""
    model = net(classes=classes)
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model[1].extend([block] * 3)  # type: ignore[operator, union-attr]
    return model
