"""Detections and labels as plain arrays that need no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, Saved, save_arrays
from featherpress.errors import DataError

FloatArray: TypeAlias = NDArray[np.floating[Any]]
IntArray: TypeAlias = NDArray[np.integer[Any]]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Detections:
    """The faces that a detector reports in one image, by falling score.

    Shapes: boxes (k, 4) as x1, y1, x2, y2; scores (k,); landmarks (k, 10).
    Units: pixels of the original image.
    Errors: DataError for other shapes, or scores that are not finite and falling.
    """

    boxes: FloatArray
    scores: FloatArray
    landmarks: FloatArray

    def __post_init__(self) -> None:
        found = len(self.scores)
        shapes = (self.boxes.shape, self.scores.shape, self.landmarks.shape)
        if shapes != ((found, 4), (found,), (found, 10)):
            raise DataError(f"Expected boxes (k, 4), scores (k,) and landmarks (k, 10); got shapes {shapes}.")
        if not np.isfinite(self.scores).all() or (self.scores[1:] > self.scores[:-1]).any():
            raise DataError("Expected finite scores in falling order; sort the detections by score first.")

    def __len__(self) -> int:
        return len(self.scores)

    def scaled(self, factors: FloatArray) -> "Detections":
        """Stretch the plane by two factors, across and down."""
        boxes, landmarks = self.boxes * np.tile(factors, 2), self.landmarks * np.tile(factors, 5)
        return Detections(boxes=boxes, scores=self.scores, landmarks=landmarks)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Truth:
    """The labelled faces of one image; an ignored one counts neither as a miss nor, if detected, as a false alarm.

    Shapes: boxes (n, 4) as x1, y1, x2, y2; ignored (n,).
    Units: pixels of the original image.
    Errors: DataError for other shapes, or flags that are not bool.
    """

    boxes: FloatArray
    ignored: BoolArray

    def __post_init__(self) -> None:
        labelled = len(self.ignored)
        shapes = (self.boxes.shape, self.ignored.shape)
        if shapes != ((labelled, 4), (labelled,)) or self.ignored.dtype != np.bool_:
            kind = self.ignored.dtype
            raise DataError(f"Expected boxes (n, 4) and ignored (n,) of bool; got shapes {shapes} and {kind}.")

    def __len__(self) -> int:
        return len(self.ignored)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DetectionSet(Saved):
    """Detections and truth of a set of images, kept together so that a score can be computed again.

    Errors: DataError where the three do not hold one entry an image.
    """

    WHAT: ClassVar[str] = "detections"
    metric: ClassVar[str] = "AP"

    names: tuple[str, ...]
    detections: tuple[Detections, ...]
    truths: tuple[Truth, ...]

    def __post_init__(self) -> None:
        lengths = (len(self.names), len(self.detections), len(self.truths))
        if len(set(lengths)) != 1:
            raise DataError(f"Expected a name, detections and truth for every image; got {lengths} of them.")

    def save(self, path: Path) -> None:
        """Write one compressed npz of plain arrays, complete or not at all."""
        none = np.empty(0, np.float32)
        arrays = {
            "names": np.array(self.names, dtype=np.str_),
            "found": np.array([len(each) for each in self.detections], dtype=np.int64),
            "boxes": np.concatenate([none.reshape(0, 4), *(each.boxes for each in self.detections)]),
            "scores": np.concatenate([none, *(each.scores for each in self.detections)]),
            "landmarks": np.concatenate([none.reshape(0, 10), *(each.landmarks for each in self.detections)]),
            "labelled": np.array([len(each) for each in self.truths], dtype=np.int64),
            "truth_boxes": np.concatenate([none.reshape(0, 4), *(each.boxes for each in self.truths)]),
            "truth_ignored": np.concatenate([np.empty(0, np.bool_), *(each.ignored for each in self.truths)]),
        }
        save_arrays(path, arrays)

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""

        def split(name: str, lengths: str) -> list[NDArray[Any]]:
            ends = np.cumsum(arrays[lengths])
            return np.split(arrays[name], ends[:-1])[: len(ends)]  # of no length it gives one part

        found = zip(*(split(name, "found") for name in ("boxes", "scores", "landmarks")), strict=True)
        truths = zip(split("truth_boxes", "labelled"), split("truth_ignored", "labelled"), strict=True)
        return cls(
            names=tuple(map(str, arrays["names"])),
            detections=tuple(Detections(boxes=box, scores=score, landmarks=points) for box, score, points in found),
            truths=tuple(Truth(boxes=box, ignored=ignored) for box, ignored in truths),
        )
