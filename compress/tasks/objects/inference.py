"""From images to the objects that a detector finds in them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from featherpress.compress.data.examples import Example, ExampleDataset, readable
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet


@torch.inference_mode()
def find_objects(model: nn.Module, image: Tensor) -> dict[str, Any]:
    """Find the objects in one image at its own size, by falling score; the model should be in eval mode.

    Shapes: uint8 RGB (3, H, W) -> boxes (k, 4) as corners in pixels, scores (k,), labels (k,) from 0 on.
    """
    device = next(model.parameters()).device
    found = model([image.to(device).float() / 255])[0]
    order = found["scores"].argsort(descending=True, stable=True)
    rows = {name: found[name][order].cpu().numpy() for name in ("boxes", "scores", "labels")}
    return rows | {"labels": rows["labels"] - 1}


def measure_objects(
    model: nn.Module, dataset: ExampleDataset, chosen: Sequence[int], *, categories: Sequence[str], label: str
) -> ObjectSet:
    """Look for objects in some images, one at a time, in eval mode; its own mode is restored.

    Errors: `DataError` where no image can be read; those that cannot are left out with a warning.
    """
    rows: list[tuple[Example, dict[str, Any]]] = []
    with evaluating(model):
        for _, example in readable(dataset, chosen, label=label):
            found = find_objects(model, example.image)
            rows.append((Example(image=example.image[:, :0], target=example.target, name=example.name), found))
    truth = {
        name: torch.cat([each.target[name] for each, _ in rows]).numpy() for name in ("boxes", "labels", "ignored")
    }
    found = {name: np.concatenate([each[name] for _, each in rows]) for name in ("boxes", "scores", "labels")}
    return ObjectSet(
        names=tuple(each.name for each, _ in rows),
        categories=tuple(categories),
        found=np.array([len(each["scores"]) for _, each in rows]),
        boxes=found["boxes"],
        scores=found["scores"],
        classes=found["labels"],
        labelled=np.array([len(each.target["boxes"]) for each, _ in rows]),
        truth_boxes=truth["boxes"],
        truth_classes=truth["labels"],
        truth_ignored=truth["ignored"],
    )
