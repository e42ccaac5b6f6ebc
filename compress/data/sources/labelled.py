"""A folder of images and the labels of each, which know where in their file they stand."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from featherpress.compress.data.images import decode_reduced, image_orientation, image_size
from featherpress.compress.data.samples import Objects, Sample
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError, UsageError
from featherpress.files import stamp_file

_ROUNDING = 2
"""By how many pixels a size may be off, and a box beyond its image, before they are taken for another image's."""

_SHARES = 1.01
_MANY = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """The labels of one image; `place` and `object_places` are the numbers that the label file knows them by.

    `file` is the image's own label file, where it has one; `size` the width and height that the labels say, if they do.
    Shapes: object_places (n,), one an object.
    """

    name: str
    objects: Objects
    place: int
    object_places: tuple[int, ...]
    file: Path | None = None
    size: tuple[int, int] | None = None


class LabelledFolder:
    """Images of a folder as a data set; what does not fit its label is an error that names the label's place.

    An image that is missing, that a link puts outside the folder, or that an object lies wholly outside of, cannot be
    read. Boxes that an image cuts stay as they are labelled, as do those outside where that is allowed. `places` are
    the words for a label's place in its file: of an image, and of an object. `labelled` has the labels of all images,
    `left_out` counts what was ignored or not taken of them. `categories` are those that labels are numbers of.
    Errors: DataError for boxes from 0 to 1, and on reading such an image, or one that is broken.
    """

    places = ("line", "line")
    outside_allowed = False

    def __init__(
        self,
        images: Path,
        labelled: Sequence[LabelledImage],
        *,
        labels: Path,
        limit: int | None = None,
        categories: tuple[str, ...] = ("face",),
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"expected a limit of at least 1 image, got {limit}: leave it out to use all")
        self.images, self.labels, self.labelled, self.categories = images, labels, labelled[:limit], categories
        self.left_out = {what: count for what, count in (left_out or {}).items() if count}
        self._sizes: dict[int, tuple[int, int]] = {}
        require_pixels(labels, (row.objects.boxes for row in labelled))

    def __len__(self) -> int:
        return len(self.labelled)

    @property
    def has_objects(self) -> bool:
        """Whether any image has an object that counts."""
        return any(bool((~row.objects.ignored).any()) for row in self.labelled)

    def __getitem__(self, index: int, /) -> Sample:
        """Read one image; raises DataError where it is broken or does not fit its labels."""
        return self.read_downscaled(index, 0)

    def read_downscaled(self, index: int, side: int) -> Sample:
        """Read one image, a JPEG 2, 4 or 8 times smaller where its short side stays `side` or more; 0: as it is.

        Boxes are scaled by exactly that factor. The pixels are libjpeg's, averaged while decoding, which is near what
        scaling them down later would give, but not equal.
        """
        row = self.labelled[index]
        self._check_file(row)
        image, factor = decode_reduced(self.images / row.name, side)
        # A reduced image's sides are rounded up.
        width, height = image.shape[:0:-1] if factor == 1 else image_size(self.images / row.name)
        self._check_size(row, width, height)
        objects = row.objects if factor == 1 else row.objects.scaled(1 / factor, 1 / factor)
        return Sample(image=image, objects=objects, name=row.name)

    def cache_key(self, index: int, /) -> str:
        """Return a text that changes with an image's file and its labels."""
        row = self.labelled[index]
        return f"{stamp_file(self.images / row.name)} {key_of_objects(row.objects)}"

    def name(self, index: int, /) -> str:
        """Name one image as the label file does: folder and file."""
        return self.labelled[index].name

    def check(self, index: int, /) -> None:
        """Look at the header of an image's file; raises DataError where the image cannot be used."""
        row = self.labelled[index]
        self._check_file(row)
        self._sizes[index] = image_size(self.images / row.name)
        self._check_size(row, *self._sizes[index])

    def check_units(self) -> None:
        """Hold all boxes to the images that were checked; raises DataError for corners and hundredths."""
        if len(self._sizes) == len(self) and not self.outside_allowed:
            sizes = [self._sizes[index] for index in range(len(self))]
            _require_sizes(self, torch.tensor(sizes, dtype=torch.float32).view(-1, 2))

    def _check_file(self, row: LabelledImage) -> None:
        """Refuse what is no file; the folder may be a link, but no link in it may leave it."""
        path = self.images / row.name
        if not path.is_file():
            what = "a folder" if path.is_dir() else "a link to nothing" if path.is_symlink() else "nothing"
            problem = f"an image at {path}, found {what} there"
        elif not path.resolve().is_relative_to(self.images.resolve()):
            problem = (
                f"an image inside {self.images}, got {row.name!r}, a link that leads out of it: copy the image there"
            )
        else:
            return
        raise DataError(f"{self._place(row)}: expected {problem}")

    def _place(self, row: LabelledImage, number: int | None = None) -> str:
        """Say where the label of an image stands, or that of one of its objects."""
        if number is None:
            return str(row.file) if row.file else f"{self.labels}, {self.places[0]} {row.place}"
        return f"{row.file or self.labels}, {self.places[1]} {row.object_places[number]}"

    def _check_size(self, row: LabelledImage, width: int, height: int) -> None:
        boxes = row.objects.boxes
        outside = (boxes[:, :2] >= boxes.new_tensor([width, height])).any(dim=1) | (boxes[:, 2:] <= 0).any(dim=1)
        rows = (outside & ~row.objects.ignored).nonzero()[:, 0].tolist()
        if self.outside_allowed or not len(boxes):
            return
        self._check_upright(row, width, height)
        if rows:
            box = ", ".join(f"{value:g}" for value in boxes[rows[0]].tolist())
            raise DataError(
                f"{self._place(row, rows[0])}: expected a box inside {row.name}, which is {width} x {height} pixels, "
                f"got one from corner to corner ({box}), wholly outside"
            )

    def _check_upright(self, row: LabelledImage, width: int, height: int) -> None:
        """Refuse boxes that were drawn on the image at another size, or before it was turned upright."""
        right, bottom = row.objects.boxes[:, 2:].amax(dim=0).tolist()
        said = row.size or (width, height)
        apart = max(abs(said[0] - width), abs(said[1] - height))
        lying = max(abs(said[0] - height), abs(said[1] - width)) <= _ROUNDING < apart
        too_large = right > width + _ROUNDING or bottom > height + _ROUNDING
        if not lying and too_large and right <= height + _ROUNDING and bottom <= width + _ROUNDING:
            lying = image_orientation(self.images / row.name) > 4
        if lying:
            raise DataError(
                f"{self._place(row)}: expected boxes in the upright {row.name}, which is {width} x {height} pixels, "
                f"got boxes of one of {height} x {width}: write the image's pixels upright, or turn its boxes"
            )
        if apart > _ROUNDING:
            raise DataError(
                f"{self._place(row)}: expected an image of {said[0]} x {said[1]} pixels, as its label says, got "
                f"{row.name} of {width} x {height}: its boxes are for another size"
            )


def key_of_objects(objects: Objects) -> str:
    """Return a text that changes with an image's labels."""
    return str([getattr(objects, field.name).tolist() for field in fields(objects)])


class Checked(Protocol):
    """Images that can be looked at before they are used."""

    def __len__(self) -> int: ...

    def check(self, index: int, /) -> None:
        """Raise DataError where an image or its labels cannot be used."""


def require_pixels(labels: Path, boxes: Iterable[Tensor]) -> None:
    """Refuse boxes that all lie within 0 to 1: they are shares of the image, not pixels.

    Errors: DataError with how many there are.
    """
    corners = torch.cat([torch.zeros(0, 4), *boxes])
    corners = corners[(corners[:, 2:] > corners[:, :2]).all(dim=1)]
    if len(corners) and float(corners.max()) <= _SHARES:
        raise DataError(
            f"{labels}: expected boxes in pixels, got {len(corners):,} that all lie within 0 to 1: multiply them by "
            "the width and the height of their images"
        )


def require_sound(dataset: Checked) -> None:
    """Look at every image's file and labels before any work is spent on them.

    Errors: DataError that names the first of what cannot be used, and how many there are; and for boxes that are
    corners or hundredths, not what they should be.
    """
    problems = []
    with Progress("checking labels", total=len(dataset)) as progress:
        for index in range(len(dataset)):
            try:
                dataset.check(index)
            except DataError as error:
                problems.append(str(error))
            progress.advance()
    if problems:
        more = f"; {len(problems) - 1:,} more of {len(dataset):,} images cannot be used" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    if isinstance(dataset, LabelledFolder):
        dataset.check_units()


def _require_sizes(dataset: LabelledFolder, sizes: Tensor) -> None:
    """Refuse boxes most of which stick out unless they are read as corners, and many that end just below 100."""
    boxes = torch.cat([row.objects.boxes for row in dataset.labelled])
    owners = torch.repeat_interleave(sizes, torch.tensor([len(row.objects) for row in dataset.labelled]), dim=0)
    corners, far = boxes[:, 2:] - boxes[:, :2], boxes[:, 2:].amax(dim=0) if len(boxes) else sizes.new_zeros(2)
    out = (boxes[:, 2:] > owners + _ROUNDING).any(dim=1)
    fits = ((corners > boxes[:, :2]) & (corners <= owners + _ROUNDING)).all(dim=1)
    if len(boxes) and out.float().mean() > 0.5 and fits.float().mean() > 0.95:
        raise DataError(
            f"{dataset.labels}: expected x, y, width and height, got boxes that stick out of their images unless these "
            "are x, y, right and bottom: write widths and heights"
        )
    if len(boxes) >= _MANY and float(sizes.min()) >= 200 and (far > 90).all() and (far <= 101).all():
        raise DataError(
            f"{dataset.labels}: expected boxes in pixels, got {len(boxes):,} that all end between 0 and 100 in larger "
            "images, as hundredths do: multiply them by a hundredth of the width and the height"
        )


def require_objects(dataset: LabelledFolder) -> None:
    """Refuse labels from which nothing can be learned.

    Errors: DataError where no image has an object that counts.
    """
    if not dataset.has_objects:
        marked = sum(len(row.objects) for row in dataset.labelled)
        what = f"{marked:,} that are all marked invalid or empty" if marked else "none"
        raise DataError(
            f"{dataset.labels}: expected boxes to learn from in at least one of {len(dataset):,} images, got {what}"
        )
