"""The options of images of which each is of one class."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from featherpress.compress.data.transforms import Step, Transforms, default_steps
from featherpress.compress.recipes.data import DataRecipe, Root, Side, UnlabelledRecipe
from featherpress.errors import UsageError

Steps = tuple[str | dict[str, Any], ...]
_TRAINING_DIGITS = 1347
Names = Annotated[tuple[str, ...], Field(min_length=2)]
ClassWeights = Literal["", "balanced"] | tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]


class ClassificationData(DataRecipe):
    """Images of which each is of one class.

    `train` are torchvision's transforms by name that training images go through, and `validation` those of the others:
    `[{ RandomResizedCrop = 224 }, "RandomHorizontalFlip"]`. Unless given, these two, and the middle of the image scaled
    to 8/7 of `size`. They end in images of `size` pixels a side, RGB from 0 to 255; the model's `normalize` follows.
    `class_weights` weight the cross-entropy: a number a class, or `balanced`, by how rare a class is.
    """

    size: Side = 224
    train: Steps | None = None
    validation: Steps | None = None
    class_weights: ClassWeights = ""

    @property
    def source(self) -> tuple[int, int] | None:
        """Height and width of images that all have the same."""
        return None

    def augmentation(self) -> Transforms:
        """Return the transforms of training images."""
        return self._made(self._train_steps() if self.train is None else self.train)

    def preparation(self) -> Transforms:
        """Return the transforms of images to score on."""
        if self.validation is not None:
            return self._made(self.validation)
        return self._made(middle(self.sizes[0]) if self.source is None else ({"Resize": [self.sizes[0]] * 2},))

    def _train_steps(self) -> Sequence[Step]:
        return default_steps("label", self.sizes[0], self.sizes[0])

    def _made(self, steps: Sequence[Step]) -> Transforms:
        side = self.sizes[0]
        return Transforms(steps, kind="label", height=side, width=side, source=self.source)

    @model_validator(mode="after")
    def _transforms_fit(self) -> Self:
        for key, make in (("train", self.augmentation), ("validation", self.preparation)):
            try:
                make()
            except UsageError as error:
                raise ValueError(f"`{key}`: {error}") from error
        return self


def middle(size: int) -> tuple[Step, ...]:
    """Return the usual transforms of an image to score: its middle, scaled to 8/7 of the size; 224 of 256."""
    return {"Resize": round(size * 8 / 7)}, {"CenterCrop": size}


class DrawnData(ClassificationData):
    """Images that no folder holds."""

    root: Root = ""

    @model_validator(mode="after")
    def _no_folder(self) -> Self:
        if self.root or self.validation_root or self.holdout:
            raise ValueError(f"{self.kind} data has neither a `root` nor a `holdout`")
        return self


class ShapesData(DrawnData):
    """Shapes of `classes` kinds, drawn from `seed`, `size` pixels a side."""

    kind: Literal["shapes"]
    size: Side = 320
    classes: Annotated[int, Field(ge=2, le=6)] = 6

    @property
    def source(self) -> tuple[int, int]:
        """Shapes are drawn at their size."""
        return self.sizes[0], self.sizes[0]

    def _train_steps(self) -> Sequence[Step]:
        shift = {"RandomAffine": {"degrees": 0, "translate": [0.08, 0.08]}}
        return "RandomHorizontalFlip", shift, {"ColorJitter": [0.7, 1]}

    @model_validator(mode="before")
    @classmethod
    def _older_name(cls, content: Any) -> Any:
        """Take the side under the name that drawn faces have for it too."""
        if not isinstance(content, Mapping) or "image_size" not in content:
            return content
        rest = {key: value for key, value in content.items() if key != "image_size"}
        return rest | {"size": content["image_size"]}

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if not (self.train_images and self.validation_images):
            raise ValueError("shapes data needs `train_images` and `validation_images`")
        if self.unlabelled:
            raise ValueError("shapes data has no `unlabelled` images")
        return self


class UnlabelledDigits(UnlabelledRecipe):
    """The training digits beyond `train_images`, without their labels; `per_batch` come on top of every batch."""

    @model_validator(mode="after")
    def _no_folder(self) -> Self:
        strange = sorted(self.changed - {"per_batch"})
        if strange:
            raise ValueError(f"`unlabelled` digits are those beyond `train_images`, and take no `{strange[0]}`")
        return self


class DigitsData(DrawnData):
    """The handwritten digits that scikit-learn brings, 8 x 8 pixels; every fourth is for validation.

    With `unlabelled` student and control know the labels of `train_images` digits alone; the other training digits are
    there without, and a teacher that is trained first has learned the labels of all.
    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI; its test set.
    """

    kind: Literal["digits"]
    size: Annotated[int, Field(ge=8, le=512)] = 32
    unlabelled: UnlabelledDigits | None = None

    @property
    def source(self) -> tuple[int, int]:
        """All are 8 x 8."""
        return 8, 8

    def _train_steps(self) -> Sequence[Step]:
        shift = {"RandomAffine": {"degrees": 10, "translate": [0.1, 0.1], "interpolation": "bilinear"}}
        return {"Resize": [self.sizes[0]] * 2}, shift

    @model_validator(mode="after")
    def _some_without_labels(self) -> Self:
        if self.unlabelled and not 0 < self.train_images < _TRAINING_DIGITS:
            raise ValueError(
                f"`unlabelled` digits are those beyond `train_images`, which then is 1 to {_TRAINING_DIGITS - 1:,}"
            )
        return self


class FolderData(ClassificationData):
    """A folder for each class: `root/train/CLASS/*.jpg` and `root/val/CLASS/*.jpg`, in one root or several.

    `classes` are their names in the order of a model's logits: all of them, sorted, unless given. `unlabelled` images
    come on top of every batch; the teacher's logits are their labels.
    """

    kind: Literal["folder"]
    classes: Names | tuple[()] = ()

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if not self.root:
            raise ValueError("folder data needs a `root`")
        changed = self.unlabelled.changed if self.unlabelled else set()
        strange = sorted(changed & {"positive_threshold", "ignore_threshold", "long_side"})
        if strange:
            raise ValueError(f"`unlabelled.{strange[0]}` is for boxes; a classifier's labels are the teacher's logits")
        if isinstance(self.class_weights, tuple) and self.classes and len(self.class_weights) != len(self.classes):
            raise ValueError(f"`class_weights` has {len(self.class_weights)} numbers for {len(self.classes)} classes")
        return self
