"""How often a classifier is right, and whether another is more often right by more than chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from featherpress.compress.evaluation.archives import BROKEN, load_arrays, save_arrays
from featherpress.compress.evaluation.bootstrap import Comparison, SeedScores
from featherpress.compress.evaluation.detections import IntArray
from featherpress.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClassPredictions:
    """The class that a model says each image is of, beside the class it is of.

    Shapes: labels and predicted (n,).
    Errors: DataError where the three do not hold one entry an image, or none at all.
    """

    names: tuple[str, ...]
    labels: IntArray
    predicted: IntArray

    def __post_init__(self) -> None:
        lengths = (len(self.names), len(self.labels), len(self.predicted))
        if len(set(lengths)) != 1 or not lengths[0]:
            raise DataError(f"Expected a name, a label and an answer for every image; got {lengths} of them.")

    @property
    def accuracy(self) -> float:
        """The share of images of which the answer is right."""
        return float(np.mean(self.labels == self.predicted))

    def save(self, path: Path) -> None:
        """Write one compressed npz, complete or not at all."""
        save_arrays(path, {"names": np.array(self.names), "labels": self.labels, "predicted": self.predicted})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Errors: DataError for a missing, truncated or foreign file.
        """
        arrays = load_arrays(path, what="answers")
        try:
            names = tuple(str(name) for name in arrays["names"])
            return cls(names=names, labels=arrays["labels"], predicted=arrays["predicted"])
        except BROKEN as error:
            raise DataError(f"{path} is not a complete file of saved answers ({error}): evaluate again.") from error


def compare_accuracy(
    *,
    control: Sequence[ClassPredictions],
    distilled: Sequence[ClassPredictions],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Bootstrap the difference of accuracy over images, every model on the same resamples.

    As `bootstrap.compare` does for AP: each side has one entry a seed, the difference is that of their means.

    Errors: UsageError for an empty side; DataError for answers about different images.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if not control or not distilled:
        raise UsageError("Expected the answers of one control and one distilled model at least; got none of one side.")
    if any(each.names != control[0].names for each in (*control, *distilled)):
        raise DataError("Expected answers about the same images; evaluate both models on one set.")
    right = [np.mean([each.labels == each.predicted for each in side], axis=0) for side in (control, distilled)]
    gained = right[1] - right[0]
    images = len(gained)
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=resamples)
    tail = 50 * (1 - confidence)
    low, high = np.percentile(drawn @ gained / images, [tail, 100 - tail])
    scores = [SeedScores(ap=tuple(each.accuracy for each in side)) for side in (control, distilled)]
    return Comparison(
        control=scores[0],
        distilled=scores[1],
        difference=float(gained.mean()),
        low=float(low),
        high=float(high),
        confidence=confidence,
        resamples=resamples,
        images=images,
        metric="accuracy",
    )
