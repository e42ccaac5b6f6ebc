"""Detections drawn on the image they were found in."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_keypoints

from featherpress.compress.evaluation.detections import Detections

__all__ = ["draw_detections", "save_drawing"]

_BOX = (230, 159, 0)
_POINT = (86, 180, 233)


def draw_detections(image: Tensor, found: Detections) -> Tensor:
    """Draw boxes with their scores and the five landmarks.

    Shapes: (3, H, W) uint8 RGB -> the same.
    """
    if not len(found):
        return image
    width = max(round(max(image.shape[-2:]) / 320), 1)
    labels = [f"{score:.2f}" for score in found.scores]
    boxes = torch.from_numpy(np.ascontiguousarray(found.boxes))
    drawn = draw_bounding_boxes(image, boxes, labels=labels, colors=_BOX, width=width)
    points = torch.from_numpy(np.ascontiguousarray(found.landmarks)).view(-1, 5, 2)
    result: Tensor = draw_keypoints(drawn, points, colors=_POINT, radius=width)
    return result


def save_drawing(image: Tensor, found: Detections, path: Path) -> None:
    """Draw into a PNG file, which appears whole or not at all; its folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    to_pil_image(draw_detections(image, found)).save(partial, format="PNG")
    partial.replace(path)
