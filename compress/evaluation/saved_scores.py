"""Saved evaluations and COCO results as scores that can be computed again on resampled images."""

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featherpress.compress.evaluation.archives import Arrays, load_arrays
from featherpress.compress.evaluation.bootstrap import weighted_average_precision
from featherpress.compress.evaluation.detections import Detections, DetectionSet, Truth
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.evaluation.metrics.average_precision import Matches, corners, match
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet, match_categories, weighted_map
from featherpress.compress.evaluation.metrics.overlap import MaskOverlaps, weighted_miou
from featherpress.compress.evaluation.metrics.values import ExampleValues
from featherpress.errors import DataError, FileError
from featherpress.files import read_bytes
from featherpress.verdicts import Scores
from featherpress.verdicts.intervals import Array
from featherpress.verdicts.tables import Side, match_examples


def detection_scores(sets: Sequence[DetectionSet]) -> Scores:
    """Return the AP of detectors, one a seed, for resampling.

    Errors: DataError for sets of other images or faces.
    """
    found = matched_scores([match(each.detections, each.truths) for each in sets])
    truth = _digest(*(array for each in sets[0].truths for array in (each.boxes, each.ignored)))
    return replace(found, truth=truth)


def matched_scores(matches: Sequence[Matches]) -> Scores:
    """Return the AP of matches, one a seed, for resampling.

    Errors: DataError for matches of different images, or without a face; UsageError for none.
    """
    if any(not np.array_equal(each.faces, matches[0].faces) for each in matches):
        raise DataError("Expected matches of the same images with the same faces; evaluate both models on one set.")
    metrics = tuple(partial(weighted_average_precision, each) for each in matches)
    return Scores(metrics=metrics, objects=matches[0].faces if matches else np.zeros(1, np.int64))


def accuracy_scores(answers: Sequence[ClassPredictions]) -> Scores:
    """Return the accuracy of classifiers, one a seed, for resampling.

    Errors: DataError for answers about different images.
    """
    if any(each.names != answers[0].names for each in answers):
        raise DataError("Expected answers about the same images; evaluate both models on one set.")
    found = Scores.of([each.labels == each.predicted for each in answers])
    _, first, numbers = np.unique(answers[0].labels, return_index=True, return_inverse=True)
    return replace(found, truth=_digest(first[numbers]))  # models may number the same classes otherwise


def value_scores(sets: Sequence[ExampleValues]) -> Scores:
    """Return the mean of values, one set a seed, for resampling.

    Errors: DataError for values of different examples.
    """
    if any(each.names != sets[0].names for each in sets):
        raise DataError("Expected values of the same examples; evaluate both models on one set.")
    return Scores.of([each.values for each in sets])


def miou_scores(sets: Sequence[MaskOverlaps]) -> Scores:
    """Return the mIoU of segmenters, one a seed, for resampling; images are what is drawn again.

    Errors: DataError for masks of different images, labels or classes.
    """
    for each in sets:
        same = (each.names, each.classes) == (sets[0].names, sets[0].classes)
        if not same or not np.array_equal(each.labelled, sets[0].labelled):
            raise DataError("Expected masks of the same images and classes; evaluate both models on one set.")
    pixels = sets[0].labelled.sum(axis=1) if sets else np.zeros(1, np.int64)
    found = Scores(metrics=tuple(partial(weighted_miou, each) for each in sets), objects=pixels)
    order = np.argsort(sets[0].classes)
    return replace(found, truth=_digest(np.array(sets[0].classes)[order], sets[0].labelled[:, order]))


def map_scores(sets: Sequence[ObjectSet]) -> Scores:
    """Return COCO's mAP of detectors of several categories, one a seed, for resampling.

    Errors: DataError for sets of different images, objects or categories.
    """
    for each in sets:
        same = (each.names, each.categories) == (sets[0].names, sets[0].categories)
        if not same or not np.array_equal(each.truth_boxes, sets[0].truth_boxes):
            raise DataError("Expected detections in the same images; evaluate both models on one set.")
    owners = np.repeat(np.arange(len(sets[0].names)), sets[0].labelled) if sets else np.zeros(0, np.int64)
    objects = (
        np.bincount(owners[~sets[0].truth_ignored], minlength=len(sets[0].names)) if sets else np.zeros(1, np.int64)
    )
    found = Scores(metrics=tuple(partial(weighted_map, match_categories(each)) for each in sets), objects=objects)
    named = np.array(sets[0].categories)[sets[0].truth_classes]
    return replace(found, truth=_digest(sets[0].truth_boxes, sets[0].truth_ignored, named))


def _digest(*arrays: NDArray[Any]) -> str:
    """Return a text that differs where labels do."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays)).hexdigest()


_FORMATS: Mapping[str, tuple[type[Any], Callable[[Any], Scores]]] = {
    "predicted": (ClassPredictions, accuracy_scores),
    "intersections": (MaskOverlaps, miou_scores),
    "values": (ExampleValues, value_scores),
    "truth_classes": (ObjectSet, map_scores),
    "truth_boxes": (DetectionSet, detection_scores),
}
"""Each format of a saved file by an array that it alone has: its class, and what scores several of it."""


def read_saved(path: Path, *, order: Sequence[str] | None = None) -> Side:
    """Read a run folder with all its seeds, the folder of an evaluation, its record, or what was found itself.

    Errors: DataError where nothing is saved there, or about other images.
    """
    files = _saved_files(path)
    sets = [load_arrays(file, _build, what="detections") for file in files.values()]
    first = sets[0]
    if any(type(each) is not type(first) for each in sets):
        raise DataError(f"{path} holds seeds of different tasks")
    for each in sets:
        match_examples(each.names, order or first.names, str(path))
        if each.names != tuple(order or first.names):
            raise DataError(f"{path} has the same images in another order; evaluate both models alike")
    metric, score = next((first.metric, score) for kind, score in _FORMATS.values() if isinstance(first, kind))
    return Side(
        name=str(path),
        metric=metric,
        seeds=tuple(files),
        examples=first.names,
        scores=score(sets),
        bounded=all(not isinstance(each, ExampleValues) or _are_shares(each) for each in sets),
        unit="images",
    )


def _are_shares(found: ExampleValues) -> bool:
    return bool(found.values.min() >= 0 and found.values.max() <= 1)


def _build(arrays: Arrays) -> Any:
    kind: Any = next((kind for name, (kind, _) in _FORMATS.items() if name in arrays), DetectionSet)
    return kind.from_arrays(arrays)


def _saved_files(path: Path) -> dict[str, Path]:
    """Find what was found, by seed."""
    if path.suffix == ".npz":
        return {"0": path}
    if path.suffix == ".json":
        beside = [path.with_suffix(".npz"), path.with_name("detections.npz")]
        found = next((file for file in beside if file.is_file()), None)
        if found is None:
            raise DataError(f"{path}: the record alone has no value per image; keep {beside[0].name} beside it")
        return {"0": found}
    for name in ("detections.npz", "evaluation.npz"):
        if (path / name).is_file():
            return {"0": path / name}
    return _seeds_of_run(path)


def _seeds_of_run(path: Path) -> dict[str, Path]:
    """Find the seeds of a run, or of its control where that folder is given."""
    run, arm = (path.parent, path.name) if path.name == "control" else (path, "")
    inner = Path(arm) / "eval" / "validation.npz"
    files = {run / inner: _first_seed(run)}
    files |= {file / inner: file.name.removeprefix("seed-") for file in sorted(run.glob("seed-*"))}
    found = {seed: file for file, seed in files.items() if file.is_file()}
    if not found:
        raise DataError(f"{path}: expected a run or an evaluation, found no {inner} and no detections.npz in it")
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))


def _first_seed(run: Path) -> str:
    try:
        content = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
        return str(content.get("seeds", [0])[0])
    except (OSError, ValueError, LookupError):
        return "0"


def read_coco_results(path: Path, ground_truth: Path, *, order: Sequence[str] | None = None) -> Side:
    """Read detections in COCO's results format; AP is at IoU 0.5, its mean over the categories that have an object.

    Errors: DataError for files of another kind, and for images or categories that the ground truth does not have.
    Source: Lin et al. 2014, Microsoft COCO, and its results format.
    """
    truth = _json(ground_truth)
    rows = _json(path)
    if not isinstance(truth, dict) or not isinstance(rows, list):
        raise DataError(f"expected COCO's annotations in {ground_truth} and a list of results in {path}")
    if not rows:
        raise DataError(f"{path} is empty: it holds no detection")
    try:
        images = {each["id"]: number for number, each in enumerate(truth["images"])}
        names = tuple(str(each["id"]) for each in truth["images"])
        kinds = [each["id"] for each in truth["categories"]]
        unknown = sorted({str(row["image_id"]) for row in rows if row["image_id"] not in images})
        if unknown:
            raise DataError(f"{path}: {len(unknown)} images are not in {ground_truth} ({', '.join(unknown[:3])}, ...)")
        matches = [_matches(kind, images, truth["annotations"], rows) for kind in kinds]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"{path} with {ground_truth}: not COCO's format ({type(error).__name__}: {error})") from error
    if order is not None:
        match_examples(names, order, str(path))
    kept = [each for each in matches if each.faces.sum()]
    objects = np.sum([each.faces for each in kept], axis=0) if kept else np.zeros(len(images), np.int64)
    return Side(
        name=str(path),
        metric="AP",
        seeds=("0",),
        examples=names,
        scores=Scores(metrics=(partial(_mean_over_categories, kept),), objects=objects),
        bounded=True,
        unit="images",
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(read_bytes(path).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror}") from error


def _matches(kind: object, images: dict[Any, int], labels: Sequence[Any], rows: Sequence[Any]) -> Matches:
    """Match the detections of one category in every image."""
    found: list[list[Any]] = [[] for _ in images]
    for row in rows:
        if row["category_id"] == kind:
            found[images[row["image_id"]]].append([*row["bbox"], row["score"]])
    truths: list[list[Any]] = [[] for _ in images]
    for row in labels:
        if row["category_id"] == kind:
            truths[images[row["image_id"]]].append([*row["bbox"], row.get("iscrowd", 0)])
    return match([_detections(each) for each in found], [_truth(each) for each in truths])


def _corners(rows: Sequence[Any]) -> tuple[Array, Array]:
    """Split rows of x, y, width, height and one more value into corners and that value."""
    try:
        table = np.array(rows, dtype=np.float64).reshape(-1, 5)
    except OverflowError as error:
        raise ValueError("a box or a score is beyond what a number can be") from error
    if not np.isfinite(table).all():
        raise ValueError("a box or a score is not a finite number")
    return corners(table), table[:, 4]


def _detections(rows: Sequence[Any]) -> Detections:
    boxes, scores = _corners(rows)
    order = np.argsort(-scores, kind="stable")
    return Detections(boxes=boxes[order], scores=scores[order], landmarks=np.zeros((len(rows), 10)))


def _truth(rows: Sequence[Any]) -> Truth:
    boxes, crowd = _corners(rows)
    return Truth(boxes=boxes, ignored=crowd > 0)


def _mean_over_categories(matches: Sequence[Matches], weights: Array) -> Array:
    """Return the mean AP of the categories that a set holds an object of, (sets,)."""
    total, counted = np.zeros(len(weights)), np.zeros(len(weights))
    for each in matches:
        holds = weights @ each.faces > 0
        total[holds] += weighted_average_precision(each, weights[holds])
        counted += holds
    return total / np.maximum(counted, 1)
