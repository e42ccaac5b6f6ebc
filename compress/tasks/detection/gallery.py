"""The gallery: a few validation images with each model's detections, for the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import to_pil_image

from featherpress.compress.data import SampleDataset
from featherpress.compress.evaluation import Detections, DetectionSet, Truth, match, match_image
from featherpress.compress.evaluation.metrics.average_precision import best_threshold
from featherpress.records.run import Gallery, Picture, Prediction
from featherpress.records.run import Truth as Face

_LONG_SIDE = 480
_FACES = range(2, 13)


def write_gallery(
    folder: Path, dataset: SampleDataset, predictions: Mapping[str, DetectionSet], *, images: int = 6
) -> None:
    """Save `images` pictures, evenly spaced among those with 2 to 12 faces, and every model's detections on them.

    `predictions` has the same images for every role; detections below the score of the role's best F1 are left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    positions = {dataset.name(index): index for index in range(len(dataset))}
    first = next(iter(predictions.values()))
    thresholds = {role: best_threshold(match(each.detections, each.truths)) for role, each in predictions.items()}
    pictures = []
    for number, row in enumerate(_spread(first.truths, images)):
        image = dataset[positions[first.names[row]]].image
        height, width = image.shape[-2:]
        scale = min(1.0, _LONG_SIDE / max(height, width))
        small = F.resize(image, [round(height * scale), round(width * scale)])
        name = f"{number:03d}.jpg"
        to_pil_image(small).save(folder / name, quality=90)
        truth = first.truths[row]
        shown = {
            role: _predictions(each.detections[row], truth, scale, thresholds[role])
            for role, each in predictions.items()
        }
        pictures.append(
            Picture(file=name, width=small.shape[-1], height=small.shape[-2], truth=_faces(truth, scale), **shown)
        )
    Gallery(thresholds=thresholds, images=tuple(pictures)).save(folder / "gallery.json")


def _spread(truths: Sequence[Truth], images: int) -> list[int]:
    rows = [row for row, truth in enumerate(truths) if int((~truth.ignored).sum()) in _FACES]
    rows = rows or list(range(len(truths)))
    picked = np.linspace(0, len(rows) - 1, min(images, len(rows))).round().astype(int)
    return [rows[position] for position in picked]


def _faces(truth: Truth, scale: float) -> tuple[Face, ...]:
    pairs = zip((truth.boxes * scale).tolist(), truth.ignored.tolist(), strict=True)
    return tuple(Face(box=_rounded(box), ignored=ignored) for box, ignored in pairs)


def _predictions(detections: Detections, truth: Truth, scale: float, threshold: float) -> tuple[Prediction, ...]:
    """Return each detection with whether it is a hit; those that met a face to ignore are left out."""
    hits, counted = match_image(detections, truth)
    columns = (detections.boxes * scale, detections.scores, detections.landmarks * scale, hits)
    shown = (column[(detections.scores >= threshold) & counted].tolist() for column in columns)
    return tuple(
        Prediction(box=_rounded(box), score=round(score, 4), landmarks=_rounded(points), hit=hit)
        for box, score, points, hit in zip(*shown, strict=True)
    )


def _rounded(values: Sequence[float]) -> tuple[Any, ...]:
    return tuple(round(value, 2) for value in values)
