"""A classifier's weights scored on a folder of classes, without a recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featherpress.compress.data.sources.class_folders import SPLITS, ClassFolder, split_folder
from featherpress.compress.data.transforms import Transforms
from featherpress.compress.evaluation.detector.inference import EvaluationResult
from featherpress.compress.evaluation.scoring import describe_weights
from featherpress.compress.tasks.classification.options import middle
from featherpress.compress.tasks.classification.scoring import ACCURACY, predict_classes, score_fields
from featherpress.errors import DataError, UsageError
from featherpress.models.factories import load_factory
from featherpress.models.inputs import ModelInput, normalization_of
from featherpress.models.saving import build_with_weights, read_input, settings_of_file
from featherpress.records.evaluation import TaskEvaluation

_SIZE = 224


def evaluate_folder(
    model: str, weights: Path, data: Path, *, split: str = "val", limit: int = 0, settings: Mapping[str, Any]
) -> EvaluationResult:
    """Score `package.module:factory` with a file's weights on `data/val/CLASS/*.jpg`, or on `data/CLASS/*.jpg`.

    Size, normalisation, class names and the factory's settings are what the file says; else 224 pixels, the model's own
    or ImageNet's, and the folders, sorted. Images are scaled to 8/7 of the size and their middle is taken.

    Errors: `DataError` for folders that are not the model's classes; `CheckpointError` for weights that do not fit.
    """
    said = read_input(weights)
    built = {**settings_of_file(weights, model), **settings}
    net = build_with_weights(lambda: load_factory(model, built), weights)
    folder = split_folder(data, split) if any((data / name).is_dir() for name in SPLITS.get(split, ())) else data
    dataset = ClassFolder(folder, classes=said.classes if said else (), limit=limit)
    mean, std = (said.mean, said.std) if said else normalization_of(net)
    takes = ModelInput(mean=mean, std=std, size=(said.size if said else 0) or _SIZE)
    _require_logits(net, model, dataset, takes.size)
    prepare = Transforms(middle(takes.size), kind="label", height=takes.size, width=takes.size)
    found, skipped = predict_classes(net, dataset, range(len(dataset)), prepare=prepare, takes=takes)
    sizes = {"images": len(found.names), "classes": len(dataset.classes)}
    record = {
        "schema": TaskEvaluation.SCHEMA,
        **describe_weights(weights, net, name=model),
        "data": {"name": data.name, "split": split, "skipped": skipped, **sizes},
        "metric": ACCURACY.to_dict(),
        "score": found.accuracy,
        **score_fields(found, dataset.classes),
    }
    return EvaluationResult(predictions=found, score=found.accuracy, record=record)


def render_classes(record: Mapping[str, Any]) -> str:
    """Write a record as lines: accuracy, top-5, and each class."""
    data = record["data"]
    lines = [f"accuracy {record['score']:.4f} on {data['images']:,} images of {data['classes']:,} classes"]
    lines += [f"{name} {value:.4f}" for name, value in record["further"].items()]
    scores = [(each["name"], each["examples"], each["score"]) for each in record["by_class"]]
    width = max(len(name) for name, _, _ in scores)
    lines += [
        f"  {name:<{width}}  {'-' if score is None else format(score, '.4f')}  {count:,}"
        for name, count, score in scores
    ]
    if data["skipped"]:
        lines.append(f"{data['skipped']:,} images could not be read, and are not counted")
    return "\n".join([*lines, f"weights {record['weights']}, sha256 {record['weights_sha256'][:12]}"])


@torch.no_grad()
def _require_logits(net: nn.Module, model: str, dataset: ClassFolder, size: int) -> None:
    found = net.eval()(torch.zeros(1, 3, size, size))
    shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
    if not isinstance(found, Tensor):
        raise UsageError(
            f"{model} gives a {shape}, expected logits: only classifiers are scored on a folder of classes"
        )
    if shape != (1, len(dataset.classes)):
        raise DataError(f"{model} gives {shape} for one image, and {dataset.images} has {len(dataset.classes)} classes")
