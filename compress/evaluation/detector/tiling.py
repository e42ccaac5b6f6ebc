"""Detection in large photographs, tile by tile, at full resolution and in little memory."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from featherpress.compress.evaluation.detections import Detections
from featherpress.compress.evaluation.detector.inference import detect_batch, detect_faces
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.errors import UsageError
from featherpress.models import Detector

_MARGIN = 0.1
"""A face that ends nearer to the cut than this share of its side may go on beyond it."""

_MIN_MARGIN = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """Square tiles of `size` pixels, of which neighbours share `overlap` or a little more.

    A face of up to 0.8 times the overlap lies well inside one tile at least.
    Errors: UsageError for tiles smaller than a model sees, and for an overlap of more than half a tile.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        if not 64 <= self.size <= 16384:
            raise UsageError(f"a tile is 64 to 16384 pixels a side, got {self.size}")
        if not 0 <= self.overlap <= self.size // 2:
            raise UsageError(f"an overlap is 0 to half a tile, {self.size // 2} pixels here, got {self.overlap}")

    def starts(self, length: int) -> list[int]:
        """Return where tiles begin along a side, evenly spaced; the last tile ends at the edge."""
        count = max(math.ceil((length - self.overlap) / (self.size - self.overlap)), 1)
        return [round(start) for start in np.linspace(0, max(length - self.size, 0), count).tolist()]

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the left and top of every tile, row by row."""
        return [(left, top) for top in self.starts(height) for left in self.starts(width)]


def detect_tiled(
    model: Detector,
    image: Tensor,
    *,
    settings: DetectionSettings,
    tiling: Tiling,
    batch: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> Detections:
    """Find the faces of a large image in its tiles, and in the whole of it at the size of one tile.

    A detection that ends at a tile's inner edge may be a cut face. It is left to the neighbour that sees more of it
    or, if it is larger than the overlap, to the whole image. The rest goes into one suppression. TOP_K holds for
    each tile. `advance` is called for every tile that is done.

    Shapes: image (3, H, W) uint8 RGB -> detections in its pixels, by falling score.
    Errors: UsageError for a test scale, as tiles are not rescaled.
    """
    if settings.long_side:
        raise UsageError("tiles are not rescaled: leave the long side out")
    height, width = image.shape[-2:]
    corners = tiling.corners(height, width)
    if len(corners) == 1:
        detections = detect_faces(model, image, settings=settings)
        advance()
        return detections
    parts = [detect_faces(model, image, settings=replace(settings, long_side=tiling.size))]
    for first in range(0, len(corners), batch):
        group = corners[first : first + batch]
        tiles = [image[:, top : top + tiling.size, left : left + tiling.size] for left, top in group]
        for each, (left, top) in zip(detect_batch(model, torch.stack(tiles), settings=settings), group, strict=True):
            parts.append(_whole_ones(each, left=left, top=top, size=tiling.size, height=height, width=width))
            advance()
    return merge_detections(parts, iou=settings.nms_iou)


def _whole_ones(detections: Detections, *, left: int, top: int, size: int, height: int, width: int) -> Detections:
    """Move detections of a tile to the image's coordinates, without those that the tile's inner edges may cut."""
    right, bottom = min(left + size, width), min(top + size, height)
    boxes = detections.boxes + np.array([left, top, left, top], dtype=np.float32)
    margin = np.maximum(_MARGIN * (boxes[:, 2:] - boxes[:, :2]), _MIN_MARGIN)
    cut = (
        ((left > 0) & (boxes[:, 0] < left + margin[:, 0]))
        | ((top > 0) & (boxes[:, 1] < top + margin[:, 1]))
        | ((right < width) & (boxes[:, 2] > right - margin[:, 0]))
        | ((bottom < height) & (boxes[:, 3] > bottom - margin[:, 1]))
    )
    landmarks = detections.landmarks + np.array([left, top] * 5, dtype=np.float32)
    return Detections(boxes=boxes[~cut], scores=detections.scores[~cut], landmarks=landmarks[~cut])


def merge_detections(parts: list[Detections], *, iou: float) -> Detections:
    """Merge the detections of several passes over an image; of overlapping ones the better scored stays."""
    boxes, scores, landmarks = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("boxes", "scores", "landmarks")
    )
    rows = nms(torch.from_numpy(boxes), torch.from_numpy(scores), iou).numpy()
    return Detections(boxes=boxes[rows], scores=scores[rows], landmarks=landmarks[rows])
