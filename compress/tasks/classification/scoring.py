"""Classifiers scored: what they predict for each image, and the record of it."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featherpress.compress.data.examples import Example
from featherpress.compress.data.transforms import Transforms
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.evaluation.metrics.accuracy import ClassPredictions
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError
from featherpress.models.inputs import ModelInput
from featherpress.records.evaluation import Metric

ACCURACY = Metric(key="accuracy", name="accuracy")

_AT_ONCE = 64
_READERS = 4
_MOST_CONFUSED = 200
"""Of more classes no confusion matrix is written: it would be longer than all the rest."""


def predict_classes(
    model: nn.Module,
    dataset: Any,
    indices: Sequence[int],
    *,
    prepare: Transforms,
    takes: ModelInput,
    label: str = "evaluating",
) -> tuple[ClassPredictions, int]:
    """Return what a model predicts for images of a data set, in eval mode, and how many could not be read.

    Errors: DataError where none can be read.
    """
    device = next(model.parameters()).device
    names, labels, found = [], [], []
    bar = Progress(label, total=len(indices))
    with evaluating(model), bar as progress, ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(indices), _AT_ONCE):
            part = indices[start : start + _AT_ONCE]
            examples = [each for each in pool.map(lambda index: _read(dataset, index), part) if each is not None]
            if examples:
                images = torch.stack([prepare(each, seed=0).image for each in examples]).to(device)
                found.append(model(takes.prepare(images)).float().detach().cpu())
            names += [each.name for each in examples]
            labels += [int(each.target["labels"]) for each in examples]
            for _ in part:
                progress.advance()
    if not names:
        raise DataError(f"expected at least one image that can be read, but all {len(indices)} are broken")
    logits, truth = torch.cat(found), np.array(labels)
    order = logits.argsort(dim=1, descending=True, stable=True).numpy()
    predicted = ClassPredictions(
        names=tuple(names),
        labels=truth,
        predicted=order[:, 0],
        rank=(order == truth[:, None]).argmax(axis=1),
        probability=logits.softmax(dim=1).amax(dim=1).numpy(),
    )
    return predicted, len(indices) - len(names)


def score_fields(found: ClassPredictions, classes: Sequence[str]) -> dict[str, Any]:
    """Return what a record says beside the accuracy: top-5, each class, and what was taken for what."""
    confusion = found.confusion(len(classes))
    counts = confusion.sum(axis=1)
    by_class = [
        {"name": name, "examples": int(count), "score": float(confusion[row, row] / count) if count else None}
        for row, (name, count) in enumerate(zip(classes, counts, strict=True))
    ]
    fields = {"further": {"top-5 accuracy": found.top(5)} if len(classes) > 5 else {}, "by_class": by_class}
    return fields | ({"confusion": confusion.tolist()} if len(classes) <= _MOST_CONFUSED else {})


def balanced_weights(labels: Sequence[int], classes: int) -> Tensor:
    """Return a weight for each class, (C,): how many images there are over how many an average class has."""
    counts = Counter(labels)
    return torch.tensor([len(labels) / (classes * max(counts[label], 1)) for label in range(classes)])


def _read(dataset: Any, index: int) -> Example | None:
    try:
        example: Example = dataset[index]
    except DataError:
        return None
    return example
