"""How often a classifier is right."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, Saved, save_arrays
from featherpress.compress.evaluation.detections import IntArray
from featherpress.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPredictions(Saved):
    """The predicted class of each image, with its label.

    Shapes: labels and predicted (n,); rank (n,) is the place of the label among a model's classes, 0 for the first, and
    probability (n,) what the model gives its answer; both are empty where they are not known.
    Errors: DataError where the three do not hold one entry an image, or none at all.
    """

    WHAT: ClassVar[str] = "answers"
    metric: ClassVar[str] = "accuracy"

    names: tuple[str, ...]
    labels: IntArray
    predicted: IntArray
    rank: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    probability: NDArray[np.floating[Any]] = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        lengths = (len(self.names), len(self.labels), len(self.predicted))
        if len(set(lengths)) != 1 or not lengths[0]:
            raise DataError(f"Expected a name, a label and an answer for every image; got {lengths} of them.")

    @property
    def accuracy(self) -> float:
        """The share of images that are classified correctly."""
        return float(np.mean(self.labels == self.predicted))

    def top(self, count: int) -> float | None:
        """The share of images whose label is among the first `count` classes; None where that is not known."""
        return float(np.mean(self.rank < count)) if len(self.rank) else None

    def confusion(self, classes: int) -> IntArray:
        """Count what was taken for what; shapes: (C, C), a row is a label."""
        counted = np.bincount(self.labels * classes + self.predicted, minlength=classes**2)
        return counted.reshape(classes, classes)

    def save(self, path: Path) -> None:
        """Write one compressed npz, complete or not at all."""
        arrays = {name: getattr(self, name) for name in ("labels", "predicted", "rank", "probability")}
        save_arrays(path, {"names": np.array(self.names), **arrays})

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        return cls(
            names=tuple(map(str, arrays["names"])),
            labels=arrays["labels"],
            predicted=arrays["predicted"],
            **{name: arrays[name] for name in ("rank", "probability") if name in arrays},
        )
