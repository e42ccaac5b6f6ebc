"""How masks overlap: pixels of every class in every image, and mIoU from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, Saved, save_arrays
from featherpress.compress.evaluation.detections import IntArray
from featherpress.errors import DataError
from featherpress.verdicts.intervals import Array

_SHOWN = "shown:"
"""Begins the names of the arrays that hold masks to look at."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskOverlaps(Saved):
    """How many labelled pixels of each image are of each class, by their label, by the model, and by both.

    `confusion` sums all images, rows by label and columns by the model. `shown` are the predicted masks of a few images
    by name, to look at.

    Units: pixels, those that are ignored left out.
    Shapes: intersections, unions and labelled (n, C) int64; confusion (C, C) int64; a shown mask (H, W) uint8.
    Errors: DataError where these do not go together.
    """

    WHAT: ClassVar[str] = "masks"
    metric: ClassVar[str] = "mIoU"

    names: tuple[str, ...]
    classes: tuple[str, ...]
    intersections: IntArray
    unions: IntArray
    labelled: IntArray
    confusion: IntArray
    shown: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.names), len(self.classes))
        tables = (self.intersections, self.unions, self.labelled)
        if not shape[0] or any(each.shape != shape for each in tables) or self.confusion.shape != (shape[1],) * 2:
            raise DataError(f"Expected pixels of {shape[1]} classes in each of {shape[0]} images, one or more.")

    @property
    def ious(self) -> Array:
        """The IoU of every class over all images, NaN for one that no label shows; shape (C,)."""
        labelled = self.labelled.sum(axis=0)
        ious = self.intersections.sum(axis=0) / np.maximum(self.unions.sum(axis=0), 1)
        return np.where(labelled > 0, ious, np.nan)

    @property
    def miou(self) -> float | None:
        """The mean of IoU over the classes that labels show; None where no pixel is labelled."""
        return float(weighted_miou(self, np.ones((1, len(self.names))))[0]) if self.labelled.any() else None

    @property
    def pixel_accuracy(self) -> float | None:
        """The share of labelled pixels whose class is right; None where there is none."""
        total = int(self.labelled.sum())
        return float(self.intersections.sum()) / total if total else None

    def list_classes(self) -> list[dict[str, Any]]:
        """Return each class with its labelled pixels and its IoU, None where there are none."""
        pixels = self.labelled.sum(axis=0)
        return [
            {"name": name, "examples": int(count), "score": float(iou) if count else None}
            for name, count, iou in zip(self.classes, pixels, self.ious, strict=True)
        ]

    def save(self, path: Path) -> None:
        """Write one compressed npz, complete or not at all."""
        tables = {name: getattr(self, name) for name in ("intersections", "unions", "labelled", "confusion")}
        names = {"names": np.array(self.names), "classes": np.array(self.classes)}
        save_arrays(path, {**names, **tables, **{_SHOWN + name: mask for name, mask in self.shown.items()}})

    @classmethod
    def from_arrays(cls, arrays: Arrays) -> Self:
        """Take the arrays of a saved file."""
        tables: dict[str, Any] = {key: arrays[key] for key in ("intersections", "unions", "labelled", "confusion")}
        shown = {key.removeprefix(_SHOWN): mask for key, mask in arrays.items() if key.startswith(_SHOWN)}
        names = (tuple(map(str, arrays[key])) for key in ("names", "classes"))
        return cls(names=next(names), classes=next(names), **tables, shown=shown)


def weighted_miou(overlaps: MaskOverlaps, weights: Array) -> Array:
    """Return the mIoU of sets that hold each image so many times: the mean over the classes that a set's labels show.

    Shapes: weights (sets, n) -> (sets,); 0 for a set without a labelled pixel.
    """
    intersections, unions, labelled = (
        weights @ table.astype(np.float64) for table in (overlaps.intersections, overlaps.unions, overlaps.labelled)
    )
    counted = labelled > 0
    ious = np.where(counted, intersections / np.maximum(unions, 1), 0.0)
    return np.asarray(ious.sum(axis=1) / np.maximum(counted.sum(axis=1), 1))
