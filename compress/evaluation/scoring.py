"""One model on one data set: what to open, how it is scored, and the record of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherpress.compress.data import CocoFaces, LabelledFolder, WiderFaces, require_sound
from featherpress.compress.evaluation.coco import score_coco
from featherpress.compress.evaluation.detections import DetectionSet, FloatArray
from featherpress.compress.evaluation.inference import evaluate_model
from featherpress.compress.evaluation.official import OfficialImages, predictions_by_event
from featherpress.compress.evaluation.settings import DetectionSettings
from featherpress.compress.evaluation.widerface_files import write_predictions
from featherpress.compress.runs import write_json
from featherpress.errors import DataError, UsageError
from featherpress.models import Detector
from featherpress.models.published import hash_file
from featherpress.models.registry import origin_of

__all__ = ["Scored", "describe_weights", "open_labelled", "save_scored", "score_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """An evaluation: its record, every detection behind it, and precision over recall by what was to be found."""

    record: dict[str, Any]
    found: DetectionSet
    curves: Mapping[str, tuple[FloatArray, FloatArray]]


def open_labelled(
    root: Path,
    *,
    split: str = "val",
    category: str = "",
    ground_truth: Path | None = None,
    present_only: bool = False,
    limit: int = 0,
) -> LabelledFolder:
    """Open a folder of labelled images as what it is, and look whether every image can be used.

    With `ground_truth`, WIDER FACE's own validation images; else COCO's format where there is an `annotations.json`
    in the folder or in that of the split; else a split in WIDER FACE's layout.
    Errors: DataError as each of these, and `require_sound`.
    """
    dataset: LabelledFolder
    coco = next((folder for folder in (root, root / split) if (folder / "annotations.json").is_file()), None)
    if category and (coco is None or ground_truth):
        raise UsageError("only boxes in COCO's format have a --category")
    if present_only and not ground_truth:
        raise UsageError("--present-only goes with --ground-truth")
    if ground_truth:
        dataset = OfficialImages(root, ground_truth, present_only=present_only, limit=limit or None)
    elif coco:
        dataset = CocoFaces(coco, category=category, limit=limit or None)
    else:
        dataset = WiderFaces(root, split, limit=limit or None)
    require_sound(dataset)
    return dataset


def describe_weights(path: Path, detector: Detector, *, name: str = "") -> dict[str, Any]:
    """Say which weights are scored: model, file, its sha256, size and parameters, as a record has them."""
    origin = origin_of(detector)
    return {
        "model": name or (origin.name if origin else type(detector).__name__),
        "role": "model",
        "weights": path.name,
        "weights_sha256": hash_file(path),
        "params": sum(weight.numel() for weight in detector.parameters()),
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
    coco: bool = True,
) -> Scored:
    """Score a model by AP at IoU 0.5, overall and by face height, by COCO's AP, and officially on official images.

    Errors: DataError where there is no valid face, so that there is no AP.
    """
    if all(dataset.faces(index).ignored.all() for index in range(len(dataset))):
        raise DataError(f"there is no valid face in {dataset.labels}, so that there is no AP")
    result = evaluate_model(detector, dataset, settings=settings, batch=batch)
    record = result.to_dict(data=data, about=about)
    if coco:
        record["coco"] = score_coco(result.found).to_dict()
    curve = record["curve"]
    curves = {"all faces": (curve["recall"], curve["precision"])}
    if isinstance(dataset, OfficialImages):
        scores = dataset.score(result.found)
        record |= scores.to_dict()
        record["data"]["missing"] = dataset.missing
        curves = dict(scores.curves)
    return Scored(record=record, found=result.found, curves=curves)


def save_scored(scored: Scored, out: Path) -> None:
    """Write `evaluation.json`, every detection as `detections.npz`, and WIDER FACE's text files in `predictions/`.

    Images that lie in no folder have no event to be written under; then there are no text files.
    """
    write_json(out / "evaluation.json", scored.record)
    scored.found.save(out / "detections.npz")
    if all("/" in name for name in scored.found.names):
        write_predictions(out / "predictions", predictions_by_event(scored.found))
