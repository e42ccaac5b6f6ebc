"""From a trained model and images to detections, and from detections to a record."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from featherpress.compress.data import Sample, SampleDataset
from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.detector.postprocess import decode_outputs, select_detections
from featherpress.compress.evaluation.detector.preprocess import pad_to, scale_to
from featherpress.compress.evaluation.detector.settings import THRESHOLD, DetectionSettings
from featherpress.compress.evaluation.metrics.average_precision import (
    average_precision,
    average_precision_by_height,
    best_threshold,
    match,
    working_point,
)
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError
from featherpress.models import Detector, normalize
from featherpress.models.detectors import LEAST_SIDE

logger = logging.getLogger("featherpress")

Item = TypeVar("Item")

_MOST_WAITING = 8
"""How many batches' worth of images wait for others of their size: enough for a few sizes, and little memory."""


def detect_faces(model: Detector, image: Tensor, *, settings: DetectionSettings) -> Detections:
    """Find the faces in one image; the model should be in eval mode.

    Shapes: image (3, H, W) uint8 RGB -> at most TOP_K detections in its pixels, by falling score.
    """
    return detect_batch(model, image[None], settings=settings)[0]


@torch.inference_mode()
def detect_batch(model: Detector, images: Tensor, *, settings: DetectionSettings) -> list[Detections]:
    """Find the faces in images of one size, all in one forward; the model should be in eval mode.

    Shapes: images (N, 3, H, W) uint8 RGB -> N times at most TOP_K detections in their pixels, by falling score.
    """
    count, _, height, width = images.shape
    scaled = scale_to(images, settings.long_side)
    rows, columns = scaled.shape[-2:]
    inputs = normalize(scaled.to(next(model.parameters()).device, memory_format=torch.channels_last))
    if min(rows, columns) < LEAST_SIDE:
        inputs = pad_to(inputs, LEAST_SIDE).contiguous(memory_format=torch.channels_last)
    priors = model.priors(*inputs.shape[-2:])
    candidates = decode_outputs(model(inputs), priors, score_threshold=settings.score_threshold)
    if settings.flip:
        mirrored = decode_outputs(model(inputs.flip(-1)), priors, score_threshold=settings.score_threshold)
        candidates = candidates.joined(mirrored.mirrored(inputs.shape[-1]))
    selected = select_detections(candidates, count=count, settings=settings)
    return [_in_image(each, width=width, height=height, columns=columns, rows=rows) for each in selected]


def _in_image(detections: Detections, *, width: int, height: int, columns: int, rows: int) -> Detections:
    """Scale what was found in columns x rows pixels back to the image, and cut boxes at its borders."""
    found = detections.scaled(np.array([width / columns, height / rows], dtype=np.float32))
    limits = np.array([width, height] * 2, dtype=np.float32)
    return replace(found, boxes=np.clip(found.boxes, 0, limits))


def grouped_by_size(
    items: Iterable[Item], image_of: Callable[[Item], Tensor], *, batch: int
) -> Iterator[tuple[list[Item], Tensor]]:
    """Group items whose images have the same size into batches, with the images stacked; order is not kept.

    When many images wait for others of their size, the fullest group is yielded first.
    """
    waiting: dict[torch.Size, list[Item]] = {}

    def ready(group: list[Item]) -> tuple[list[Item], Tensor]:
        return group, torch.stack([image_of(item) for item in group])

    for item in items:
        size = image_of(item).shape
        waiting.setdefault(size, []).append(item)
        if len(waiting[size]) == batch:
            yield ready(waiting.pop(size))
        elif sum(map(len, waiting.values())) > _MOST_WAITING * batch:
            yield ready(waiting.pop(max(waiting, key=lambda each: len(waiting[each]))))
    yield from map(ready, waiting.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationResult:
    """A model's predictions on a data set, the evaluation record, and the score: 0 where there is nothing to find."""

    predictions: Any
    score: float
    record: dict[str, Any]


def evaluate_model(
    model: Detector,
    dataset: SampleDataset,
    *,
    settings: DetectionSettings,
    label: str = "evaluating",
    skip_broken: bool = False,
    indices: Sequence[int] | None = None,
    batch: int = 1,
    at: float = THRESHOLD,
    data: Mapping[str, Any] | None = None,
    about: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """Score a model by AP on a data set, or on some of its images, in eval mode; its own mode is restored.

    Up to `batch` images of one size go through the model together. The record says what was scored (`about`), on what
    (`data`), and how; its `ap` is None where there is no valid face. Its working points are from the score `at` on, and
    where F1 is best.

    Errors: `DataError` for an image that cannot be read, unless `skip_broken`; then it is counted.
    """
    began = time.monotonic()
    chosen = range(len(dataset)) if indices is None else indices
    samples = _samples(dataset, chosen, skip_broken=skip_broken)
    predictions = _detect_all(model, samples, settings=settings, batch=batch, label=label, total=len(chosen))
    matches = match(predictions.detections, predictions.truths)
    score = average_precision(matches)
    by_height = average_precision_by_height(predictions.detections, predictions.truths)
    counts = {
        "images": len(predictions.names),
        "skipped": len(chosen) - len(predictions.names),
        "faces": score.faces,
        "ignored": sum(int(truth.ignored.sum()) for truth in predictions.truths),
    }
    record = {
        "schema": "featherpress.evaluation/1",
        **(about or {}),
        "data": {**(data or {}), **counts},
        "protocol": settings.to_dict(),
        **score.to_dict(),
        "working_point": working_point(matches, at).to_dict(),
        "best_f1": working_point(matches, best_threshold(matches)).to_dict(),
        "by_height": [height.to_dict() for height in by_height],
        "seconds": round(time.monotonic() - began, 3),
    }
    return EvaluationResult(predictions=predictions, score=score.ap or 0.0, record=record)


def _detect_all(
    model: Detector,
    samples: Iterable[tuple[int, Sample]],
    *,
    settings: DetectionSettings,
    batch: int,
    label: str,
    total: int,
) -> DetectionSet:
    """Find the faces of all samples in eval mode, and return them in the order of their places."""
    was_training = model.training
    rows: dict[int, tuple[str, Detections, Truth]] = {}
    model.eval()
    try:
        with Progress(label, total=total) as progress:
            for group, images in grouped_by_size(samples, lambda each: each[1].image, batch=batch):
                detections = detect_batch(model, images, settings=settings)
                for (place, sample), each in zip(group, detections, strict=True):
                    truth = Truth(boxes=sample.objects.boxes.numpy(), ignored=sample.objects.ignored.numpy())
                    rows[place] = (sample.name, each, truth)
                    progress.advance()
    finally:
        model.train(was_training)
    ordered = [rows[place] for place in sorted(rows)]
    return DetectionSet(
        names=tuple(name for name, _, _ in ordered),
        detections=tuple(each for _, each, _ in ordered),
        truths=tuple(truth for _, _, truth in ordered),
    )


def _samples(dataset: SampleDataset, chosen: Sequence[int], *, skip_broken: bool) -> Iterator[tuple[int, Sample]]:
    for place, index in enumerate(chosen):
        try:
            sample = dataset[index]
        except DataError as error:
            if not skip_broken:
                raise
            logger.warning("left out of the evaluation: %s", error)
            continue
        yield place, sample
