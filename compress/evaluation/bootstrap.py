"""Average precision of many resampled sets of images at once."""

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.detections import IntArray
from featherpress.compress.evaluation.metrics.average_precision import Matches

BLOCK = 2**22
"""Numbers held in one block of the resampling, 32 MiB of float64."""


def weighted_average_precision(matches: Matches, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the AP of sets that hold each image a given number of times.

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
