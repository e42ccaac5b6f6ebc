"""A few validation images with what each model found on them, for the report's strip."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import to_pil_image

from featherpress.compress.data import FaceDataset
from featherpress.compress.evaluation import Detections, DetectionSet, Truth, match_image
from featherpress.files import write_json

_LONG_SIDE = 480
_FACES = range(2, 13)


def write_gallery(
    folder: Path,
    dataset: FaceDataset,
    predictions: Mapping[str, DetectionSet],
    *,
    images: int = 6,
    threshold: float = 0.5,
) -> None:
    """Save `images` pictures, evenly spaced among those with 2 to 12 faces, and every model's detections on them.

    `predictions` has the same images for every role; detections below `threshold` are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = {dataset.name(index): index for index in range(len(dataset))}
    first = next(iter(predictions.values()))
    rows = []
    for number, row in enumerate(_spread(first.truths, images)):
        image = dataset[positions[first.names[row]]].image
        height, width = image.shape[-2:]
        scale = min(1.0, _LONG_SIDE / max(height, width))
        small = F.resize(image, [round(height * scale), round(width * scale)])
        name = f"{number:03d}.jpg"
        to_pil_image(small).save(folder / name, quality=90)
        truth = first.truths[row]
        rows.append(
            {
                "file": name,
                "width": small.shape[-1],
                "height": small.shape[-2],
                "truth": _truth_rows(truth, scale),
                **{
                    role: _detection_rows(each.detections[row], truth, scale, threshold)
                    for role, each in predictions.items()
                },
            }
        )
    write_json(folder / "gallery.json", {"schema": "featherpress.gallery/1", "threshold": threshold, "images": rows})


def _spread(truths: Sequence[Truth], images: int) -> list[int]:
    rows = [row for row, truth in enumerate(truths) if int((~truth.ignored).sum()) in _FACES]
    rows = rows or list(range(len(truths)))
    picked = np.linspace(0, len(rows) - 1, min(images, len(rows))).round().astype(int)
    return [rows[position] for position in picked]


def _truth_rows(truth: Truth, scale: float) -> list[dict[str, Any]]:
    pairs = zip((truth.boxes * scale).tolist(), truth.ignored.tolist(), strict=True)
    return [{"box": _rounded(box), "ignored": ignored} for box, ignored in pairs]


def _detection_rows(detections: Detections, truth: Truth, scale: float, threshold: float) -> list[dict[str, Any]]:
    """Give each detection with whether it is a hit; those that met a face to ignore are left out."""
    hits, counted = match_image(detections, truth)
    shown = np.flatnonzero((detections.scores >= threshold) & counted)
    return [
        {
            "box": _rounded((detections.boxes[row] * scale).tolist()),
            "score": round(float(detections.scores[row]), 4),
            "landmarks": _rounded((detections.landmarks[row] * scale).tolist()),
            "hit": bool(hits[row]),
        }
        for row in shown
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]
