"""The options of images with masks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from featherpress.compress.data.sources.masks import IGNORED, MaskLayout
from featherpress.compress.data.transforms import Transforms, default_steps
from featherpress.compress.recipes.data import DataRecipe, LongSide, Side
from featherpress.compress.tasks.classification.options import ClassWeights, Steps
from featherpress.errors import UsageError

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
CITYSCAPES_CLASSES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
_CLASSES: dict[MaskLayout, tuple[str, ...]] = {"folders": (), "voc": VOC_CLASSES, "cityscapes": CITYSCAPES_CLASSES}

_MOST = 255
"""Masks are bytes, and one value is for what is ignored."""


class MasksData(DataRecipe):
    """Images with a mask each, whose values are class numbers.

    `layout` says how they lie in `root`: `folders`, `train/images` and `train/masks`, `val/images` and `val/masks`;
    `voc`, Pascal VOC's; or `cityscapes`. `classes` are the names in the order of their numbers, or how many there are;
    VOC's and Cityscapes' are known. Pixels of the value `ignore` do not count. `train` are transforms of
    torchvision.transforms.v2 with their arguments; unless given, crops of a quarter of the image up to all of it, and
    flips. `class_weights` weight the cross-entropy of pixels by their class: a number a class, or `balanced`, by how
    few of the training masks' pixels are of it. `long_side` is the scale at test: the longer side of an image in
    pixels, 0 for the image as it is; masks are scored at their own size.
    """

    kind: Literal["masks"]
    layout: MaskLayout = "folders"
    classes: (
        Annotated[int, Field(ge=2, le=_MOST)] | Annotated[tuple[str, ...], Field(min_length=2, max_length=_MOST)] | None
    ) = None
    ignore: Annotated[int, Field(ge=0, le=65_535)] = 255
    size: Side = 224
    train: Steps | None = None
    class_weights: ClassWeights = ""
    long_side: LongSide = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; their numbers where a recipe gives none."""
        if isinstance(self.classes, int):
            return tuple(map(str, range(self.classes)))
        return self.classes or _CLASSES[self.layout]

    def augmentation(self) -> Transforms:
        """Return the transforms of training images and their masks."""
        steps = default_steps("mask", self.size, self.size) if self.train is None else self.train
        return Transforms(steps, kind="mask", height=self.size, width=self.size, ignore=IGNORED)

    @model_validator(mode="after")
    def _transforms_fit(self) -> Self:
        try:
            self.augmentation()
        except UsageError as error:
            raise ValueError(f"`train`: {error}") from error
        return self

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if not self.root:
            raise ValueError("masks need a `root`")
        if not self.names:
            raise ValueError("masks need `classes`: their names in the order of their numbers, or how many there are")
        if len(set(self.names)) < len(self.names):
            raise ValueError("`classes` has a name twice")
        if self.ignore < len(self.names):
            raise ValueError(f"`ignore` is {self.ignore}, which is the number of the class {self.names[self.ignore]!r}")
        if isinstance(self.class_weights, tuple) and len(self.class_weights) != len(self.names):
            raise ValueError(f"`class_weights` has {len(self.class_weights)} numbers for {len(self.names)} classes")
        return self
