"""Whether one model's average precision beats another's, or only seems to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import IntArray
from featherpress.compress.evaluation.metrics.average_precision import Matches, average_precision
from featherpress.errors import DataError, UsageError

Verdict: TypeAlias = Literal["better", "worse", "not shown"]

BLOCK = 2**22
"""Numbers held in one block of the resampling, 32 MiB of float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedScores:
    """Average precision of the same training under several seeds."""

    ap: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return float(np.mean(self.ap))

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds, None for one seed."""
        return float(np.std(self.ap, ddof=1)) if len(self.ap) > 1 else None

    def to_dict(self, metric: str = "ap") -> dict[str, Any]:
        """Give the entry of a comparison record; scores that are no AP are named by their metric."""
        return {metric: list(self.ap), "mean": self.mean, "std": self.std}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The difference of average precision, distilled minus control, and how sure it is.

    `difference` is the one observed; `low` and `high` bound it at the given confidence over the
    choice of images, with the trained models as they are.
    """

    control: SeedScores
    distilled: SeedScores
    difference: float
    low: float
    high: float
    confidence: float
    resamples: int
    images: int
    metric: str = "AP"

    @property
    def verdict(self) -> Verdict:
        """`better` or `worse` only where the interval leaves out 0."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "not shown"

    @property
    def sentence(self) -> str:
        """The verdict in words, with the numbers it rests on."""
        digits = _digits(self.low, self.high)
        percent = f"{100 * self.confidence:g}%"
        seeds = len(self.distilled.ap)
        basis = (
            f"{self.images:,} {'image' if self.images == 1 else 'images'}, {seeds} {'seed' if seeds == 1 else 'seeds'}"
        )
        interval = f"{self.low:.{digits}f} to {self.high:.{digits}f}"
        if self.verdict == "not shown":
            difference = round(self.difference, digits) + 0.0  # never -0.000
            return (
                f"A gain from distillation is not shown: {self.metric} differs by {difference:+.{digits}f}, "
                f"and the {percent} interval {interval} holds 0 ({basis})."
            )
        verb = "raised" if self.verdict == "better" else "lowered"
        return (
            f"Distillation {verb} {self.metric} by {abs(self.difference):.{digits}f} "
            f"({percent} interval of the difference {interval}, {basis})."
        )

    def to_dict(self) -> dict[str, Any]:
        """Give `control`, `distilled`, `difference`, `verdict` and `sentence` as a comparison record holds them."""
        return {
            "control": self.control.to_dict(self.metric.lower()),
            "distilled": self.distilled.to_dict(self.metric.lower()),
            "difference": {
                "mean": self.difference,
                "low": self.low,
                "high": self.high,
                "confidence": self.confidence,
                "resamples": self.resamples,
                "method": "paired bootstrap over images",
            },
            "verdict": self.verdict,
            "sentence": self.sentence,
        }


def _digits(low: float, high: float) -> int:
    """Give the decimals, 3 or more, at which a bound that is not 0 does not print as 0."""
    bounds = [abs(bound) for bound in (low, high) if bound != 0]
    return next((digits for digits in range(3, 9) if all(bound >= 0.5 * 10**-digits for bound in bounds)), 9)


def compare(
    *,
    control: Sequence[Matches],
    distilled: Sequence[Matches],
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Bootstrap the difference of AP over images, every model on the same resamples.

    Each side is a list with one entry a seed; the difference is that of their means. The interval is
    that of percentiles. Resamples without a face are left out. The same seed gives the same interval.

    Errors: UsageError for an empty side; DataError for matches of different images, or without a face.
    Source: Efron and Tibshirani 1993, chapter 13.
    """
    if not control or not distilled:
        raise UsageError("Expected the matches of one control and one distilled model at least; got none of one side.")
    faces = control[0].faces
    if any(not np.array_equal(each.faces, faces) for each in (*control, *distilled)):
        raise DataError("Expected matches of the same images with the same faces; evaluate both models on one set.")
    if faces.sum() == 0:
        raise DataError("Expected at least one face to find in the images compared; got none.")
    drawn = np.random.default_rng(seed).multinomial(len(faces), np.full(len(faces), 1 / len(faces)), size=resamples)
    weights = drawn[drawn @ faces > 0].astype(np.float64)
    sides = [np.mean([weighted_average_precision(each, weights) for each in side], 0) for side in (control, distilled)]
    tail = 50 * (1 - confidence)
    low, high = np.percentile(sides[1] - sides[0], [tail, 100 - tail])
    scores = [SeedScores(ap=tuple(average_precision(each).ap or 0.0 for each in side)) for side in (control, distilled)]
    return Comparison(
        control=scores[0],
        distilled=scores[1],
        difference=scores[1].mean - scores[0].mean,
        low=float(low),
        high=float(high),
        confidence=confidence,
        resamples=resamples,
        images=len(faces),
    )


def weighted_average_precision(matches: Matches, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the AP of sets that hold each image a given number of times.

    The envelope can only fall between hits, so the curve is followed at the scores of hits alone.

    Shapes: weights (sets, images), a face at least in each set -> (sets,).
    """
    counted = np.flatnonzero(matches.counted)
    order = counted[np.argsort(-matches.scores[counted], kind="stable")]
    scores, hits, images = matches.scores[order], matches.hits[order], matches.images[order]
    rank = np.cumsum(np.diff(scores, prepend=scores[:1]) != 0)  # equal scores enter together
    points = np.unique(rank[hits])
    point = np.searchsorted(points, rank)
    rows = max(1, BLOCK // max(1, len(points)))
    result = np.zeros(len(weights))
    if len(points) == 0:
        return result
    for start in range(0, len(weights), rows):
        chosen = weights[start : start + rows]
        gained = _sum_per_point(chosen, point[hits], images[hits], len(points))
        found = np.cumsum(gained, axis=1)
        total = np.cumsum(_sum_per_point(chosen, point, images, len(points)), axis=1)
        precision = np.divide(found, total, out=np.zeros_like(found), where=total > 0)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        result[start : start + rows] = (gained * envelope).sum(axis=1) / (chosen @ matches.faces)
    return result


def _sum_per_point(weights: NDArray[np.float64], point: IntArray, images: IntArray, points: int) -> NDArray[np.float64]:
    """Add up the weights of the detections of each point, as a product with their counts per image.

    Shapes: weights (sets, images); point and images (k,), point rising -> (sets, points).
    """
    width = weights.shape[1]
    sums = np.empty((len(weights), points))
    block = max(1, BLOCK // width)
    for start in range(0, points, block):
        size = min(block, points - start)
        first, last = np.searchsorted(point, [start, start + size])
        cells = (point[first:last] - start) * width + images[first:last]
        counts = np.bincount(cells, minlength=size * width).reshape(size, width)
        sums[:, start : start + size] = weights @ counts.T.astype(np.float64)
    return sums
