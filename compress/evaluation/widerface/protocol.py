"""The WIDER FACE protocol: average precision on the easy, medium and hard faces.

A detection is compared only with the labelled face it overlaps most, whether or not that face is already
matched. So nothing depends on the threshold or on the other detections:
each detection is judged once and the 1,000 thresholds are two histograms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import BoolArray, FloatArray, IntArray
from featherpress.compress.evaluation.metrics.average_precision import IOU, corners, pairwise_iou
from featherpress.compress.evaluation.widerface.files import (
    SUBSETS,
    WiderImage,
    WiderPredictions,
    read_ground_truth,
    read_predictions,
)
from featherpress.errors import DataError

THRESHOLDS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WiderScores:
    """Average precision on the three subsets; None for one without a face, which only a partial set may have.

    `curves` has recall and the precision envelope at each of the 1,000 thresholds, by subset.
    """

    easy: float | None
    medium: float | None
    hard: float | None
    curves: Mapping[str, tuple[FloatArray, FloatArray]] = field(default_factory=dict, compare=False, repr=False)

    def to_dict(self) -> dict[str, float | None]:
        """Return the three at full precision."""
        return {"easy": self.easy, "medium": self.medium, "hard": self.hard}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Judged:
    """Every detection of every image that has a labelled face.

    `level` is the first of the falling thresholds at which it enters; `face` the labelled face it overlaps
    most, numbered through all images, or -1 below IoU 0.5; `first` whether it is the first on that face.
    """

    level: IntArray
    face: IntArray
    first: BoolArray


def evaluate_widerface(
    predictions: Path | WiderPredictions, ground_truth: Path | Sequence[WiderImage], *, partial: bool = False
) -> WiderScores:
    """Score predictions for the validation images as the official evaluation does.

    The rows of an image are taken by falling score, and scores brought to 0..1 over the whole set. An image without
    labels is left out; a detection on a face outside the subset is neither hit nor false alarm, a second one on a face
    within it is a false alarm.
    With `partial`, the images are some of the set, and a subset may be left without a face.

    Errors: DataError for files that are missing or broken, and for images without predictions.
    Source: Yang et al. 2016, WIDER FACE, and its evaluation code.
    """
    images = read_ground_truth(ground_truth) if isinstance(ground_truth, Path) else ground_truth
    read = read_predictions(predictions) if isinstance(predictions, Path) else predictions
    where = f" in {predictions}" if isinstance(predictions, Path) else ""
    rows = [_rows_of(read, image, where) for image in images]
    judged = _judge(rows, [image.boxes for image in images], _score_range(read))
    ap: dict[str, float | None] = {}
    curves = {}
    for subset in SUBSETS:
        counted = np.concatenate([np.empty(0, np.bool_), *(image.counted[subset] for image in images)])
        if counted.any():
            recall, envelope = curves[subset] = _curve(judged, counted)
            ap[subset] = float((np.diff(recall, prepend=0) * envelope).sum())
        elif partial:
            ap[subset] = None
        else:
            raise DataError(f"The ground truth counts no face as {subset}: use the official four .mat files.")
    return WiderScores(**ap, curves=curves)


def _rows_of(predictions: WiderPredictions, image: WiderImage, where: str) -> FloatArray:
    event = predictions.get(image.event)
    if event is None:
        raise DataError(f"No predictions for the event {image.event}{where}: expected a folder of that name.")
    rows = event.get(image.name)
    if rows is None:
        raise DataError(
            f"No predictions for {image.event}/{image.name}.jpg{where}: "
            "expected a text file for every image, with 0 in its second line where nothing is found."
        )
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def _score_range(predictions: WiderPredictions) -> tuple[float, float]:
    """Return the lowest and the highest score of the whole set, but at most 1 and at least 0."""
    filled = [rows[:, 4] for event in predictions.values() for rows in event.values() if len(rows)]
    lowest = min((float(scores.min()) for scores in filled), default=1.0)
    highest = max((float(scores.max()) for scores in filled), default=0.0)
    return min(lowest, 1.0), max(highest, 0.0)


def _judge(rows: Sequence[FloatArray], boxes: Sequence[FloatArray], score_range: tuple[float, float]) -> _Judged:
    faces, scores, offset = [np.empty(0, np.int64)], [np.empty(0)], 0
    for found, labelled in zip(rows, boxes, strict=True):
        if len(found) and len(labelled):
            # This protocol counts both border pixels of a side.
            overlap = pairwise_iou(corners(found), corners(labelled), border=1)
            best = overlap.argmax(axis=1)
            reached = overlap[np.arange(len(best)), best] >= IOU
            faces.append(np.where(reached, best + offset, -1))
            scores.append(found[:, 4].astype(np.float64))
        offset += len(labelled)
    face = np.concatenate(faces)
    first = np.zeros(len(face), np.bool_)
    first[np.unique(face, return_index=True)[1]] = True
    return _Judged(level=_level(np.concatenate(scores), score_range), face=face, first=first)


def _level(scores: NDArray[np.float64], score_range: tuple[float, float]) -> IntArray:
    lowest, highest = score_range
    # With a single score in the whole set all detections enter at once.
    normal = (scores - lowest) / (highest - lowest) if highest > lowest else np.ones_like(scores)
    thresholds = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    level: IntArray = THRESHOLDS - np.searchsorted(thresholds[::-1], normal, side="right")
    return level


def _curve(judged: _Judged, counted: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return recall and the precision envelope at each threshold, the highest first."""
    on_face = judged.face >= 0
    on_counted = on_face & counted[judged.face]
    found = _up_to_each_threshold(judged.level[on_counted & judged.first])
    total = _up_to_each_threshold(judged.level[on_counted | ~on_face])
    precision = np.divide(found, total, out=np.zeros(THRESHOLDS), where=total > 0)
    return found / counted.sum(), np.maximum.accumulate(precision[::-1])[::-1]


def _up_to_each_threshold(level: IntArray) -> IntArray:
    sums: IntArray = np.cumsum(np.bincount(level, minlength=THRESHOLDS + 1)[:THRESHOLDS])
    return sums
