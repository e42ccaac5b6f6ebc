"""Saved scores of two sides: compared only against the same labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet
from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps
from featherpress.compress.evaluation.saved_scores import accuracy_scores, detection_scores, map_scores, miou_scores
from featherpress.errors import DataError
from featherpress.verdicts import Scores
from featherpress.verdicts.intervals import paired_interval

ONE = np.ones(2, np.int64)
BOXES = np.array([[0, 0, 9, 9], [5, 5, 20, 30]], np.float32)


def answers(*labels: int) -> Scores:
    names = tuple(map(str, range(len(labels))))
    return accuracy_scores(
        [ClassPredictions(names=names, labels=np.array(labels), predicted=np.zeros(len(labels), int))]
    )


def masks(classes: str, *labelled: tuple[int, int]) -> Scores:
    counts = np.array(labelled)
    tables = {"intersections": counts, "unions": counts, "labelled": counts, "confusion": np.diag(counts.sum(axis=0))}
    return miou_scores([MaskOverlaps(names=("0", "1"), classes=tuple(classes), shown={}, **tables)])


def objects(categories: str, *kinds: int) -> Scores:
    truth: dict[str, Any] = {"truth_boxes": BOXES, "truth_ignored": np.zeros(2, bool), "labelled": ONE}
    found: dict[str, Any] = {"boxes": BOXES, "scores": ONE / 2, "classes": ONE * 0, "found": ONE}
    names = {"names": ("0", "1"), "categories": tuple(categories)}
    return map_scores([ObjectSet(**names, **truth, **found, truth_classes=np.array(kinds))])


def faces(shift: float) -> Scores:
    found = Detections(boxes=BOXES[:1], scores=np.ones(1, np.float32), landmarks=np.zeros((1, 10), np.float32))
    truth = Truth(boxes=BOXES + np.float32(shift), ignored=np.zeros(2, bool))
    return detection_scores([DetectionSet(names=("0",), detections=(found,), truths=(truth,))])


@pytest.mark.parametrize(
    ("side", "same", "other"),
    [
        (lambda labels: answers(*labels), [(0, 1, 1), (1, 0, 0)], (0, 1, 0)),
        (lambda rows: masks(*rows), [("ab", (3, 4), (5, 6)), ("ba", (4, 3), (6, 5))], ("ab", (4, 3), (6, 5))),
        (lambda rows: objects(*rows), [("ab", 0, 1), ("ba", 1, 0)], ("ab", 1, 0)),
        (faces, [0.0, 0.0], 1.0),
    ],
    ids=["classes", "masks", "objects", "faces"],
)
def test_sides_of_other_labels_are_not_compared(side: Callable[[Any], Scores], same: list[Any], other: Any) -> None:
    """Labels that were changed between two evaluations are; the same under other numbers of their classes are not."""
    first, again = map(side, same)
    assert paired_interval(candidate=again, baseline=first, resamples=10).examples == first.examples
    with pytest.raises(DataError, match="Expected scores against the same labels, got others"):
        paired_interval(candidate=side(other), baseline=first, resamples=10)
