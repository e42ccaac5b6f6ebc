"""Images with a mask each: a class number for every pixel, in the layouts in which people keep them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ImageOps
from PIL.PngImagePlugin import PngImageFile
from torch import Tensor

from featherpress.compress.data.examples import Example
from featherpress.compress.data.images import (
    decode_image,
    image_orientation,
    image_size,
    load_strictly,
    open_image,
    turn_upright,
)
from featherpress.compress.data.sources.image_files import IMAGE_SUFFIXES
from featherpress.compress.data.sources.label_lines import LabelLines
from featherpress.errors import DataError
from featherpress.files import stamp_file

MaskLayout: TypeAlias = Literal["folders", "voc", "cityscapes"]

IGNORED = 255
"""The number that pixels have in a tensor where they do not count, whatever it is in the file."""

_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The numbers that `labelIds` files have for the 19 classes that are scored, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskPair:
    """An image's file, its mask's, and its name."""

    image: Path
    mask: Path
    name: str


_SCALED_BITS = {"L;2": 85, "L;4": 17}
"""By what Pillow multiplies the values of grey PNGs of two and of four bits."""

_Found: TypeAlias = tuple[list[MaskPair], dict[str, int]]
"""The pairs of a split, and how much was passed over, by what it is."""


class MaskFolder:
    """One split of images and masks as a data set of examples; masks are uint8 (H, W), `IGNORED` where not to count.

    `folders` is `SPLIT/images` and `SPLIT/masks`, of equal names but for the suffix; `voc` the lists of
    `ImageSets/Segmentation`; `cityscapes` is `leftImg8bit` and `gtFine`, whose `labelIds` are read as the 19 classes.
    Masks are palette or grey PNG files whose values are 0 to `classes` - 1, or `ignore`. `left_out` counts what was
    found and is not used, by what it is.

    Errors: `DataError` where nothing is found; on reading for a file that is missing or broken, for a mask of another
    size, and for a value out of range.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        *,
        layout: MaskLayout = "folders",
        classes: int,
        ignore: int = IGNORED,
    ) -> None:
        self.root, self.classes, self.ignore = root, classes, ignore
        self.from_ids = layout == "cityscapes"
        self.pairs, self.left_out = _FIND[layout](root, split)
        self.shown = set[int]()

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int, /) -> str:
        """Name an image by its path below its folder."""
        return self.pairs[index].name

    def file(self, index: int, /) -> Path:
        """Return the file of an image."""
        return self.pairs[index].image

    def cache_key(self, index: int, /) -> str:
        """Return a text that changes with an image's file or its mask's."""
        return f"{stamp_file(self.pairs[index].image)} {stamp_file(self.pairs[index].mask)}"

    def __getitem__(self, index: int, /) -> Example:
        """Read one image with its mask, both upright."""
        pair = self.pairs[index]
        image = decode_image(pair.image)
        mask = self._read_mask(pair, (image.shape[-1], image.shape[-2]))
        return Example(image=image, target={"masks": torch.from_numpy(mask)}, name=pair.name)

    def mask(self, index: int, /) -> Tensor:
        """Read one mask alone, uint8 (H, W), upright as its image is."""
        pair = self.pairs[index]
        return torch.from_numpy(self._read_mask(pair, image_size(pair.image)))

    def check(self, index: int, /) -> None:
        """Look at the head of an image and at all of its mask; raises DataError where they cannot be used."""
        self.shown.update(np.unique(self.mask(index).numpy()).tolist())

    def check_classes(self) -> None:
        """Refuse masks that were all looked at, and show one class beside what is ignored; raises DataError."""
        if self.classes > 1 and IGNORED in self.shown and len(self.shown) <= 2:
            others = [f"{value}" for value in self.shown - {IGNORED}] or ["nothing"]
            raise DataError(
                f"{self.pairs[0].mask.parent}: expected some of {self.classes} classes, got {others[0]} alone beside "
                f"{self.ignore}, which is ignored: if it is a class here, write its number, or set `data.ignore`"
            )

    def _read_mask(self, pair: MaskPair, size: tuple[int, int]) -> NDArray[np.uint8]:
        values = read_mask(pair.mask, of=pair.image, size=size)
        if self.from_ids and pair.mask.name.endswith("_labelIds.png"):
            values = _from_ids(values)
        counted = values != self.ignore
        wrong = counted & ((values < 0) | (values >= self.classes))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise DataError(
                f"{pair.mask}: expected classes from 0 to {self.classes - 1}, or {self.ignore} for what is ignored, "
                f"got {values[row, column]} at row {row}, column {column}: set `data.classes`, or `data.ignore`"
            )
        return np.where(counted, values, IGNORED).astype(np.uint8)


def read_mask(path: Path, *, of: Path, size: tuple[int, int]) -> NDArray[np.int64]:
    """Read a mask as class numbers, upright as its image is.

    A mask turned by EXIF of its own is turned so. One that fits its image only as that is stored, lying on its side, is
    turned as the image is.

    Units: `size` is the width and height of the upright image, in pixels.
    Shapes: -> (H, W).
    Errors: `DataError` for a missing or broken file, for colours, and for another size than the image's.
    """
    if not path.is_file():
        raise DataError(f"expected the mask of {of} at {path}, found nothing there")
    with open_image(path) as image:
        if image.mode not in {"1", "L", "P"} and not image.mode.startswith("I"):
            raise DataError(
                f"{path}: expected a palette or grey PNG whose values are class numbers, got colours ({image.mode})"
            )
        packed = image.tile[0].args if isinstance(image, PngImageFile) and image.tile else ""
        load_strictly(image)
        mask = ImageOps.exif_transpose(image)
        if image.size == mask.size == size[::-1] != size:
            mask = turn_upright(mask, image_orientation(of))
        if mask.size != size:
            raise DataError(
                f"{path}: the mask is {mask.width} x {mask.height} pixels, its image {of} {size[0]} x {size[1]}: they "
                "must be of one size"
            )
        return np.asarray(mask).astype(np.int64) // _SCALED_BITS.get(str(packed), 1)


def _from_ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Turn Cityscapes' numbers into those of its 19 classes, and all others into `IGNORED`."""
    table = np.full(256, IGNORED)
    table[list(_CITYSCAPES_IDS)] = np.arange(len(_CITYSCAPES_IDS))
    return table[ids % 256]


def _find_folders(root: Path, split: str) -> _Found:
    images, masks = root / split / "images", root / split / "masks"
    files = _files(images)
    used = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    names = [path.relative_to(images) for path in used]
    for before, name in pairwise(sorted(names, key=lambda name: name.with_suffix(""))):
        if before.with_suffix("") == name.with_suffix(""):
            raise DataError(f"{images}: expected one image for a mask, got {before.name!r} and {name.name!r}")
    found = {path.relative_to(masks).with_suffix("") for path in _files(masks) if path.suffix.lower() == ".png"}
    pairs = [
        MaskPair(image=images / name, mask=(masks / name).with_suffix(".png"), name=name.as_posix()) for name in names
    ]
    return _some(pairs, images), {
        f"files in {images} that are no images": len(files) - len(used),
        f"masks in {masks} without an image": len(found - {name.with_suffix("") for name in names}),
    }


def _find_voc(root: Path, split: str) -> _Found:
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    if not listed.is_file():
        raise DataError(f"expected a list of images at {listed}, found nothing there")
    images, masks = root / "JPEGImages", root / "SegmentationClass"
    lines, names = LabelLines(listed), dict[str, None]()
    while (line := lines.next()) is not None:
        if line in names:
            raise lines.error(f"a new image, got {line!r} a second time")
        names[line] = None
    pairs = [MaskPair(image=images / f"{name}.jpg", mask=masks / f"{name}.png", name=f"{name}.jpg") for name in names]
    return _some(pairs, listed), {}


def _find_cityscapes(root: Path, split: str) -> _Found:
    images, tail = root / "leftImg8bit" / split, "_leftImg8bit.png"
    files = _files(images)
    used = [path for path in files if path.name.endswith(tail)]
    pairs = []
    for path in used:
        stem = root / "gtFine" / split / path.relative_to(images).with_name(path.name.removesuffix(tail))
        made = [stem.with_name(f"{stem.name}_gtFine_{kind}.png") for kind in ("labelTrainIds", "labelIds")]
        mask = made[0] if made[0].is_file() else made[1]
        pairs.append(MaskPair(image=path, mask=mask, name=path.relative_to(images).as_posix()))
    return _some(pairs, images), {f"files in {images} that do not end in {tail}": len(files) - len(used)}


def _files(folder: Path) -> list[Path]:
    """List a folder's files in order, those in its folders too; hidden ones are nobody's data."""
    if not folder.is_dir():
        raise DataError(f"expected a folder of {folder.name} at {folder}, found nothing there")
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _some(pairs: list[MaskPair], place: Path) -> list[MaskPair]:
    if not pairs:
        raise DataError(f"expected images in {place}, found none")
    return pairs


_FIND: dict[MaskLayout, Callable[[Path, str], _Found]] = {
    "folders": _find_folders,
    "voc": _find_voc,
    "cityscapes": _find_cityscapes,
}
