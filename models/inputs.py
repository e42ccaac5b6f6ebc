"""What a model of images takes and says: normalisation, size, and the names of its classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's colours, RGB from 0 to 1, as torchvision and timm have them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInput:
    """The images that a model takes, and the classes that it tells apart.

    `target` and `settings` are what it was built of, where a recipe did.
    Units: `mean` and `std` of RGB from 0 to 1; `size` the side in pixels, 0 for any.
    """

    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]
    size: int = 0
    classes: tuple[str, ...] = ()
    target: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    def normalize(self, images: Tensor) -> Tensor:
        """Turn images of uint8, or floats from 0 to 1, into what the model takes; shapes: (N, 3, H, W) -> the same."""
        floats = images.float() / 255 if images.dtype == torch.uint8 else images
        return (floats - _column(self.mean, floats)) / _column(self.std, floats)

    def prepare(self, images: Tensor) -> Tensor:
        """Turn images into what the model takes, at its size; shapes: (N, 3, H, W) -> (N, 3, S, S)."""
        return self.from_normalized(self.normalize(images), self)

    def from_normalized(self, images: Tensor, other: "ModelInput") -> Tensor:
        """Turn what another model takes into what this one does, at its size; shapes: (N, 3, H, W) -> (N, 3, S, S)."""
        if (self.mean, self.std) != (other.mean, other.std):
            images = self.normalize(images * _column(other.std, images) + _column(other.mean, images))
        if self.size and self.size != images.shape[-1]:
            shape = (self.size, self.size)
            images = nn.functional.interpolate(images, shape, mode="bilinear", align_corners=False, antialias=True)
        return images


def remember_input(model: nn.Module, described: ModelInput) -> None:
    """Note on a model what it takes; copies keep it, its weights do not hold it."""
    model.__dict__["_input"] = described


def input_of(model: nn.Module) -> ModelInput | None:
    """Return what a model takes, as it was noted; None for any other model."""
    described: ModelInput | None = model.__dict__.get("_input")
    return described


def normalization_of(model: nn.Module) -> tuple[Any, Any]:
    """Return mean and deviation as timm's `pretrained_cfg` says them, else ImageNet's."""
    described = getattr(model, "pretrained_cfg", None)
    if isinstance(described, dict) and "mean" in described and "std" in described:
        return tuple(described["mean"]), tuple(described["std"])
    return IMAGENET


def _column(values: Sequence[float], like: Tensor) -> Tensor:
    return like.new_tensor(values).view(3, 1, 1)
