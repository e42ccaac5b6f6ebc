"""Detections drawn on the image they were found in."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image
from torchvision.utils import draw_bounding_boxes, draw_keypoints

from featherpress.compress.evaluation.detections import Detections
from featherpress.files import replacing, resolve

_MARK = "featherpress.photograph"
_BOX = (230, 159, 0)
_POINT = (86, 180, 233)


def draw_detections(image: Tensor, detections: Detections) -> Tensor:
    """Draw boxes, the five landmarks, and over each box its score, so that the face stays in sight.

    Shapes: (3, H, W) uint8 RGB -> the same.
    """
    if not len(detections):
        return image
    longer = max(image.shape[-2:])
    width = max(round(longer / 640), 1)
    boxes = torch.from_numpy(np.ascontiguousarray(detections.boxes))
    drawn = draw_bounding_boxes(image, boxes, colors=_BOX, width=width)
    points = torch.from_numpy(np.ascontiguousarray(detections.landmarks)).view(-1, 5, 2)
    drawn = draw_keypoints(drawn, points, colors=_POINT, radius=width)
    picture = to_pil_image(drawn)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=max(9, longer / 64))
    for (left, top, _, bottom), score in zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True):
        text = f"{score:.2f}"
        height = draw.textbbox((0, 0), text, font=font)[3] + 2
        place = (max(left, 0.0), top - height if top >= height else bottom)
        draw.rectangle(draw.textbbox(place, text, font=font), fill=_BOX)
        draw.text(place, text, fill="black", font=font)
    labelled: Tensor = pil_to_tensor(picture)
    return labelled


def save_drawing(image: Tensor, detections: Detections, path: Path, *, of: Path) -> None:
    """Draw into a PNG file, which appears whole or not at all; its folder is made where it is missing.

    The file keeps a hash of the photograph's path, by which `may_replace` knows it again.
    """
    about = PngInfo()
    about.add_text(_MARK, _mark(of))
    with replacing(path) as temporary:
        to_pil_image(draw_detections(image, detections)).save(temporary, format="PNG", pnginfo=about)


def may_replace(path: Path, photograph: Path) -> bool:
    """Return whether a drawing of a photograph may go there: nothing is there, or an earlier drawing of the same."""
    if not path.is_file():
        return True
    try:
        with Image.open(path) as drawn:
            return drawn.info.get(_MARK) == _mark(photograph)
    except (OSError, SyntaxError, ValueError):
        return False


def _mark(photograph: Path) -> str:
    return hashlib.sha256(str(resolve(photograph)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
