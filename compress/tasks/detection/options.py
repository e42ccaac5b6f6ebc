"""The options of data with faces: where pictures come from, and how they are cut."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from featherpress.compress.recipes.data import CropsRecipe, DataRecipe, LongSide, Share, Side


class FaceData(DataRecipe):
    """Images with faces.

    `kind` is `widerface`, read from `root`; `coco`, read from `root` in COCO's, YOLO's or Pascal VOC's layout, where
    `category` holds the faces; or `synthetic`, faces drawn from `seed`, `image_size` pixels a side. Of several
    roots an epoch holds as many crops of each, or by `shares`, and in each all events, which are the folders of its
    images, come equally often; `balance` does so by the events of one.

    `size` may be a list of sides, each batch of one; `batch_size` is that of the first, and of the others so many fewer
    that a step has as many pixels. By `image` the `holdout` images are spread evenly, by `event` they are whole events
    of each root, `holdout` images at most. `long_side` is the scale at test: the longer side of an image in pixels, 0
    for the image as it is. With `unlabelled.images` drawn, student and control know the labels of the
    `train_images` alone, and a teacher that is trained first has learned the labels of all.
    """

    kind: Literal["widerface", "coco", "synthetic"]
    shares: tuple[Share, ...] = ()
    balance: bool = False
    category: str = ""
    size: Side | Annotated[tuple[Side, ...], Field(min_length=1)] = 320
    image_size: Side = 320
    long_side: LongSide = 0
    holdout_by: Literal["image", "event"] = "image"
    crops: CropsRecipe = CropsRecipe()

    @property
    def root_shares(self) -> tuple[float, ...]:
        """What each root gives of an epoch; nothing where an epoch is every image once."""
        if len(self.roots) < 2 and not self.balance:
            return ()
        return self.shares or (1.0,) * len(self.roots)

    @property
    def draws_unlabelled(self) -> bool:
        """Whether images without labels are drawn too."""
        return self.kind == "synthetic" and self.unlabelled is not None and not self.unlabelled.root

    @property
    def counted_at(self) -> str:
        """Detectors take any size, and are counted at their own."""
        return ""

    def shrunk(self, *, images: int, validation_images: int, side: int) -> Self:
        """Return the options for a trial, with crops no larger than a side."""
        small = super().shrunk(images=images, validation_images=validation_images, side=side)
        return small.model_copy(update={"size": min(*self.sizes, side)})

    @model_validator(mode="after")
    def _enough_said(self) -> Self:
        drawn = self.kind == "synthetic"
        if not drawn and not self.root:
            raise ValueError(f"{self.kind} data needs a `root`")
        if self.shares and len(self.shares) != len(self.roots):
            raise ValueError(f"`shares` has {len(self.shares)} numbers for {len(self.roots)} roots")
        if drawn and (self.balance or len(self.roots) > 1):
            raise ValueError(f"{self.kind} data has neither roots nor events to `balance`")
        if self.category and self.kind != "coco":
            raise ValueError("only coco data has a `category`")
        if drawn and not (self.train_images and self.validation_images):
            raise ValueError(f"{self.kind} data needs `train_images` and `validation_images`")
        if self.draws_unlabelled and self.unlabelled and not self.unlabelled.images:
            raise ValueError("`unlabelled` needs a `root`, or in `images` how many are drawn")
        return self


class CocoData(FaceData):
    """Images with objects of any categories, in COCO's, YOLO's or Pascal VOC's layout.

    For torchvision's detectors they are the objects of all categories, or of `categories`, in that order, and crops are
    made by `train`, transforms of torchvision.transforms.v2 with their arguments; unless given, those of its reference
    for detectors. For our own detectors they are faces, of the one `category`, cut as `FaceData` says.
    """

    kind: Literal["coco"]
    categories: tuple[str, ...] = ()
    train: tuple[str | dict[str, Any], ...] = ()

    def shrunk(self, *, images: int, validation_images: int, side: int) -> Self:
        """Return the options for a trial; crops that `train` makes keep their size."""
        small = super().shrunk(images=images, validation_images=validation_images, side=side)
        return small.model_copy(update={"size": self.size}) if self.train else small
