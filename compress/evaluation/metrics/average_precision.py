"""Average precision of one class, with faces to ignore and by face height.

Matching and scoring are separate: matches are made once, then scored, compared or resampled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import BoolArray, Detections, FloatArray, IntArray, Truth
from featherpress.errors import DataError
from featherpress.records.evaluation import Bucket, WorkingPoint

HEIGHTS: tuple[tuple[str, float, float | None], ...] = (
    ("< 16", 0, 16),
    ("16-32", 16, 32),
    ("32-96", 32, 96),
    ("> 96", 96, None),
)
"""Name, lowest height and first height beyond (None: no end), in pixels of the original image."""

Float = TypeVar("Float", bound=np.floating[Any])

CURVE_POINTS = 101

IOU = 0.5
"""The overlap from which on a face is found, in every protocol but COCO's."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Matches:
    """What became of every detection of a set of images.

    `hits` found a face, `counted` are hits and false alarms; the rest met a face to ignore, or lay
    outside the height range. `images` says which image a detection is of.

    Shapes: scores, hits, counted, images (k,); faces (images,), the faces to be found in each.
    """

    scores: FloatArray
    hits: BoolArray
    counted: BoolArray
    images: IntArray
    faces: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Score:
    """Average precision and its curve; `ap` and `recall` are None where there is no face to find.

    `recall` is the share of faces found by all detections together. `precision_curve` is the
    precision envelope at the 101 recalls of `recall_curve` (0, 0.01, ... 1), 0 where not reached.
    """

    ap: float | None
    recall: float | None
    faces: int
    recall_curve: FloatArray
    precision_curve: FloatArray

    def to_dict(self) -> dict[str, Any]:
        """Return `ap`, `recall` and `curve` as an evaluation record holds them."""
        curve = {"recall": self.recall_curve.tolist(), "precision": self.precision_curve.tolist()}
        return {"ap": self.ap, "recall": self.recall, "curve": curve}


def corners(rows: NDArray[Float]) -> NDArray[Float]:
    """Turn rows of x, y, width, height and more into x1, y1, x2, y2; shapes: (n, 4 or more) -> (n, 4)."""
    return np.hstack([rows[:, :2], rows[:, :2] + rows[:, 2:4]])


def pairwise_iou(first: FloatArray, second: FloatArray, *, border: int = 0) -> NDArray[np.float64]:
    """Return the intersection over union of every pair, 0 for a pair without area.

    Sides are `border` pixels longer than the distance of their ends.

    Shapes: (k, 4), (n, 4) -> (k, n), boxes as x1, y1, x2, y2.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    corner = np.minimum(first[:, None, 2:], second[None, :, 2:])
    sides = np.clip(corner - np.maximum(first[:, None, :2], second[None, :, :2]) + border, 0, None)
    intersection = sides[..., 0] * sides[..., 1]
    areas = [np.clip(boxes[:, 2:] - boxes[:, :2] + border, 0, None).prod(axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    overlap: NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return overlap


def match_image(
    detections: Detections, truth: Truth, height_range: tuple[float, float | None] | None = None
) -> tuple[BoolArray, BoolArray]:
    """Return which detections of one image are hits, and which count at all.

    In order of score each detection takes the free face it overlaps most, if at `IOU` or more.
    Without one it is a false alarm, unless it overlaps a face to ignore at `IOU` or more. Overlap is
    IoU there too, as in the WIDER FACE protocol: faces to ignore are single faces, not crowds, and
    intersection over the detection's own area would forgive every small false alarm inside a large face.
    With a height range, faces outside it are ignored and so are false alarms whose own height is.

    Shapes: -> hits (k,), counted (k,).
    Source: Lin et al. 2014, COCO, for the order of preference and for the range.
    """
    ignored = truth.ignored | ~_within(truth.boxes, height_range)
    overlap = pairwise_iou(detections.boxes, truth.boxes)
    hits = _assign(overlap[:, ~ignored])
    excused = (overlap[:, ignored] >= IOU).any(axis=1)
    return hits, hits | (_within(detections.boxes, height_range) & ~excused)


def _within(boxes: FloatArray, height_range: tuple[float, float | None] | None) -> BoolArray:
    if height_range is None:
        return np.ones(len(boxes), np.bool_)
    low, high = height_range
    height = boxes[:, 3] - boxes[:, 1]
    within: BoolArray = (height >= low) & (height < (np.inf if high is None else high))
    return within


def _assign(overlap: NDArray[np.float64]) -> BoolArray:
    """Match each row, in order, with the free column it overlaps most; return which rows got one."""
    hits = np.zeros(len(overlap), np.bool_)
    reaching = np.where(overlap >= IOU, overlap, -1.0)
    for row in np.flatnonzero((reaching >= 0).any(axis=1)):
        best = reaching[row].argmax()
        if reaching[row, best] >= 0:
            hits[row] = True
            reaching[:, best] = -1.0
    return hits


def match(
    detections: Sequence[Detections],
    truths: Sequence[Truth],
    height_range: tuple[float, float | None] | None = None,
) -> Matches:
    """Match the detections of a set of images, image by image.

    Errors: DataError where the two do not hold the same number of images.
    """
    if len(detections) != len(truths):
        raise DataError(f"Expected the truth of {len(detections)} images, one each; got {len(truths)}.")
    rows = [match_image(each, truth, height_range) for each, truth in zip(detections, truths, strict=True)]
    faces = [(~truth.ignored & _within(truth.boxes, height_range)).sum() for truth in truths]
    none = np.empty(0, np.bool_)
    return Matches(
        scores=np.concatenate([np.empty(0, np.float32), *(each.scores for each in detections)]),
        hits=np.concatenate([none, *(hits for hits, _ in rows)]),
        counted=np.concatenate([none, *(counted for _, counted in rows)]),
        images=np.repeat(np.arange(len(detections)), [len(each) for each in detections]),
        faces=np.array(faces, dtype=np.int64),
    )


def average_precision(matches: Matches) -> Score:
    """Return the area under the precision envelope, over all points.

    Detections of equal score enter together, so the order of images and of ties does not matter.

    Source: Everingham et al. 2010, PASCAL VOC development kit of 2010 and after.
    """
    faces = int(matches.faces.sum())
    grid = np.linspace(0, 1, CURVE_POINTS)
    if faces == 0:
        return Score(ap=None, recall=None, faces=0, recall_curve=grid, precision_curve=np.zeros(CURVE_POINTS))
    found, total, _ = _curve(matches)
    envelope = np.maximum.accumulate((found / total)[::-1])[::-1]
    # Recalls are compared as counts, where 0.07 * 100 faces is 7 and not a hair more.
    reached = np.searchsorted(found, np.ceil(np.round(grid * faces, 9)))
    return Score(
        ap=float((np.diff(found, prepend=0) * envelope).sum() / faces),
        recall=float(found[-1] / faces) if len(found) else 0.0,
        faces=faces,
        recall_curve=grid,
        precision_curve=np.append(envelope, 0.0)[reached],
    )


def best_threshold(matches: Matches) -> float:
    """Return the score from which on the detections have the best F1, the highest of several; 1 without a hit.

    F1 is the harmonic mean of precision and recall.
    """
    found, total, scores = _curve(matches)
    if not found.any():
        return 1.0
    return float(scores[(2 * found / (total + matches.faces.sum())).argmax()])


def working_point(matches: Matches, threshold: float) -> WorkingPoint:
    """Return precision, recall and F1 of the detections that score at least this.

    Precision is None without a detection, recall and F1 without a face.
    """
    reached = matches.counted & (matches.scores >= np.float32(threshold))
    hits, total, faces = int(matches.hits[reached].sum()), int(reached.sum()), int(matches.faces.sum())
    return WorkingPoint(
        threshold=threshold,
        precision=hits / total if total else None,
        recall=hits / faces if faces else None,
        f1=2 * hits / (total + faces) if faces else None,
    )


def _curve(matches: Matches) -> tuple[IntArray, IntArray, FloatArray]:
    """Count hits and detections at or above each distinct score, highest score first."""
    counted = np.flatnonzero(matches.counted)
    order = counted[np.argsort(-matches.scores[counted], kind="stable")]
    scores = matches.scores[order]
    last = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1) if len(scores) else np.empty(0, int)
    return np.cumsum(matches.hits[order])[last], last + 1, scores[last]


def average_precision_by_height(detections: Sequence[Detections], truths: Sequence[Truth]) -> tuple[Bucket, ...]:
    """Score each range of `HEIGHTS` on its own."""
    scores = []
    for name, low, high in HEIGHTS:
        score = average_precision(match(detections, truths, (low, high)))
        scores.append(Bucket(name=name, low=low, high=high, faces=score.faces, ap=score.ap))
    return tuple(scores)
