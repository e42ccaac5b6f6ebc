"""What a detector finds, how well, and whether that is more than chance."""

from featherpress.compress.evaluation.average_precision import (
    HeightScore,
    Matches,
    Score,
    average_precision,
    average_precision_by_height,
    match,
    match_image,
)
from featherpress.compress.evaluation.bootstrap import Comparison, compare
from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth

__all__ = [
    "Comparison",
    "DetectionSet",
    "Detections",
    "HeightScore",
    "Matches",
    "Score",
    "Truth",
    "average_precision",
    "average_precision_by_height",
    "compare",
    "match",
    "match_image",
]
