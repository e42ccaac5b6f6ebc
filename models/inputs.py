"""What a model of images takes and says: normalisation, size, and the names of its classes."""

import inspect
from collections.abc import Callable, Mapping, Sequence
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


def usual_shape(model: nn.Module, factory: Callable[..., Any] | None = None) -> tuple[tuple[int, ...], str] | None:
    """Return the shape of one image that a model says it takes, and in words where it says so; None where it does not.

    `input_of`, timm's `pretrained_cfg`, transformers' `config` and the weights that torchvision has for a factory say.
    """
    described, cfg, config = input_of(model), getattr(model, "pretrained_cfg", None), getattr(model, "config", None)
    if described is not None and described.size:
        return (1, 3, described.size, described.size), "as its weights say"
    if isinstance(cfg, dict) and cfg.get("input_size"):
        return (1, *cfg["input_size"]), "as its pretrained_cfg says"
    side = getattr(config, "image_size", None)
    if side and getattr(model, "main_input_name", "") == "pixel_values":
        height, width = side if isinstance(side, (list, tuple)) else (side, side)
        return (1, getattr(config, "num_channels", 3), height, width), "as its config says"
    return _torchvision_shape(factory) if getattr(factory, "__module__", "").startswith("torchvision.") else None


def _torchvision_shape(factory: Any) -> tuple[tuple[int, ...], str] | None:
    from torchvision.models import get_model_weights  # noqa: PLC0415 -- takes as long as a small count
    from torchvision.transforms._presets import VideoClassification  # noqa: PLC0415

    try:
        weights = get_model_weights(factory).DEFAULT
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    presets = getattr(weights.transforms, "keywords", {})
    side = presets.get("crop_size") or presets.get("resize_size")
    if side is None:
        return None
    sides = (side, side) if isinstance(side, int) else tuple(side)
    is_video = getattr(weights.transforms, "func", None) is VideoClassification
    frames = (max(weights.meta.get("min_temporal_size", 16), 16),) if is_video else ()
    return (1, 3, *frames, *sides), f"as {type(weights).__name__} say"


def suggest_inputs(model: nn.Module) -> list[str]:
    """Guess what `--input` of a model is to look like, by the arguments of its forward and its first layer."""
    main = getattr(model, "main_input_name", "")
    required = [
        each.name
        for each in inspect.signature(model.forward).parameters.values()
        if each.default is each.empty and each.kind in {each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD}
    ]
    names = [main] if main and main not in required else required or [main or "x"]
    return [f"{name}={_guess(name, model)}" for name in names]


def _guess(name: str, model: nn.Module) -> str:
    if "mask" in name:
        return "1x16:bool"
    if "ids" in name or "token" in name:
        return "1x16:int64"
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            return "1x16:int64"
        if isinstance(layer, nn.Linear):
            return f"1x{layer.in_features}"
        if isinstance(layer, nn.RNNBase):
            return f"1x16x{layer.input_size}"
        if isinstance(layer, nn.modules.conv._ConvNd):
            sizes = {1: "16000", 2: "224x224", 3: "16x112x112"}
            return f"1x{layer.in_channels}x{sizes[len(layer.kernel_size)]}"
    return "1x3x224x224"
