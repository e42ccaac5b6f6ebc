"""Evaluation: predictions, scores, and whether a difference is more than chance."""

from featherpress.compress.evaluation.comparison import Compared, compare
from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.average_precision import (
    Matches,
    Score,
    average_precision,
    average_precision_by_height,
    match,
    match_image,
)
from featherpress.compress.evaluation.widerface.files import (
    prediction_rows,
    read_ground_truth,
    read_predictions,
    write_predictions,
)
from featherpress.compress.evaluation.widerface.protocol import WiderScores, evaluate_widerface

__all__ = [
    "Compared",
    "DetectionSet",
    "Detections",
    "Matches",
    "Score",
    "Truth",
    "WiderScores",
    "average_precision",
    "average_precision_by_height",
    "compare",
    "evaluate_widerface",
    "match",
    "match_image",
    "prediction_rows",
    "read_ground_truth",
    "read_predictions",
    "write_predictions",
]
