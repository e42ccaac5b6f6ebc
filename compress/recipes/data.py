"""The schema of what all data have in common, and of photographs without labels; a task adds its own options."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, model_validator

from featherpress.compress.distillation.losses.bounds import Fraction
from featherpress.compress.recipes.kinds import find_task
from featherpress.compress.recipes.tables import Strict
from featherpress.errors import UsageError

T = TypeVar("T")


def check_long_side(value: int) -> int:
    """Refuse a test scale that is too small or too large for an image."""
    if value and not 32 <= value <= 16384:
        raise ValueError(f"a long side is 0 (as it is) or 32 to 16384 pixels, got {value}")
    return value


Positive = Annotated[int, Field(ge=1, le=1_000_000)]
Count = Annotated[int, Field(ge=0, le=10_000_000)]
LongSide = Annotated[int, AfterValidator(check_long_side)]
Side = Annotated[int, Field(ge=64, le=4096)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Root = str | Annotated[tuple[str, ...], Field(min_length=1)]
Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _several(value: T | tuple[T, ...]) -> tuple[T, ...]:
    return value if isinstance(value, tuple) else (value,)


class UnlabelledRecipe(Strict):
    """Photographs without labels, which the teacher labels before the student's training.

    `root` is a folder, or a list of them, which give crops in turns. `per_batch` crops come on top of every batch. What
    the teacher scores from `positive_threshold` on is a face; between `ignore_threshold` and that it is ignored; below
    it is background. `square = false` leaves out images with equal sides, which are often squashed; `images` is how
    many of a folder are taken, 0 for all. `long_side` is the scale at which the teacher looks, the longer side in
    pixels, 0 for the photograph as it is: enlarged, it finds smaller faces. Several scales are a list; of what they
    find twice the surer stays. The control never sees them.
    """

    root: Root = ""
    per_batch: Positive = 8
    images: Count = 0
    square: bool = True
    positive_threshold: Fraction = 0.6
    ignore_threshold: Fraction = 0.2
    long_side: LongSide | Annotated[tuple[LongSide, ...], Field(min_length=1)] = 0

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several; none where pictures are drawn."""
        return _several(self.root) if self.root else ()

    @property
    def changed(self) -> set[str]:
        """The keys that are not as they are unless given; a run's own recipe gives all of them."""
        return {key for key, value in self if value != type(self).model_fields[key].default}

    @property
    def long_sides(self) -> tuple[int, ...]:
        """The scales, one or several."""
        return _several(self.long_side)


Zoom = Annotated[float, Field(ge=0.05, le=8)]


class CropsRecipe(Strict):
    """How large a part of an image a training crop shows, which decides how large its faces are.

    A crop's side is drawn from `zoom_in` times the image's short side or, with probability `zoom_out_probability`, from
    `zoom_out` times its long side: the further out, the smaller the faces. With probability `native_probability` it is
    `native` times the crop's own side, so that at 1 faces are as large as in the image, and a crop of 320 pixels is a
    window of 320. No window is smaller than the face that it aims at. What lies beyond the image is mean colour.
    """

    zoom_in: tuple[Zoom, Zoom] = (0.3, 1.0)
    zoom_out: tuple[Zoom, Zoom] = (1.0, 1.5)
    zoom_out_probability: Fraction = 0.25
    native: tuple[Zoom, Zoom] = (0.8, 1.25)
    native_probability: Fraction = 0.0

    def needed_side(self, size: int) -> int:
        """Return the short side an image may be reduced to for crops of `size` pixels; 0 where it may not be.

        Whatever is cut, a window is no smaller than this part of an image's short side.
        """
        return 0 if self.native_probability else math.ceil(size / min(self.zoom_in[0], self.zoom_out[0]))

    @model_validator(mode="after")
    def _low_to_high(self) -> Self:
        if self.zoom_out_probability + self.native_probability > 1:
            raise ValueError("`zoom_out_probability` and `native_probability` come to more than 1")
        for name in ("zoom_in", "zoom_out", "native"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"`{name}` goes from {low} to {high}: put the lower one first")
        return self


class DataRecipe(Strict):
    """What the data of every task have; a task's own options are fields of a subclass.

    `kind` names the task: a registered one, or `package.module:MyTask`. Images are read from `root`, or from a list of
    them, and those to validate on from `validation_root`, the first root unless given. `size` is the side of a training
    image in pixels. `variants` how many different crops an image has, 0 for ever new ones. `train_images` and
    `validation_images` shorten the sets. `holdout` training images are kept back, and what is chosen on the way is
    chosen on them: scores between epochs, the best weights, an early stop, the table of an ablation. Without them that
    is done on the validation images. `cache` keeps decoded images in memory, on disk in the run's folder while it
    trains, or not at all; `cache_bytes` is what a process keeps in memory at most, decoded images and crops together.
    """

    kind: str
    root: Root = ""
    validation_root: str = ""
    size: Side | Annotated[tuple[Side, ...], Field(min_length=1)] = 224
    variants: Annotated[int, Field(ge=0, le=1000)] = 0
    train_images: Count = 0
    validation_images: Count = 0
    seed: Seed = 0
    holdout: Count = 0
    cache: Literal["ram", "disk", "none"] = "ram"
    cache_bytes: Annotated[int, Field(ge=0)] = 4 << 30
    unlabelled: UnlabelledRecipe | None = None

    @model_validator(mode="after")
    def _unlabelled_from_somewhere(self) -> Self:
        if self.root and self.unlabelled and not self.unlabelled.root:
            raise ValueError("`unlabelled` needs a `root`, the folder of the photographs")
        return self

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several; none where pictures are drawn."""
        return _several(self.root) if self.root else ()

    @property
    def places(self) -> tuple[tuple[str, str, str], ...]:
        """The key, the root and the split of every folder that is read, that to validate on last."""
        if not self.roots:
            return ()
        key = "data.validation_root" if self.validation_root else "data.root"
        return (
            *(("data.root", text, "train") for text in self.roots),
            (key, self.validation_root or self.roots[0], "val"),
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides of crops, one or several."""
        return _several(self.size)

    @property
    def counted_at(self) -> str:
        """The shape of the images at which a recipe's models are counted; empty for a model's own default."""
        return str(self.sizes[0])

    def shrunk(self, *, images: int, validation_images: int, side: int) -> Self:
        """Return the options with at most so many images, for a trial; with a `side` where images may have any size."""
        return self.model_copy(
            update={
                "train_images": images,
                "holdout": 0,
                "unlabelled": None,
                "validation_images": min(self.validation_images or validation_images, validation_images),
            }
        )


def _of_its_task(content: Any) -> Any:
    """Read a `[data]` table by the model of the task for its kind."""
    if not isinstance(content, Mapping) or not isinstance(content.get("kind"), str):
        return content
    try:
        options = find_task(content["kind"]).Data
    except UsageError as error:
        raise ValueError(str(error)) from error
    return options.model_validate(content)


AnyData = Annotated[SerializeAsAny[DataRecipe], BeforeValidator(_of_its_task)]
"""The options of whichever task a recipe's data are for."""
