"""Evaluation: predictions, scores, and whether a difference is more than chance."""

from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.average_precision import match, match_image
from featherpress.compress.evaluation.widerface.files import read_predictions
from featherpress.compress.evaluation.widerface.protocol import evaluate_widerface

__all__ = [
    "DetectionSet",
    "Detections",
    "Truth",
    "evaluate_widerface",
    "match",
    "match_image",
    "read_predictions",
]
