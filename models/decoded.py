"""torchvision's detectors of one stage as one graph: boxes in pixels, and how likely each category is in each."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

ONE_STAGE = (RetinaNet, FCOS, SSD)
"""Detectors that say the same number of boxes for every image, before suppression."""


class DecodedDetector(nn.Module):
    """A RetinaNet, FCOS or SSD for images of one size, with its normalisation and decoding, and without suppression.

    `side` is that of its images, 0 for the one that the model looks at.
    Shapes: images (N, 3, S, S), RGB from 0 to 1 -> corner boxes (N, P, 4) in pixels and scores (N, P, C) of P places.
    """

    outputs = ("boxes", "scores")
    anchors: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, side: int = 0) -> None:
        super().__init__()
        transform = model.transform
        self.side = side or (transform.fixed_size or transform.min_size)[-1]
        self.backbone, self.head, self.coder = model.backbone, model.head, model.box_coder
        self.softmax, self.by_size = isinstance(model, SSD), isinstance(model, FCOS)
        self.padding = -self.side % transform.size_divisible
        for name in ("mean", "std"):
            self.register_buffer(
                name, torch.tensor(getattr(transform, f"image_{name}")).view(3, 1, 1), persistent=False
            )
        images = torch.zeros(1, 3, self.side + self.padding, self.side + self.padding)
        with torch.no_grad():
            levels = self._levels(images)
            [anchors] = model.anchor_generator(ImageList(images, [(self.side, self.side)]), levels)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return where something may be, and how likely each category is there."""
        raw = self.head(self._levels(F.pad((images - self.mean) / self.std, (0, self.padding, 0, self.padding))))
        return self._boxes(raw["bbox_regression"]).clamp(0, self.side), self._scores(raw)[..., 1:]

    def _levels(self, images: Tensor) -> list[Tensor]:
        features = self.backbone(images)
        return [features] if isinstance(features, Tensor) else [*features.values()]

    def _boxes(self, deltas: Tensor) -> Tensor:
        if self.by_size:
            decoded: Tensor = self.coder.decode(deltas, self.anchors)
            return decoded
        anchors = (torch.zeros_like(deltas) + self.anchors).flatten(0, 1)
        rows: Tensor = self.coder.decode_single(deltas.flatten(0, 1), anchors)
        return rows.view(-1, self.anchors.shape[0], 4)

    def _scores(self, raw: dict[str, Tensor]) -> Tensor:
        if self.softmax:
            return raw["cls_logits"].softmax(dim=-1)
        scores = raw["cls_logits"].sigmoid()
        return (scores * raw["bbox_ctrness"].sigmoid()).sqrt() if self.by_size else scores
