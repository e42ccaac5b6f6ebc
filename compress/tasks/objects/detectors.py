"""torchvision's detectors, so that training has their losses and a teacher's head gives its logits."""

import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn
from torchvision.models.detection.fcos import FCOS
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.retinanet import RetinaNet
from torchvision.models.detection.ssd import SSD

from featherpress.errors import UsageError
from featherpress.models.factories import import_factory, load_factory

KNOWN = (RetinaNet, FCOS, SSD, GeneralizedRCNN)
"""The families of torchvision's detectors."""

SIGMOIDS = (RetinaNet, FCOS)
"""Those whose heads give every class a probability of its own, and the background none."""

TERMS = {
    "classification": "class",
    "loss_classifier": "class",
    "bbox_regression": "box",
    "loss_box_reg": "box",
    "bbox_ctrness": "centre",
    "loss_objectness": "proposal_class",
    "loss_rpn_box_reg": "proposal_box",
}
"""torchvision's losses by our terms."""

LOSS = "_loss"
"""Ends the name of an output that is a loss."""


def is_torchvisions(target: str) -> bool:
    """Return whether a factory is torchvision's, or says that it returns one of torchvision's detectors."""
    if target.startswith("torchvision.models.detection"):
        return True
    if ":" not in target:
        return False
    try:
        returned = get_type_hints(import_factory(target)).get("return")
    except (UsageError, NameError, TypeError):
        return False
    return inspect.isclass(returned) and issubclass(returned, KNOWN)


def build_detector(target: str, settings: Mapping[str, Any], *, classes: int, side: int) -> nn.Module:
    """Build a detector of `classes` categories that looks at images at `side` pixels, with fresh weights.

    What the settings leave out is filled in where the factory takes it: `num_classes`, which counts the background, and
    no pretrained backbone. Detectors of one size look at `side` x `side`, others at a short side of `side`, unless
    `min_size` or `max_size` is set.
    Errors: `UsageError` for a model that is none of torchvision's detectors, or has other categories.
    """
    takes = inspect.signature(import_factory(target)).parameters
    filled = {"num_classes": classes + 1, "weights_backbone": None}
    filled = {key: value for key, value in filled.items() if key in takes and key not in settings}
    if settings.get("weights", "none") != "none":
        filled = {}
    model = load_factory(target, {**filled, **settings})
    if not isinstance(model, KNOWN):
        raise UsageError(f"{target} gives a {type(model).__name__}, expected one of torchvision's detectors")
    transform: Any = model.transform
    if transform.fixed_size is not None:
        transform.fixed_size = (side, side)
    elif not {"min_size", "max_size"} & {*settings}:
        transform.min_size, transform.max_size = (side,), max(round(side * 5 / 3), side)
    found = _categories(model)
    if found != classes + 1:
        raise UsageError(
            f"{target} has {found} classes, expected {classes + 1}: the background and {classes} categories; leave "
            "`num_classes` out of its `settings`"
        )
    return with_raw_outputs(model)


def with_raw_outputs(model: nn.Module) -> nn.Module:
    """Give a detector what training asks for; its weights, its modules and what it gives for a list stay the same."""
    kind: Any = type(model)
    model.__class__ = _with_raw_outputs(kind)
    return model


@cache
def _with_raw_outputs(base: Any) -> Any:
    return type(base.__name__, (_RawOutputs, base), {"__module__": base.__module__})


class _RawOutputs(nn.Module):
    """Laid over a detector: a batch of images gives the heads' outputs and, with targets, the losses.

    Shapes: images (N, 3, H, W) from 0 to 1 -> logits (N, C, P) and boxes (N, P, 4) of P places; of Faster R-CNN, whose
    later heads see other places in every image, objectness (N, 1, P) and proposals (N, 4, P).
    """

    def forward(self, images: Any, targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        if not isinstance(images, Tensor):
            return super().forward(images, targets)
        if targets is None:
            return _named(_run_head(self, images))
        kept: list[Any] = []
        handle = _head(self).register_forward_hook(lambda _module, _inputs, output: kept.append(output))
        try:
            losses = super().forward([*images], [*targets])
        finally:
            handle.remove()
        return _named(kept[0]) | {TERMS.get(name, name) + LOSS: value for name, value in losses.items()}


def _run_head(model: Any, images: Tensor) -> Any:
    """Run backbone and head without what comes after them; it depends on what was found, and cannot be counted."""
    batch, _ = model.transform([*images], None)
    features = model.backbone(batch.tensors)
    levels = [features] if isinstance(features, Tensor) else [*features.values()]
    return _head(model)(levels)


def _head(model: Any) -> nn.Module:
    head: nn.Module = model.rpn.head if isinstance(model, GeneralizedRCNN) else model.head
    return head


def _named(raw: Any) -> dict[str, Tensor]:
    if isinstance(raw, Mapping):
        return {"logits": raw["cls_logits"].transpose(1, 2), "boxes": raw["bbox_regression"]}
    objectness, deltas = raw
    return {"objectness": _flat(objectness, 1), "proposals": _flat(deltas, 4)}


def _flat(levels: Sequence[Tensor], width: int) -> Tensor:
    """Put the maps of all levels into one row of places; shapes: L times (N, A * width, H, W) -> (N, width, P)."""
    rows = (each.reshape(len(each), -1, width, *each.shape[-2:]) for each in levels)
    return torch.cat([each.movedim(2, 1).flatten(2) for each in rows], dim=2)


def anchors_of(model: Any) -> dict[str, Any]:
    """Return the shapes of the boxes that a head's places stand for; none of an FCOS, whose places are points."""
    made = None if isinstance(model, FCOS) else getattr(model, "anchor_generator", None)
    said = {name: getattr(made, name) for name in ("sizes", "scales", "aspect_ratios") if hasattr(made, name)}
    return json.loads(json.dumps(said))  # type: ignore[no-any-return]  # lists and tuples alike


def _categories(model: Any) -> int:
    """Count the classes that a head tells apart, the background included."""
    if isinstance(model, GeneralizedRCNN):
        predictor = getattr(model.roi_heads, "box_predictor", None)
        return int(getattr(getattr(predictor, "cls_score", None), "out_features", -1))
    head = model.head.classification_head
    return int(getattr(head, "num_classes", getattr(head, "num_columns", -1)))
