"""The schema of a recipe's data: where pictures come from, and how they are cut."""

import math
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from featherpress.compress.distillation.losses.bounds import Fraction
from featherpress.compress.recipes.tables import Strict, Task

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


_DRAWN = ("synthetic", "shapes")


class UnlabelledRecipe(Strict):
    """Photographs without labels, which the teacher labels before the student's training.

    `root` is a folder, or a list of them, which give crops in turns. `per_batch` crops come on top of every batch. What
    the teacher scores from `positive_threshold` on is a face; between `ignore_threshold` and that it is ignored; below
    it is background. `square = false` leaves out images with equal sides, which are often squashed; `images` is how
    many of a folder are taken, 0 for all. `long_side` is the scale at which the teacher looks, the longer side in
    pixels, 0 for the photograph as it is: enlarged, it finds smaller faces. Several scales are a list; of what they
    find twice the surer stays. The control never sees them.
    """

    root: Root
    per_batch: Positive = 8
    images: Count = 0
    square: bool = True
    positive_threshold: Fraction = 0.6
    ignore_threshold: Fraction = 0.2
    long_side: LongSide | Annotated[tuple[LongSide, ...], Field(min_length=1)] = 0

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several."""
        return _several(self.root)

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
    """Where pictures come from, and how they are cut.

    `kind` is `widerface`, read from `root`; `coco`, read from the `annotations.json` in `root/train` and in `root/val`,
    where `category` holds the faces; `synthetic`, faces drawn from `seed`; or `shapes`, drawn too, of `classes` kinds,
    which are to be told apart rather than found. `root` may be a list; an epoch then holds as many crops of each, or by
    `shares`, and in each all events, which are the folders of its images, come equally often; `balance` does so by the
    events of one. `validation_root` is where the validation split lies, the first root unless given.

    `size` is the side of a training crop in pixels, or a list of them, each batch of one; `batch_size` is that of the
    first, and of the others so many fewer that a step has as many pixels. `variants` how many different crops an image
    has, 0 for ever new ones. The limits shorten the sets. `holdout` training images are kept back, and what is chosen
    on the way is chosen on them: scores between epochs, the best weights, an early stop, the table of an ablation.
    Without them that is done on the validation images. By `image` they are spread evenly, by `event` they are whole
    events of each root, `holdout` images at most.
    `long_side` is the scale at test: the longer side of an image in pixels, 0 for the image as it is.
    `cache` keeps decoded images in memory, on disk in the run's folder while it trains, or not at all; `cache_bytes` is
    what a process keeps in memory at most, decoded images and crops together.
    """

    kind: Literal["widerface", "coco", "synthetic", "shapes"]
    root: Root = ""
    validation_root: str = ""
    shares: tuple[Share, ...] = ()
    balance: bool = False
    category: str = ""
    size: Side | Annotated[tuple[Side, ...], Field(min_length=1)] = 320
    variants: Annotated[int, Field(ge=0, le=1000)] = 0
    train_images: Count = 0
    validation_images: Count = 0
    image_size: Side = 320
    long_side: LongSide = 0
    seed: Seed = 0
    holdout: Count = 0
    holdout_by: Literal["image", "event"] = "image"
    cache: Literal["ram", "disk", "none"] = "ram"
    cache_bytes: Annotated[int, Field(ge=0)] = 4 << 30
    classes: Annotated[int, Field(ge=2, le=6)] = 6
    crops: CropsRecipe = CropsRecipe()
    unlabelled: UnlabelledRecipe | None = None

    @property
    def roots(self) -> tuple[str, ...]:
        """The folders, one or several; none where pictures are drawn."""
        return _several(self.root) if self.root else ()

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sides of crops, one or several."""
        return _several(self.size)

    @property
    def root_shares(self) -> tuple[float, ...]:
        """What each root gives of an epoch; nothing where an epoch is every image once."""
        if len(self.roots) < 2 and not self.balance:
            return ()
        return self.shares or (1.0,) * len(self.roots)

    @property
    def task(self) -> Task:
        """The task that such data are for."""
        return "classification" if self.kind == "shapes" else "detection"

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        if self.kind not in _DRAWN and not self.root:
            raise ValueError(f"{self.kind} data needs a `root`")
        if self.shares and len(self.shares) != len(self.roots):
            raise ValueError(f"`shares` has {len(self.shares)} numbers for {len(self.roots)} roots")
        if self.kind in _DRAWN and (self.balance or len(self.roots) > 1):
            raise ValueError(f"{self.kind} data has neither roots nor events to `balance`")
        if self.category and self.kind != "coco":
            raise ValueError("only coco data has a `category`")
        if self.kind in _DRAWN and not (self.train_images and self.validation_images):
            raise ValueError(f"{self.kind} data needs `train_images` and `validation_images`")
        if self.kind == "shapes" and (self.unlabelled or self.holdout or self.crops != CropsRecipe()):
            raise ValueError("shapes data has neither `unlabelled` photographs nor a `holdout` nor `crops`")
        return self
