"""COCO's average precision of the same detections, by torchmetrics.

Source: Lin et al. 2014, Microsoft COCO, and its detection evaluation.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from featherpress.compress.evaluation.detections import DetectionSet, FloatArray

MOST_DETECTIONS = 100
"""The number of top-scoring detections of an image that count; COCO's own limit."""


def score_coco(predictions: DetectionSet) -> dict[str, Any]:
    """Score detections as COCO does; faces to ignore are its crowds.

    AP over IoU 0.50 to 0.95, at 0.50 and at 0.75, and by area: small is below 32 x 32 pixels, large from 96 x 96 on.
    Recall with all detections that count. None where there is no such face.
    Beside a crowd a detection counts as overlapping by its own area, not by IoU: what lies inside an ignored face is
    forgiven, which is milder than our own AP and WIDER FACE's.
    """
    # Seconds to import, and needed here only.
    from torchmetrics.detection import MeanAveragePrecision  # noqa: PLC0415

    metric = MeanAveragePrecision(backend="faster_coco_eval", max_detection_thresholds=[1, 10, MOST_DETECTIONS])
    metric.warn_on_many_detections = False
    metric.update(
        [
            {**_boxes(each.boxes), "scores": torch.tensor(each.scores.copy(), dtype=torch.float32)}
            for each in predictions.detections
        ],
        [{**_boxes(each.boxes), "iscrowd": torch.tensor(each.ignored).long()} for each in predictions.truths],
    )
    values = {key: float(value) for key, value in metric.compute().items() if value.numel() == 1}
    keys = {"ap": "map", "ap50": "map_50", "ap75": "map_75"}
    keys |= {size: f"map_{size}" for size in ("small", "medium", "large")}
    keys |= {"recall": f"mar_{MOST_DETECTIONS}"}
    scores = {name: values[key] if values[key] >= 0 else None for name, key in keys.items()}
    return {**scores, "most_detections": MOST_DETECTIONS}


def _boxes(boxes: FloatArray) -> dict[str, Tensor]:
    """Return boxes, all of one class."""
    corners = torch.tensor(np.ascontiguousarray(boxes), dtype=torch.float32).reshape(-1, 4)
    return {"boxes": corners, "labels": torch.zeros(len(corners), dtype=torch.int64)}
