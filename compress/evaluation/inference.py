"""From a trained model and images to detections, and from detections to a record."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms
from torchvision.transforms.v2 import functional as F

from featherpress.compress.data import FaceDataset
from featherpress.compress.evaluation.average_precision import average_precision, average_precision_by_height, match
from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.progress import Progress
from featherpress.compress.recipes.schema import check_long_side
from featherpress.errors import DataError, UsageError
from featherpress.models import Detector, normalize
from featherpress.models.priors import decode_boxes, decode_landmarks

__all__ = ["DetectionSettings", "Evaluation", "detect_faces", "evaluate_model", "select_detections"]

_LEAST_SIDE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSettings:
    """How raw outputs become detections.

    `long_side` is the test scale: the longer side of the image in pixels, 0 for the image as it is. Scores below
    `score_threshold` are dropped; at most `candidates` go into non-maximum suppression at `nms_iou`, and at most
    `top_k` come out.
    """

    long_side: int = 0
    score_threshold: float = 0.02
    nms_iou: float = 0.4
    candidates: int = 5000
    top_k: int = 750

    def __post_init__(self) -> None:
        """Refuse a scale that no image survives."""
        try:
            check_long_side(self.long_side)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the protocol as an evaluation record has it."""
        scale = f"long side {self.long_side}" if self.long_side else "original"
        return {
            "iou": 0.5,
            "test_scale": scale,
            **{key: value for key, value in asdict(self).items() if key != "long_side"},
        }


@torch.inference_mode()
def detect_faces(model: Detector, image: Tensor, *, settings: DetectionSettings) -> Detections:
    """Find the faces in one image; the model should be in eval mode.

    Shapes: image (3, H, W) uint8 RGB -> at most `top_k` detections in its pixels, by falling score.
    """
    device = next(model.parameters()).device
    height, width = image.shape[-2:]
    scale = settings.long_side / max(height, width) if settings.long_side else 1.0
    scaled = image if scale == 1.0 else F.resize(image, [max(round(height * scale), 1), max(round(width * scale), 1)])
    rows, columns = scaled.shape[-2:]
    inputs = normalize(scaled[None].to(device))
    # A model needs 64 pixels a side; beyond the image it sees its mean.
    inputs = torch.nn.functional.pad(inputs, (0, max(_LEAST_SIDE - columns, 0), 0, max(_LEAST_SIDE - rows, 0)))
    boxes, logits, landmarks = model(inputs.contiguous(memory_format=torch.channels_last))
    priors = model.priors(*inputs.shape[-2:])
    found = select_detections(
        decode_boxes(boxes[0].float(), priors),
        logits[0].float().softmax(dim=-1)[:, 1],
        decode_landmarks(landmarks[0].float(), priors),
        settings=settings,
    )
    back = np.array([width / columns, height / rows], dtype=np.float32)
    limits = np.array([width, height] * 2, dtype=np.float32)
    return Detections(
        boxes=np.clip(found.boxes * np.tile(back, 2), 0, limits),
        scores=found.scores,
        landmarks=found.landmarks * np.tile(back, 5),
    )


def select_detections(boxes: Tensor, scores: Tensor, landmarks: Tensor, *, settings: DetectionSettings) -> Detections:
    """Drop low scores, then all but the best of overlapping boxes.

    Shapes: boxes (P, 4) corners, scores (P,), landmarks (P, 10) -> detections by falling score.
    """
    kept = (scores > settings.score_threshold).nonzero()[:, 0]
    kept = kept[scores[kept].argsort(descending=True, stable=True)[: settings.candidates]]
    kept = kept[nms(boxes[kept], scores[kept], settings.nms_iou)[: settings.top_k]]
    return Detections(
        boxes=boxes[kept].cpu().numpy(), scores=scores[kept].cpu().numpy(), landmarks=landmarks[kept].cpu().numpy()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A model's detections on a data set beside the truth; `skipped` images could not be read."""

    found: DetectionSet
    settings: DetectionSettings
    skipped: int
    seconds: float

    @property
    def ap(self) -> float:
        """AP at IoU 0.5 over all valid faces; 0 when there are none."""
        return average_precision(match(self.found.detections, self.found.truths)).ap or 0.0

    def to_dict(self, *, data: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
        """Return the evaluation record: what was scored (`about`), on what (`data`), how, and the scores."""
        detections, truths = self.found.detections, self.found.truths
        score = average_precision(match(detections, truths))
        ignored = sum(int(truth.ignored.sum()) for truth in truths)
        counts = {"images": len(truths), "skipped": self.skipped, "faces": score.faces, "ignored": ignored}
        return {
            "schema": "featherpress.evaluation/1",
            **about,
            "data": {**data, **counts},
            "protocol": self.settings.to_dict(),
            **score.to_dict(),
            "by_height": [height.to_dict() for height in average_precision_by_height(detections, truths)],
            "seconds": round(self.seconds, 3),
        }


def evaluate_model(
    model: Detector,
    dataset: FaceDataset,
    *,
    settings: DetectionSettings,
    label: str = "evaluating",
    skip_broken: bool = False,
    indices: Sequence[int] | None = None,
) -> Evaluation:
    """Run a model over a data set, or over some of its images, in eval mode; its own mode is restored.

    Errors: `DataError` for an image that cannot be read, unless `skip_broken`; then it is counted.
    """
    began, was_training = time.monotonic(), model.training
    names, detections, truths, skipped = [], [], [], 0
    chosen = range(len(dataset)) if indices is None else indices
    model.eval()
    try:
        with Progress(label, total=len(chosen)) as progress:
            for index in chosen:
                try:
                    sample = dataset[index]
                except DataError:
                    if not skip_broken:
                        raise
                    skipped += 1
                    continue
                names.append(sample.name)
                detections.append(detect_faces(model, sample.image, settings=settings))
                truths.append(Truth(boxes=sample.faces.boxes.numpy(), ignored=sample.faces.ignored.numpy()))
                progress.advance()
    finally:
        model.train(was_training)
    found = DetectionSet(names=tuple(names), detections=tuple(detections), truths=tuple(truths))
    return Evaluation(found=found, settings=settings, skipped=skipped, seconds=time.monotonic() - began)
