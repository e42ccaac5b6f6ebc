"""The content of an exported graph: the model for inference, and for a detector its priors and decoding."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from featherpress.errors import ExportError, UsageError
from featherpress.models import Detector, fuse, load_model
from featherpress.models.creation import origin_of
from featherpress.models.decoded import ONE_STAGE, DecodedDetector
from featherpress.models.detectors import LEAST_SIDE
from featherpress.models.factories import load_factory
from featherpress.models.inputs import ModelInput, input_of, remember_input
from featherpress.models.layers.deformable import DeformableConv
from featherpress.models.priors import decode_boxes, decode_landmarks
from featherpress.models.saving import build_with_weights, read_input, read_origin, settings_of_file

Deformable = Literal["samples", "operator"]

Model = TypeVar("Model", bound=nn.Module)

_DETECTOR_EXAMPLE = (2, 3, 99, 163)
"""Odd sizes, of which no level is divisible: what is traced must hold for every size."""
_DETECTOR_SHAPES = ((1, 3, 64, 64), (2, 3, 96, 160), (1, 3, 333, 250))
_AXES = {0: "batch", 2: "height", 3: "width"}


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphOptions:
    """What the graph of a detector holds beside the model.

    `priors` adds an output with the priors of the image's size. `decode` turns raw outputs into corner boxes and
    landmarks in pixels and the face's probability. `deformable` says what a deformable convolution becomes: `samples`,
    GridSample and one matrix product, or `operator`, ONNX's own DeformConv. With `fuse`, which is no detector's alone,
    BatchNorms are folded into the convolutions before them.
    """

    priors: bool = False
    decode: bool = False
    deformable: Deformable = "samples"
    fuse: bool = True


class DetectorGraph(nn.Module):
    """A detector with what `GraphOptions` adds.

    Shapes: images (N, 3, H, W) -> raw (N, P, 4), (N, P, 2), (N, P, 10), or decoded: corner boxes (N, P, 4), scores
    (N, P), points (N, P, 10); with `priors` (P, 4) last.
    """

    def __init__(self, detector: Detector, options: GraphOptions) -> None:
        super().__init__()
        self.detector, self.options = detector, options

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name what comes out, in order."""
        names = ("boxes", "scores" if self.options.decode else "logits", "landmarks")
        return (*names, "priors") if self.options.priors else names

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detect, and decode where that is wanted."""
        boxes, logits, landmarks = self.detector(images)
        if not (self.options.decode or self.options.priors):
            return boxes, logits, landmarks
        priors = self.detector.priors(*images.shape[-2:])
        if self.options.decode:
            boxes, landmarks = decode_boxes(boxes, priors), decode_landmarks(landmarks, priors)
            logits = logits.softmax(dim=-1)[..., 1]
        return (boxes, logits, landmarks, priors) if self.options.priors else (boxes, logits, landmarks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model to export.

    `original` is the model as it was given, in eval mode, and the reference; `module` is what is traced: folded, its
    deformable convolutions in the wanted form. `example` is the shape that is traced and `shapes` those that are
    checked; `dynamic` are the axes of the images that stay free, with their names.
    """

    name: str
    original: nn.Module
    module: nn.Module
    outputs: tuple[str, ...]
    example: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    dynamic: Mapping[int, str]

    @property
    def detector(self) -> Detector | None:
        """The detector inside, where it is one."""
        return self.original.detector if isinstance(self.original, DetectorGraph) else None


def find_subject(
    target: str,
    weights: Path | None,
    *,
    options: GraphOptions,
    side: int | tuple[int, int] | None = None,
    fixed: bool = False,
    model: nn.Module | None = None,
) -> Subject:
    """Build a model of the zoo with its weights, or anyone's by `package.module:factory`, and prepare it for tracing.

    `target` may be empty where the weights file says which model it is of; a `model` that was built already is only
    prepared. `side` is the input's, or its height and width, where the model is no detector, else the one that model or
    weights say, else 640; with `fixed` the graph takes one image of that size and no other.

    Errors: `UsageError` for names, files and options that do not go together; `CheckpointError` as `load_weights`.
    """
    model = (model or _load(target, weights)).eval().requires_grad_(False)
    size = (side, side) if isinstance(side, int) else side
    if isinstance(model, Detector):
        return _detector_subject(target, model, options, size if fixed else None)
    if options.priors or options.decode:
        raise UsageError(f"{target} is not a featherpress detector, so there are no priors to add or to decode with")
    takes = input_of(model) or (read_input(weights) if weights else None)
    size = size or (takes.size if takes else 0,) * 2
    if isinstance(model, GeneralizedRCNN):
        raise UsageError(
            f"{target} looks at regions that it finds in an image, so that no file of one size computes it; RetinaNet, "
            "FCOS and SSD can be exported"
        )
    if isinstance(model, ONE_STAGE):
        if size[0] != size[1]:
            raise UsageError(f"{target} scales images into a square itself: give --input one side")
        model = DecodedDetector(model, size[0])
        takes, size = takes or ModelInput(mean=(0, 0, 0), std=(1, 1, 1), size=model.side), (model.side, model.side)
    if takes is not None:
        remember_input(model, takes)
    return _plain_subject(target, model, size if all(size) else (640, 640), options, fixed=fixed)


def _load(target: str, weights: Path | None) -> nn.Module:
    if weights is None:
        if ":" not in target:
            raise UsageError("export needs --weights: without them a model of the zoo is random")
        return load_factory(target)
    origin = None if ":" in target else read_origin(weights)
    if origin is not None and target in {"", origin.name}:
        return load_model(weights)
    if not target:
        raise UsageError(f"{weights} does not say which model it is of; name it too")
    settings = settings_of_file(weights, target)
    return build_with_weights(lambda: load_factory(target, settings), weights)


def _detector_subject(target: str, model: Detector, options: GraphOptions, size: tuple[int, int] | None) -> Subject:
    if size is not None and min(size) < LEAST_SIDE:
        raise UsageError(f"a detector takes images of {LEAST_SIDE} pixels a side or more, got --input {min(size)}")
    origin = origin_of(model)
    graph = DetectorGraph(model, options)
    one = (1, 3, *size) if size else None
    return Subject(
        name=origin.name if origin else target,
        original=graph,
        module=DetectorGraph(_folded(model, options), options),
        outputs=graph.outputs,
        example=one or _DETECTOR_EXAMPLE,
        shapes=(one,) if one else _DETECTOR_SHAPES,
        dynamic={} if one else _AXES,
    )


def _plain_subject(
    target: str, model: nn.Module, size: tuple[int, int], options: GraphOptions, *, fixed: bool
) -> Subject:
    """Find by running it which axes of its input a model lets vary; none where they are to be fixed."""
    height, width = size
    base = (1, 3, height, width)
    found = flat_outputs(_try(model, base, target))
    names = ("output",) if len(found) == 1 else tuple(f"output_{number}" for number in range(len(found)))
    if isinstance(model, DecodedDetector):
        names = model.outputs
    twice, wide, tall = (2, 3, height, width), (1, 3, height, 2 * width), (2, 3, 2 * height, width)
    batch = not fixed and _runs(model, twice)
    sides = batch and _runs(model, wide) and _runs(model, tall)
    shapes = [base, *([twice] if batch else []), *([wide, tall] if sides else [])]
    return Subject(
        name=target,
        original=model,
        module=_folded(model, options),
        outputs=names,
        example=twice if batch else base,
        shapes=tuple(shapes),
        dynamic={axis: name for axis, name in _AXES.items() if (sides if axis else batch)},
    )


def _folded(model: Model, options: GraphOptions) -> Model:
    folded = (fuse(model) if options.fuse else copy.deepcopy(model)).requires_grad_(False)
    for module in folded.modules():
        if isinstance(module, DeformableConv):
            module.sampled = options.deformable == "samples"
    return folded


def _try(model: nn.Module, shape: tuple[int, ...], target: str) -> object:
    try:
        with torch.no_grad():
            return model(torch.zeros(shape))
    except Exception as error:  # other people's forward: whatever it raises, it did not take the input
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(
            f"{target} does not take an input of {shape}: {reason}; --input names another size"
        ) from error


def _runs(model: nn.Module, shape: tuple[int, ...]) -> bool:
    try:
        _try(model, shape, "")
    except ExportError:
        return False
    return True


def flat_outputs(outputs: object) -> list[Tensor]:
    """List the tensors in whatever a model returns, in torch's order."""
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
