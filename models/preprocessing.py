"""Normalisation of images for the models."""

import torch
from torch import Tensor

MEAN_BGR = (104.0, 117.0, 123.0)


def normalize(images: Tensor) -> Tensor:
    """Normalise RGB images as for the checkpoints' training: BGR, 0..255, minus the mean.

    Shapes: (N, 3, H, W) uint8 or float RGB in 0..255 -> (N, 3, H, W) float32.
    """
    mean = torch.tensor(MEAN_BGR, device=images.device).view(1, 3, 1, 1)
    return images.flip(1).float() - mean
