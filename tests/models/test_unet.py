"""The small U-Net."""

import pytest
import torch
from torch import nn

from featherpress.models.unet import unet


@pytest.mark.parametrize(("height", "width"), [(32, 32), (45, 70), (16, 17)])
def test_any_size(height: int, width: int) -> None:
    """Logits are at half the image's size, rounded up, whatever its sides."""
    with torch.no_grad():
        logits = unet(classes=5, width=4)(torch.zeros(2, 3, height, width))
    assert logits.shape == (2, 5, (height + 1) // 2, (width + 1) // 2)


def test_its_width() -> None:
    """Widths double from level to level, and each decoder joins what came before at its level."""
    model = unet(classes=3, width=4)
    convolutions = [each for each in model.encoder.modules() if isinstance(each, nn.Conv2d)]
    assert [each.out_channels for each in convolutions] == [4, 4, 8, 8, 16, 16, 32, 32]
    first = [next(each for each in block.modules() if isinstance(each, nn.Conv2d)) for block in model.decoder]
    assert [each.in_channels for each in first] == [4 + 8, 8 + 16, 16 + 32]
