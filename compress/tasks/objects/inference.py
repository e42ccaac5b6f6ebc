"""From images to the objects that a detector finds in them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import batched_nms

from featherpress.compress.data.examples import Example, ExampleDataset, readable
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.evaluation.metrics.mean_precision import ObjectSet


class Suppressed(nn.Module):
    """An exported detector, which gives boxes and scores of all places, made into what torchvision's give for a list.

    Images are scaled to `side` x `side`, whatever their shape; thresholds are those of `model`.
    Source: torchvision's detectors of one stage, but for their limit on candidates before suppression.
    """

    def __init__(self, decoded: nn.Module, model: Any, *, side: int) -> None:
        super().__init__()
        self.decoded, self.side = decoded, side
        self.least, self.overlap, self.most = model.score_thresh, model.nms_thresh, model.detections_per_img

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """Return boxes, scores and labels from 1 on, by falling score, of each image (3, H, W)."""
        return [self._find(image) for image in images]

    def _find(self, image: Tensor) -> dict[str, Tensor]:
        height, width = image.shape[-2:]
        [boxes], [scores] = self.decoded(F.interpolate(image[None], (self.side, self.side), mode="bilinear"))
        places, labels = (scores > self.least).nonzero(as_tuple=True)
        boxes, scores = boxes[places] * boxes.new_tensor([width, height] * 2) / self.side, scores[places, labels]
        kept = batched_nms(boxes, scores, labels, self.overlap)[: self.most]
        return {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept] + 1}


@torch.inference_mode()
def find_objects(model: nn.Module, image: Tensor) -> dict[str, Any]:
    """Find the objects in one image at its own size, by falling score; the model should be in eval mode.

    Shapes: uint8 RGB (3, H, W) -> boxes (k, 4) as corners in pixels, scores (k,), labels (k,) from 0 on.
    """
    device = next(model.parameters()).device
    found = model([image.to(device).float() / 255])[0]
    order = found["scores"].argsort(descending=True, stable=True)
    order = order[found["labels"][order] > 0]  # a head of sigmoids has one for the background too
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
