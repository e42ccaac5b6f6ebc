"""Scores over seeds: the values that are known, and their summary."""

import statistics
from collections.abc import Sequence

from featherpress.records.evaluation import DetectorEvaluation, Evaluation
from featherpress.reports.formats import DASH, spread


def scores(evaluations: Sequence[Evaluation], bucket: str | None = None) -> tuple[float, ...]:
    """Return the scores that are known, one a seed: of everything, or APs of one bucket of faces' heights."""
    if bucket is None:
        found = [evaluation.score for evaluation in evaluations]
    else:
        detectors = [each for each in evaluations if isinstance(each, DetectorEvaluation)]
        found = [b.ap for each in detectors for b in each.by_height if b.name == bucket]
    return tuple(value for value in found if value is not None)


def mean_score(values: Sequence[float]) -> float | None:
    """Return the mean over seeds, None when there is no value."""
    return statistics.fmean(values) if values else None


def score(values: Sequence[float]) -> str:
    """Return the mean over seeds, with the sample's standard deviation when there are several."""
    if not values:
        return DASH
    return spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)
