"""From images to the masks of a model, and from masks to what they have in common with the labels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.data.examples import ExampleDataset, readable
from featherpress.compress.data.sources.masks import IGNORED
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps
from featherpress.errors import UsageError
from featherpress.models.inputs import ModelInput

_SHOWN = 6
"""Of so many images, spread over the data set, the predicted masks are kept, to look at."""
_TORCHVISION = {"out": "logits", "aux": "auxiliary"}


def name_logits(raw: Any) -> dict[str, Tensor]:
    """Return a model's logits as `logits` and, where it has some, `auxiliary`, as torchvision's models give them.

    Errors: `UsageError` for a dictionary without `out`.
    """
    if not isinstance(raw, Mapping):
        return {"logits": raw}
    if "out" not in raw:
        raise UsageError(f"expected logits, or a dictionary with `out`, got one with {', '.join(map(str, raw))}")
    return {name: raw[key] for key, name in _TORCHVISION.items() if key in raw}


def resize_logits(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Interpolate logits to a size, height and width; shapes: (N, C, h, w) -> (N, C, *size)."""
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@torch.inference_mode()
def predict(model: nn.Module, image: Tensor, *, takes: ModelInput, long_side: int = 0, zoom: float = 1.0) -> Tensor:
    """Return the logits for one image at its own size; the model should be in eval mode.

    `long_side` is the scale at test, the longer side in pixels, 0 for the image as it is; a model that takes larger
    images than others sees them larger by `zoom`.

    Shapes: uint8 RGB (3, H, W) -> (C, H, W).
    """
    height, width = image.shape[-2:]
    inputs = image[None].to(next(model.parameters()).device).float() / 255
    scale = zoom * (long_side / max(height, width) if long_side else 1.0)
    if scale != 1:
        size = (max(round(height * scale), 1), max(round(width * scale), 1))
        inputs = F.interpolate(inputs, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
    return resize_logits(name_logits(model(takes.normalize(inputs)))["logits"].float(), (height, width))[0]


def measure_masks(
    model: nn.Module,
    dataset: ExampleDataset,
    chosen: Sequence[int],
    *,
    takes: ModelInput,
    classes: Sequence[str],
    long_side: int = 0,
    zoom: float = 1.0,
    label: str = "evaluating",
) -> MaskOverlaps:
    """Compare a model's masks with those of some images, one at a time, in eval mode; its own mode is restored.

    Errors: `DataError` where no image can be read; those that cannot are left out with a warning.
    """
    rows: dict[str, list[Any]] = {"names": [], "intersections": [], "unions": [], "labelled": []}
    confusion = torch.zeros(len(classes), len(classes), dtype=torch.int64)
    wanted = {chosen[int(place)] for place in np.linspace(0, len(chosen) - 1, min(_SHOWN, len(chosen))).round()}
    shown = {}
    with evaluating(model):
        for index, example in readable(dataset, chosen, label=label):
            logits = predict(model, example.image, takes=takes, long_side=long_side, zoom=zoom)
            mask = logits.argmax(dim=0).cpu()
            table = _confusion(mask, example.target["masks"], len(classes))
            confusion += table
            rows["names"].append(example.name)
            rows["intersections"].append(table.diagonal())
            rows["unions"].append(table.sum(dim=0) + table.sum(dim=1) - table.diagonal())
            rows["labelled"].append(table.sum(dim=1))
            if index in wanted:
                shown[example.name] = mask.to(torch.uint8).numpy()
    names = tuple(rows.pop("names"))
    tables: dict[str, Any] = {name: torch.stack(each).numpy() for name, each in rows.items()}
    return MaskOverlaps(names=names, classes=tuple(classes), confusion=confusion.numpy(), shown=shown, **tables)


def _confusion(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Count the labelled pixels of an image by their label and the model's class, (C, C)."""
    counted = labels != IGNORED
    pairs = labels[counted].long() * classes + predicted[counted]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)
