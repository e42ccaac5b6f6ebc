"""Pseudo-labels: photographs that a teacher labels for its student."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from featherpress.compress.data import Objects, SampleDataset, TrainingCrops
from featherpress.compress.data.sources.unlabelled import (
    LabelledPhotographs,
    kept_labels,
    labels_file,
)
from featherpress.compress.data.subsets import join
from featherpress.compress.evaluation.detector.inference import detect_faces
from featherpress.compress.evaluation.detector.settings import DetectionSettings
from featherpress.compress.evaluation.detector.tiling import merge_detections
from featherpress.compress.recipes.data import UnlabelledRecipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.progress import Progress
from featherpress.compress.tasks.detection.data import training_crops
from featherpress.compress.tasks.detection.options import FaceData
from featherpress.errors import DataError
from featherpress.models import Detector


def mixed_crops(
    data: FaceData,
    labelled: SampleDataset,
    folders: Sequence[SampleDataset],
    teacher: Detector,
    *,
    out: Path,
    seed: int,
) -> TrainingCrops:
    """Return crops of the labelled images, plus crops of the folders of photographs, labelled by the teacher.

    The labels are saved in the run's `labels.json` (`labels-2.json` for a second folder), so that a resumed run uses
    the same ones. Another teacher, or other settings, label again.

    Errors: `DataError` when there are no photographs.
    """
    assert data.unlabelled is not None
    found = [
        label_photographs(teacher, photographs, recipe=data.unlabelled, record=labels_file(out, number))
        for number, photographs in enumerate(folders, start=1)
    ]
    return training_crops(data, labelled, seed=seed, photographs=join(*found), extra=data.unlabelled.per_batch)


def control_crops(data: FaceData, labelled: SampleDataset, *, seed: int) -> TrainingCrops:
    """Cut as many crops a step as `mixed_crops`, of the labelled images alone."""
    assert data.unlabelled is not None
    return training_crops(data, labelled, seed=seed, extra=data.unlabelled.per_batch)


def label_photographs(
    teacher: Detector, photographs: SampleDataset, *, recipe: UnlabelledRecipe, record: Path
) -> LabelledPhotographs:
    """Label photographs with the teacher's detections; one that cannot be read has none and is skipped later."""
    names = [photographs.name(index) for index in range(len(photographs))]
    asked = {
        "teacher": fingerprint(teacher),
        "ignore_threshold": recipe.ignore_threshold,
        "long_side": _as_json(recipe.long_side),
    }
    scales = [DetectionSettings(score_threshold=recipe.ignore_threshold, long_side=side) for side in recipe.long_sides]

    def look() -> dict[str, Any]:
        found = {}
        with Progress("labelling photographs", total=len(photographs)) as progress:
            for index, name in enumerate(names):
                found[name] = _ask(teacher, photographs, index, scales)
                progress.advance()
        return found

    known = kept_labels(record, asked, fits=lambda known: list(known) == names, label=look)
    return LabelledPhotographs(
        photographs, [_faces(known[name], positive_threshold=recipe.positive_threshold) for name in names]
    )


def _as_json(value: int | tuple[int, ...]) -> int | list[int]:
    """Write one scale or several as a file gives them back, so that labels are known again."""
    return list(value) if isinstance(value, tuple) else value


def _ask(
    teacher: Detector, photographs: SampleDataset, index: int, scales: Sequence[DetectionSettings]
) -> dict[str, Any]:
    try:
        image = photographs[index].image
        parts = [detect_faces(teacher, image, settings=settings) for settings in scales]
        detections = parts[0] if len(parts) == 1 else merge_detections(parts, iou=scales[0].nms_iou)
    except DataError:
        return {"boxes": [], "scores": [], "landmarks": []}
    return {
        "boxes": detections.boxes.round(2).tolist(),
        "scores": detections.scores.round(4).tolist(),
        "landmarks": detections.landmarks.round(2).tolist(),
    }


def _faces(label: Mapping[str, Any], *, positive_threshold: float) -> Objects:
    scores = torch.tensor(label["scores"], dtype=torch.float32)
    return Objects(
        boxes=torch.tensor(label["boxes"], dtype=torch.float32).view(-1, 4),
        landmarks=torch.tensor(label["landmarks"], dtype=torch.float32).view(-1, 10),
        has_landmarks=torch.ones(len(scores), dtype=torch.bool),
        ignored=scores < positive_threshold,
        labels=torch.zeros(len(scores), dtype=torch.int64),
    )
