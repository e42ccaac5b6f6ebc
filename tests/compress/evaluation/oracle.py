"""The WIDER FACE evaluation as its rules read, one image, one threshold and one detection at a time.

Slow on purpose: this is what the vectorised evaluation is tested and timed against.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from featherpress.compress.evaluation.detections import BoolArray, FloatArray
from featherpress.compress.evaluation.widerface.files import SUBSETS, WiderImage, WiderPredictions

THRESHOLDS = 1000


def evaluate(predictions: WiderPredictions, images: Sequence[WiderImage]) -> dict[str, float]:
    """Give the average precision of each subset, in three passes over all images."""
    normal = normalise(predictions)
    result = {}
    for subset in SUBSETS:
        curve = np.zeros((THRESHOLDS, 2))
        faces = 0
        for image in images:
            faces += int(image.counted[subset].sum())
            rows = normal[image.event][image.name]
            if len(rows) and len(image.boxes):
                curve += image_curve(rows, image.boxes, image.counted[subset])
        result[subset] = area(curve, faces)
    return result


def normalise(predictions: WiderPredictions) -> Mapping[str, Mapping[str, FloatArray]]:
    """Bring the scores of the whole set to 0..1, the ends being no further in than 0 and 1."""
    lowest, highest = 1.0, 0.0
    for event in predictions.values():
        for rows in event.values():
            for score in rows[:, 4]:
                lowest, highest = min(lowest, score), max(highest, score)
    normal: dict[str, dict[str, FloatArray]] = {}
    for name, event in predictions.items():
        normal[name] = {}
        for image, rows in event.items():
            copy = rows[sorted(range(len(rows)), key=lambda row: -rows[row, 4])]
            copy[:, 4] = (copy[:, 4] - lowest) / (highest - lowest) if highest > lowest else 1.0
            normal[name][image] = copy
    return normal


def image_curve(rows: FloatArray, boxes: FloatArray, counted: BoolArray) -> FloatArray:
    """Count the detections and the faces found at each threshold, in one image."""
    hits_so_far, is_proposal = walk(rows, boxes, counted)
    curve = np.zeros((THRESHOLDS, 2))
    for step in range(THRESHOLDS):
        threshold = 1 - (step + 1) / THRESHOLDS
        reaching = np.where(rows[:, 4] >= threshold)[0]
        if len(reaching):
            last = reaching[-1]
            curve[step, 0] = np.sum(is_proposal[: last + 1])
            curve[step, 1] = hits_so_far[last]
    return curve


def walk(rows: FloatArray, boxes: FloatArray, counted: BoolArray) -> tuple[FloatArray, BoolArray]:
    """Go down the detections: faces found up to each, and whether each is a proposal at all."""
    taken: set[int] = set()
    hits_so_far = np.zeros(len(rows))
    is_proposal = np.ones(len(rows), bool)
    for index, row in enumerate(rows):
        overlaps = iou(row, boxes)
        best = int(overlaps.argmax())
        if overlaps[best] >= 0.5:
            if counted[best]:
                taken.add(best)
            else:
                is_proposal[index] = False
        hits_so_far[index] = len(taken)
    return hits_so_far, is_proposal


def iou(row: FloatArray, boxes: FloatArray) -> FloatArray:
    """Overlap of one detection with all faces, borders inclusive."""
    right, bottom = row[0] + row[2], row[1] + row[3]
    rights, bottoms = boxes[:, 0] + boxes[:, 2], boxes[:, 1] + boxes[:, 3]
    width = np.minimum(right, rights) - np.maximum(row[0], boxes[:, 0]) + 1
    height = np.minimum(bottom, bottoms) - np.maximum(row[1], boxes[:, 1]) + 1
    both = np.where((width > 0) & (height > 0), width * height, 0.0)
    own = (right - row[0] + 1) * (bottom - row[1] + 1)
    areas = (rights - boxes[:, 0] + 1) * (bottoms - boxes[:, 1] + 1)
    return np.asarray(both / (own + areas - both))


def area(curve: FloatArray, faces: int) -> float:
    """Add up the steps of recall, each times the best precision from there on."""
    precision = [found / total if total else 0.0 for total, found in curve]
    recall = [found / faces for _, found in curve]
    for index in range(THRESHOLDS - 1, 0, -1):
        precision[index - 1] = max(precision[index - 1], precision[index])
    total, before = 0.0, 0.0
    for index in range(THRESHOLDS):
        total += (recall[index] - before) * precision[index]
        before = recall[index]
    return total
