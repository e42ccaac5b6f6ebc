"""A folder for each class, as torchvision's ImageFolder has them: `root/train/CLASS/*.jpg`, `root/val/CLASS/*.jpg`."""

import difflib
import logging
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from featherpress.compress.data.examples import Example
from featherpress.compress.data.images import decode_reduced, image_size
from featherpress.compress.data.samples import ImageDataset
from featherpress.compress.data.sources.image_files import IMAGE_SUFFIXES
from featherpress.compress.data.subsets import origin, spread
from featherpress.errors import DataError
from featherpress.files import stamp_file

logger = logging.getLogger("featherpress")

SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation")}
"""What the folder of a split may be called, the usual name first."""


class ClassFolder:
    """The images of one split, class by class in the order of `classes`, and by name within a class.

    `images` is the folder that holds a folder for each class; a class's images may lie in folders below its own. What
    is no image, and what is hidden, is passed over, counted in `left_out`, and named in a warning. `limit` takes so
    many images, evenly spread.
    Errors: `DataError` for an image without a class, a class without images, and a class that is not among `classes`.
    """

    def __init__(self, images: Path, *, classes: Sequence[str] = (), limit: int = 0) -> None:
        found = list_classes(images)
        self.images, self.classes = images, tuple(classes) or found
        _require_known(images, found, self.classes)
        passed: list[Path] = _passed_over(images)
        rows = []
        for label, name in enumerate(self.classes):
            files, others = _split_files(images / name)
            passed += others
            if not files:
                raise DataError(f"expected images of the class {name!r} in {images / name}, found none")
            rows += [(file, label) for file in files]
        self.rows: list[tuple[Path, int]] = [rows[row] for row in spread(len(rows), limit or len(rows))]
        self.left_out = {"files that are no images": len(passed)}
        if passed:
            _warn_once(f"passed over {len(passed)} files in {images} that are no images: {_some(images, passed)}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int, /) -> Example:
        """Read one image; raises DataError where it is broken."""
        return self.read_downscaled(index, 0)

    def read_downscaled(self, index: int, side: int) -> Example:
        """Read one image, a JPEG 2, 4 or 8 times smaller where its short side stays `side` or more; 0: as it is."""
        file, label = self.rows[index]
        image, _ = decode_reduced(file, side, channels_last=True)
        return Example(image=image, target={"labels": torch.tensor(label)}, name=self.name(index))

    def cache_key(self, index: int, /) -> str:
        """Return a text that changes with an image's file and its class."""
        file, label = self.rows[index]
        return f"{stamp_file(file)} {label}"

    def name(self, index: int, /) -> str:
        """Name one image by its class's folder and its file."""
        return self.rows[index][0].relative_to(self.images).as_posix()

    def file(self, index: int, /) -> Path:
        """Return one image's file."""
        return self.rows[index][0]

    def label(self, index: int, /) -> int:
        """Return the number of one image's class."""
        return self.rows[index][1]

    def check(self, index: int, /) -> None:
        """Look at the header of an image's file; raises DataError where it is no image."""
        image_size(self.rows[index][0])


class LabelledImages:
    """Photographs with the class that a teacher gave each; -1 - class in `labels` tells that from a label."""

    def __init__(self, photographs: ImageDataset, labels: Sequence[int]) -> None:
        self.photographs, self.labels = photographs, labels

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int, /) -> Example:
        labels = torch.tensor(-1 - self.labels[index])
        return Example(image=self.photographs[index].image, target={"labels": labels}, name=self.name(index))

    def name(self, index: int, /) -> str:
        """Name a photograph by its path below the root."""
        return self.photographs.name(index)


def split_folder(root: Path, split: str) -> Path:
    """Return the folder of a split below a root.

    Errors: `DataError` that lists what was looked for and what is there.
    """
    names = SPLITS[split]
    found = next((root / name for name in names if (root / name).is_dir()), None)
    if found is None:
        there = ", ".join(sorted(each.name for each in root.iterdir())[:5]) if root.is_dir() else "no such folder"
        there = there or "nothing"
        raise DataError(f"expected a folder {' or '.join(names)} with a folder for each class in {root}, found {there}")
    return found


def list_classes(images: Path) -> tuple[str, ...]:
    """Return the names of the folders in a split, sorted, which are its classes.

    Errors: `DataError` for fewer than two, and for an image that lies in none of them.
    """
    if not images.is_dir():
        raise DataError(f"expected a folder for each class in {images}, found no such folder")
    loose = sorted(each for each in images.iterdir() if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file())
    if loose:
        more = f", and {len(loose) - 1} more images" if len(loose) > 1 else ""
        raise DataError(f"{loose[0]}{more}: expected an image in the folder of its class, found it beside them")
    names = tuple(sorted(each.name for each in images.iterdir() if each.is_dir() and not each.name.startswith(".")))
    if len(names) < 2:
        raise DataError(f"expected a folder for each of two or more classes in {images}, found {names or 'none'}")
    return names


def require_same_classes(training: Path, validation: Path) -> None:
    """Refuse splits of different classes.

    Errors: `DataError` that names the first class that only one of them has.
    """
    ours, theirs = list_classes(training), list_classes(validation)
    for names, here, there in ((ours, training, validation), (theirs, validation, training)):
        only = [name for name in names if name not in (theirs if names is ours else ours)]
        if only:
            raise DataError(
                f"the class {only[0]!r} has a folder in {here} and none in {there}{_nearest(only[0], there)}"
            )


def label_of(dataset: Any, index: int) -> int:
    """Return the number of an image's class without reading the image."""
    base, row = origin(dataset, index)
    return int(base.label(row))


def _nearest(name: str, folder: Path) -> str:
    near = difflib.get_close_matches(name, list_classes(folder), n=1)
    return f", where there is {near[0]!r}" if near else ""


def _require_known(images: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    unknown = [name for name in found if name not in classes]
    if unknown:
        near = difflib.get_close_matches(unknown[0], classes, n=1)
        asked = f"did you mean {near[0]!r}?" if near else f"the classes are {', '.join(classes)}"
        raise DataError(f"{images / unknown[0]}: no class is called {unknown[0]!r}; {asked}")
    missing = [name for name in classes if name not in found]
    if missing:
        raise DataError(f"expected a folder for the class {missing[0]!r} in {images}, found {', '.join(found)}")


def _passed_over(images: Path) -> list[Path]:
    return [each for each in sorted(images.iterdir()) if each.is_file() or each.name.startswith(".")]


def _split_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the images below a folder, links followed, and the other files, each sorted."""
    below = [Path(where) / name for where, _, names in os.walk(folder, followlinks=True) for name in names]
    images = sorted(each for each in below if each.suffix.lower() in IMAGE_SUFFIXES and not each.name.startswith("."))
    return images, sorted({*below} - {*images})


def _some(folder: Path, files: Sequence[Path]) -> str:
    shown = ", ".join(each.relative_to(folder).as_posix() for each in files[:3])
    return shown + (", ..." if len(files) > 3 else "")


@cache
def _warn_once(sentence: str) -> None:
    logger.warning(sentence)
