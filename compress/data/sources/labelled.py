"""A folder of images and the labels of each, which know where in their file they stand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

from featherpress.compress.data.images import decode_reduced, image_size
from featherpress.compress.data.samples import Objects, Sample
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImage:
    """The labels of one image; `place` and `object_places` are the numbers that the label file knows them by.

    Shapes: object_places (n,), one an object.
    """

    name: str
    objects: Objects
    place: int
    object_places: tuple[int, ...]


class LabelledFolder:
    """Images of a folder as a data set; what does not fit its label is an error that names the label's place.

    An image that is missing, that a link puts outside the folder, or that an object lies wholly outside of, cannot be
    read. Boxes that an image cuts stay as they are labelled, as do those outside where that is allowed. `places` are
    the words for a label's place in its file: of an image, and of an object. `labelled` has the labels of all images.
    Errors: DataError on reading such an image, or one that is broken.
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
    ) -> None:
        if limit is not None and limit < 1:
            raise UsageError(f"expected a limit of at least 1 image, got {limit}: leave it out to use all")
        self.images, self.labels, self.labelled = images, labels, labelled[:limit]

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
        self._check_size(row, image.shape[-1] * factor, image.shape[-2] * factor)
        objects = row.objects if factor == 1 else row.objects.scaled(1 / factor, 1 / factor)
        return Sample(image=image, objects=objects, name=row.name)

    def cache_key(self, index: int, /) -> str:
        """Return a text that changes with an image's file and its labels."""
        row = self.labelled[index]
        return cache_key_of(self.images / row.name, row.objects)

    def name(self, index: int, /) -> str:
        """Name one image as the label file does: folder and file."""
        return self.labelled[index].name

    def check(self, index: int, /) -> None:
        """Look at the header of an image's file; raises DataError where the image cannot be used."""
        row = self.labelled[index]
        self._check_file(row)
        self._check_size(row, *image_size(self.images / row.name))

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
        raise DataError(f"{self.labels}, {self.places[0]} {row.place}: expected {problem}")

    def _check_size(self, row: LabelledImage, width: int, height: int) -> None:
        boxes = row.objects.boxes
        outside = (boxes[:, :2] >= boxes.new_tensor([width, height])).any(dim=1) | (boxes[:, 2:] <= 0).any(dim=1)
        rows = (outside & ~row.objects.ignored).nonzero()[:, 0].tolist()
        if not rows or self.outside_allowed:
            return
        box = ", ".join(f"{value:g}" for value in boxes[rows[0]].tolist())
        raise DataError(
            f"{self.labels}, {self.places[1]} {row.object_places[rows[0]]}: expected a box inside {row.name}, which is "
            f"{width} x {height} pixels, got one from corner to corner ({box}), wholly outside"
        )


def cache_key_of(path: Path, objects: Objects) -> str:
    """Return a text that changes with an image's file and its labels."""
    file = path.stat() if path.exists() else None
    labels = [getattr(objects, field.name).tolist() for field in fields(objects)]
    return f"{file and (file.st_size, file.st_mtime_ns)} {labels}"


class Checked(Protocol):
    """Images that can be looked at before they are used."""

    def __len__(self) -> int: ...

    def check(self, index: int, /) -> None:
        """Raise DataError where an image or its labels cannot be used."""


def require_sound(dataset: Checked) -> None:
    """Look at every image's file and labels before any work is spent on them.

    Errors: DataError that names the first of what cannot be used, and how many there are.
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


def is_finite(value: object) -> bool:
    """Return whether a JSON value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_inside_name(name: str) -> bool:
    """Return whether a name is a relative path without `..`, for POSIX and for Windows."""
    paths = (PurePosixPath(name), PureWindowsPath(name))
    leaves = any(path.is_absolute() or path.drive or ".." in path.parts for path in paths)
    return bool(name) and "\0" not in name and not leaves
