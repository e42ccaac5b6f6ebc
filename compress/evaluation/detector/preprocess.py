"""Images as a detector takes them: of the wanted size, and not too small."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def scale_to(images: Tensor, long_side: int) -> Tensor:
    """Scale images until their longer side has so many pixels; 0 leaves them as they are; shapes: (..., H, W)."""
    sides = images.shape[-2:]
    scale = long_side / max(sides) if long_side else 1.0
    return images if scale == 1.0 else F.resize(images, [max(round(side * scale), 1) for side in sides])


def pad_to(inputs: Tensor, least: int) -> Tensor:
    """Give normalised images so many pixels a side at least; beyond them a model sees its mean; shapes: (..., H, W)."""
    rows, columns = inputs.shape[-2:]
    return torch.nn.functional.pad(inputs, (0, max(least - columns, 0), 0, max(least - rows, 0)))
