"""One model on one data set: opening the data, scoring the model, and the record."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from featherpress.compress.data import CocoFaces, LabelledFolder, WiderFaces, require_sound
from featherpress.compress.data.sources.predicted import POSITIVE_THRESHOLD, PredictedFaces
from featherpress.compress.data.sources.widerface import is_widerface
from featherpress.compress.evaluation.comparison import compare
from featherpress.compress.evaluation.detections import DetectionSet, FloatArray, Truth
from featherpress.compress.evaluation.detector.inference import EvaluationResult, evaluate_model
from featherpress.compress.evaluation.detector.settings import THRESHOLD, DetectionSettings
from featherpress.compress.evaluation.metrics.coco import score_coco
from featherpress.compress.evaluation.saved_scores import detection_scores
from featherpress.compress.evaluation.widerface.files import write_predictions
from featherpress.compress.evaluation.widerface.images import OfficialImages, predictions_by_event
from featherpress.errors import DataError, UsageError
from featherpress.files import hash_file, write_json
from featherpress.models import Detector
from featherpress.models.creation import origin_of
from featherpress.records.evaluation import SCORED
from featherpress.verdicts import Claim

DETECTIONS = "detections.npz"


Curves = Mapping[str, tuple[FloatArray, FloatArray]]
"""Recall and precision, by name."""


def open_labelled(
    root: Path,
    *,
    split: str = "val",
    category: str = "",
    ground_truth: Path | None = None,
    present_only: bool = False,
    labels: Path | None = None,
    positive_threshold: float = POSITIVE_THRESHOLD,
    limit: int = 0,
) -> LabelledFolder:
    """Open a folder of labelled images by its kind, and check that every image can be used.

    With `ground_truth`, WIDER FACE's own validation images. With `labels`, another model's detections, of which those
    that score `positive_threshold` or more are faces. Else a split in WIDER FACE's layout, or the split, or all, of a
    folder in one of the layouts that `open_objects` knows.
    Errors: `DataError` as for each of these, and as `require_sound`.
    """
    dataset: LabelledFolder
    if labels and (ground_truth or category):
        raise UsageError("--labels goes neither with --ground-truth nor with --category")
    wider = not (ground_truth or labels) and is_widerface(root)
    if category and (wider or ground_truth):
        raise UsageError("faces of WIDER FACE have no --category")
    if present_only and not ground_truth:
        raise UsageError("--present-only goes with --ground-truth")
    if ground_truth:
        dataset = OfficialImages(root, ground_truth, present_only=present_only, limit=limit or None)
    elif labels:
        dataset = PredictedFaces(root, labels, positive_threshold=positive_threshold, limit=limit or None)
    elif wider:
        dataset = WiderFaces(root, split, limit=limit or None)
    else:
        dataset = CocoFaces(root, split, anywhere=True, category=category, limit=limit or None)
    require_sound(dataset)
    return dataset


def describe_weights(path: Path, model: nn.Module, *, name: str = "", role: str = "model") -> dict[str, Any]:
    """Return the entries of a record that describe the weights: model, file, sha256, size and parameters."""
    origin = origin_of(model)
    return {
        "model": name or (origin.name if origin else type(model).__name__),
        "role": role,
        "weights": path.name,
        "weights_sha256": hash_file(path),
        "params": sum(weight.numel() for weight in model.parameters()),
        "macs": None,
        "file_bytes": path.stat().st_size,
    }


def score_model(
    detector: Detector,
    dataset: LabelledFolder,
    *,
    settings: DetectionSettings,
    about: Mapping[str, Any],
    data: Mapping[str, Any],
    batch: int = 1,
    at: float = THRESHOLD,
    coco: bool = True,
) -> tuple[EvaluationResult, Curves]:
    """Score a model by AP at IoU 0.5, overall and by face height, by COCO's AP, and officially on official images.

    `at` is the score of its working point.

    Returns the evaluation, and precision over recall of all faces or, on official images, of the three subsets.

    Errors: DataError where there is no valid face, and therefore no AP.
    """
    if not dataset.has_objects:
        raise DataError(f"there is no valid face in {dataset.labels}, so there is no AP")
    result = evaluate_model(detector, dataset, settings=settings, batch=batch, at=at, data=data, about=about)
    record = result.record
    if dataset.left_out:
        record["data"]["left_out"] = dataset.left_out
    if coco:
        record["coco"] = score_coco(result.predictions)
    if isinstance(dataset, PredictedFaces):
        record["data"]["labels"] = {
            "file": dataset.labels.name,
            "positive_threshold": dataset.positive_threshold,
            "ignore_threshold": dataset.ignore_threshold,
            **{key: said for key, said in dataset.found_by.items() if said},
        }
    if isinstance(dataset, OfficialImages):
        scores = dataset.score(result.predictions)
        record |= scores.to_dict()
        record["data"]["missing"] = dataset.missing
        return result, scores.curves
    return result, {"all faces": (record["curve"]["recall"], record["curve"]["precision"])}


def compare_with(scored: EvaluationResult, folder: Path) -> dict[str, Any]:
    """Put an interval on the difference of AP to an earlier evaluation, which `save_scored` wrote into a folder.

    Errors: DataError where the folder holds no evaluation, or one of other images or faces.
    """
    earlier = DetectionSet.load(folder / DETECTIONS)
    if earlier.names != scored.predictions.names or not all(map(_same, earlier.truths, scored.predictions.truths)):
        raise DataError(f"{folder} is an evaluation of other images or other faces, so that nothing can be compared")
    names = _tell_apart(scored.record["weights"], folder)
    compared = compare(
        baseline=detection_scores([earlier]),
        candidate=detection_scores([scored.predictions]),
        claim=Claim(files=names),
    )
    return {
        "folder": folder.name,
        "ap": compared.baseline[0],
        "difference": compared.difference.to_dict(),
        "verdict": compared.verdict,
        "sentence": compared.sentence,
    }


def _tell_apart(candidate: str, folder: Path) -> tuple[str, str]:
    """Name two files of weights; an earlier one of the same name by the folder of its evaluation too."""
    try:
        earlier = str(json.loads((folder / SCORED).read_text(encoding="utf-8"))["weights"])
    except (OSError, ValueError, KeyError):
        earlier = folder.name
    return candidate, earlier if earlier != candidate else f"{earlier} of {folder.name}"


def _same(one: Truth, other: Truth) -> bool:
    return np.array_equal(one.boxes, other.boxes) and np.array_equal(one.ignored, other.ignored)


def save_scored(scored: EvaluationResult, out: Path) -> None:
    """Write `evaluation.json`, every detection as `detections.npz`, and WIDER FACE's text files in `predictions/`.

    Text files are written only if every image lies in a folder, which is its event.
    """
    write_json(out / SCORED, scored.record)
    scored.predictions.save(out / DETECTIONS)
    if all("/" in name for name in scored.predictions.names):
        write_predictions(out / "predictions", predictions_by_event(scored.predictions))
