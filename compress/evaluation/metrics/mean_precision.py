"""COCO's mean average precision over categories and overlaps, as a score that can be resampled over images.

Source: Lin et al. 2014, Microsoft COCO, and its detection evaluation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, Saved, save_arrays
from featherpress.compress.evaluation.detections import BoolArray, FloatArray, IntArray
from featherpress.compress.evaluation.metrics.average_precision import pairwise_iou
from featherpress.errors import DataError
from featherpress.verdicts.intervals import Array

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MOST_DETECTIONS = 100


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ObjectSet(Saved):
    """What was found in a set of images, and what is there; rows of one image lie together, in the images' order.

    Shapes: found (images,), boxes (k, 4) as corners in pixels, scores (k,), classes (k,); labelled (images,), truth
    boxes (n, 4), classes (n,), ignored (n,) bool.
    Errors: DataError where these do not go together.
    """

    WHAT: ClassVar[str] = "detections"
    metric: ClassVar[str] = "mAP"

    names: tuple[str, ...]
    categories: tuple[str, ...]
    found: IntArray
    boxes: FloatArray
    scores: FloatArray
    classes: IntArray
    labelled: IntArray
    truth_boxes: FloatArray
    truth_classes: IntArray
    truth_ignored: BoolArray

    def __post_init__(self) -> None:
        counts = {len(self.names), len(self.found), len(self.labelled)}
        detected = {int(self.found.sum()), len(self.boxes), len(self.scores), len(self.classes)}
        labelled = {int(self.labelled.sum()), len(self.truth_boxes), len(self.truth_classes), len(self.truth_ignored)}
        if len(counts) + len(detected) + len(labelled) > 3:
            raise DataError("Expected a number of detections and of objects for each image, and as many rows of each.")

    def save(self, path: Path) -> None:
        """Write one compressed npz of plain arrays, complete or not at all."""
        arrays = {name: getattr(self, name) for name in self.__slots__ if name not in {"names", "categories"}}
        save_arrays(path, {"names": np.array(self.names), "categories": np.array(self.categories), **arrays})

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        tables: dict[str, Any] = {key: arrays[key] for key in cls.__slots__}
        for key in ("names", "categories"):
            tables[key] = tuple(map(str, arrays[key]))
        return cls(**tables)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CategoryMatches:
    """The detections of one category in falling order of score, and which objects they met at each overlap.

    Shapes: hits and counted (T, k) bool, images (k,); objects (images,), those to be found in each.
    """

    hits: BoolArray
    counted: BoolArray
    images: IntArray
    objects: IntArray


def match_categories(found: ObjectSet) -> list[CategoryMatches]:
    """Match each category's detections with its objects as COCO does: ignored ones are its crowds."""
    images = [np.repeat(np.arange(len(found.names)), counts) for counts in (found.found, found.labelled)]
    matched = []
    for category in range(len(found.categories)):
        rows, truths = found.classes == category, found.truth_classes == category
        parts = [
            _match_image(
                found.boxes[rows & (images[0] == image)],
                found.scores[rows & (images[0] == image)],
                found.truth_boxes[truths & (images[1] == image)],
                found.truth_ignored[truths & (images[1] == image)],
            )
            for image in range(len(found.names))
        ]
        scores = np.concatenate([scores for scores, _, _ in parts])
        order = np.argsort(-scores, kind="stable")
        owners = np.repeat(np.arange(len(parts)), [len(scores) for scores, _, _ in parts])
        counted = truths & ~found.truth_ignored
        matched.append(
            CategoryMatches(
                hits=np.concatenate([hits for _, hits, _ in parts], axis=1)[:, order],
                counted=np.concatenate([counts for _, _, counts in parts], axis=1)[:, order],
                images=owners[order],
                objects=np.bincount(images[1][counted], minlength=len(found.names)),
            )
        )
    return matched


def _match_image(
    boxes: FloatArray, scores: FloatArray, truth: FloatArray, ignored: BoolArray
) -> tuple[FloatArray, BoolArray, BoolArray]:
    """Match one image's detections of a category at every overlap; scores, hits (T, k), counted (T, k)."""
    order = np.argsort(-scores, kind="stable")[:MOST_DETECTIONS]
    boxes, scores = boxes[order], scores[order]
    overlap = pairwise_iou(boxes, truth[~ignored])
    inside = _share_inside(boxes, truth[ignored]).max(axis=1, initial=0.0)
    hits = np.zeros((len(OVERLAPS), len(boxes)), np.bool_)
    least = np.minimum(OVERLAPS, 1 - 1e-10)
    for level, threshold in enumerate(least):
        free = np.where(overlap >= threshold, overlap, -1.0)
        for row in np.flatnonzero((free >= 0).any(axis=1)):
            # Of equal overlaps COCO takes the last.
            best = free.shape[1] - 1 - free[row, ::-1].argmax()
            if free[row, best] >= 0:
                hits[level, row] = True
                free[:, best] = -1.0
    return scores, hits, hits | (inside[None] < least[:, None])


def _share_inside(boxes: FloatArray, crowds: FloatArray) -> NDArray[np.float64]:
    """Return the share of each box's own area that lies in each crowd; shapes: (k, 4), (n, 4) -> (k, n)."""
    corner = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    sides = np.clip(corner - np.maximum(boxes[:, None, :2], crowds[None, :, :2]), 0, None)
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)[:, None]
    shares: NDArray[np.float64] = sides.prod(axis=2) / np.maximum(areas, 1e-12)
    return shares


def category_precision(matches: CategoryMatches, weights: Array) -> tuple[Array, BoolArray]:
    """Return precision at 101 recalls of sets that hold each image so many times, and whether they hold an object.

    Shapes: weights (sets, images) -> (sets, T, 101), (sets,) bool.
    """
    objects = weights @ matches.objects.astype(np.float64)
    precision = np.zeros((len(weights), len(OVERLAPS), len(RECALLS)))
    for level in range(len(OVERLAPS)):
        kept = matches.counted[level]
        rows = weights[:, matches.images[kept]]
        true = np.cumsum(rows * matches.hits[level][kept], axis=1)
        total = np.cumsum(rows, axis=1)
        curve = np.divide(true, total, out=np.zeros_like(true), where=total > 0)
        curve = np.maximum.accumulate(curve[:, ::-1], axis=1)[:, ::-1]
        for each in np.flatnonzero(objects > 0):
            # Counts are compared, where 0.07 * 100 objects is 7 and not a hair more.
            places = np.searchsorted(true[each], RECALLS * objects[each] - 1e-9)
            reached = places < true.shape[1]
            precision[each, level, reached] = curve[each, places[reached]]
    return precision, objects > 0


def weighted_map(matches: Sequence[CategoryMatches], weights: Array) -> Array:
    """Return mAP of sets that hold each image so many times: over overlaps, and categories with an object in the set.

    Shapes: weights (sets, images) -> (sets,); 0 for a set without an object.
    """
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for each in matches:
        for start in range(0, len(weights), 64):
            part = slice(start, start + 64)
            precision, holds = category_precision(each, weights[part])
            total[part] += np.where(holds, precision.mean(axis=(1, 2)), 0)
            counted[part] += holds
    return total / np.maximum(counted, 1)


def summarize(found: ObjectSet) -> dict[str, Any]:
    """Return mAP, AP50, AP75, the AP of each category, and precision over recall at an overlap of 0.5.

    None where there is no object.
    """
    curves, by_class = [], []
    for name, each in zip(found.categories, match_categories(found), strict=True):
        precision, holds = category_precision(each, np.ones((1, len(found.names))))
        score = float(precision[0].mean()) if holds[0] else None
        by_class.append({"name": name, "examples": int(each.objects.sum()), "score": score})
        if holds[0]:
            curves.append(precision[0])
    mean = np.mean(curves, axis=0) if curves else np.full((len(OVERLAPS), len(RECALLS)), np.nan)
    scores = {
        name: float(part.mean()) if curves else None
        for name, part in (("mAP", mean), ("AP50", mean[0]), ("AP75", mean[5]))
    }
    curve = {"recall": RECALLS.tolist(), "precision": mean[0].tolist()} if curves else None
    return {**scores, "by_class": by_class, "curve": curve}
