"""How often a classifier is right."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np

from featherpress.compress.evaluation.archives import Arrays, load_arrays, save_arrays
from featherpress.compress.evaluation.detections import IntArray
from featherpress.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPredictions:
    """The predicted class of each image, with its label.

    Shapes: labels and predicted (n,).
    Errors: DataError where the three do not hold one entry an image, or none at all.
    """

    metric: ClassVar[str] = "accuracy"

    names: tuple[str, ...]
    labels: IntArray
    predicted: IntArray

    def __post_init__(self) -> None:
        lengths = (len(self.names), len(self.labels), len(self.predicted))
        if len(set(lengths)) != 1 or not lengths[0]:
            raise DataError(f"Expected a name, a label and an answer for every image; got {lengths} of them.")

    @property
    def accuracy(self) -> float:
        """The share of images that are classified correctly."""
        return float(np.mean(self.labels == self.predicted))

    def save(self, path: Path) -> None:
        """Write one compressed npz, complete or not at all."""
        save_arrays(path, {"names": np.array(self.names), "labels": self.labels, "predicted": self.predicted})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Errors: DataError for a missing, truncated or foreign file.
        """
        return load_arrays(path, cls.from_arrays, what="answers")

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        return cls(names=tuple(map(str, arrays["names"])), labels=arrays["labels"], predicted=arrays["predicted"])
