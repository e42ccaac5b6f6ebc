"""AP over seeds: the values that are known, and their summary."""

import statistics
from collections.abc import Sequence

from featherpress.reports.formats import DASH, spread
from featherpress.reports.records import Evaluation

__all__ = ["mean_score", "score", "scores"]


def scores(evaluations: Sequence[Evaluation], bucket: str | None = None) -> tuple[float, ...]:
    """Return the APs that are known, one a seed, over all faces or those of one bucket of heights."""
    if bucket is None:
        found = [evaluation.ap for evaluation in evaluations]
    else:
        found = [b.ap for evaluation in evaluations for b in evaluation.buckets if b.name == bucket]
    return tuple(value for value in found if value is not None)


def mean_score(values: Sequence[float]) -> float | None:
    """Return the mean over seeds, None when there is no value."""
    return statistics.fmean(values) if values else None


def score(values: Sequence[float]) -> str:
    """Return the mean over seeds, with the sample's standard deviation when there are several."""
    if not values:
        return DASH
    return spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
