"""Photographs without labels, or with those that a teacher gave them."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from featherpress.compress.data.images import decode_image, image_size
from featherpress.compress.data.samples import Objects, Sample, SampleDataset
from featherpress.compress.data.sources.image_files import IMAGE_SUFFIXES, warn_of_unread
from featherpress.compress.data.sources.labelled import key_of_objects
from featherpress.compress.data.subsets import cache_key
from featherpress.compress.recipes.data import UnlabelledRecipe
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.runtime.ranks import is_leader
from featherpress.errors import DataError
from featherpress.files import stamp_file, write_json


class Photographs:
    """The images of a folder and its subfolders in the order of their names, as samples without objects.

    `square=False` leaves out images whose sides are equal: in collections made for classifiers, those were squashed.

    Errors: `DataError` for a folder without images, and for one image when it is read and cannot be.
    """

    def __init__(self, root: Path, *, limit: int | None = None, square: bool = True) -> None:
        if not root.is_dir():
            raise DataError(f"expected a folder of photographs at {root}, found nothing there")
        there = sorted(path for path in root.rglob("*") if path.is_file())
        warn_of_unread(there, root)
        files = [path for path in there if path.suffix.lower() in IMAGE_SUFFIXES]
        self.root = root
        self.files = [path for path in files if square or not _is_square(path)][:limit]
        if not self.files:
            raise DataError(f"expected photographs ({', '.join(sorted(IMAGE_SUFFIXES))}) in {root}, found none")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return Sample(image=decode_image(self.files[index]), objects=Objects.none(), name=self.name(index))

    def cache_key(self, index: int) -> str:
        """Return a text that changes with a photograph's file."""
        return stamp_file(self.files[index])

    def name(self, index: int) -> str:
        """Name a photograph by its path below the root."""
        return self.files[index].relative_to(self.root).as_posix()


class LabelledPhotographs:
    """Photographs, or drawn pictures, with predicted objects, one `Objects` for each."""

    def __init__(self, photographs: SampleDataset, objects: Sequence[Objects]) -> None:
        self.photographs, self.objects, self.name = photographs, objects, photographs.name

    def __len__(self) -> int:
        return len(self.photographs)

    def __getitem__(self, index: int) -> Sample:
        return replace(self.photographs[index], objects=self.objects[index])

    def cache_key(self, index: int) -> str:
        """Return a text that changes with a photograph's file, if it has one, and its labels."""
        return f"{cache_key(self.photographs, index)} {key_of_objects(self.objects[index])}"


def open_photographs(recipe: UnlabelledRecipe) -> list[Photographs]:
    """Open the folders of a recipe's images without labels.

    Errors: `DataError` for a folder without images.
    """
    limit, square = recipe.images or None, recipe.square
    return [Photographs(expand_path(root), limit=limit, square=square) for root in recipe.roots]


def labels_file(out: Path, number: int) -> Path:
    """Return where a run keeps a teacher's labels of a folder, by its number from 1."""
    return out / ("labels.json" if number == 1 else f"labels-{number}.json")


def kept_labels(
    record: Path,
    asked: Mapping[str, Any],
    *,
    fits: Callable[[Mapping[str, Any]], bool],
    label: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return a teacher's labels by the images' names, from the record of a run that a resumed run goes on with.

    Labels that were `asked` otherwise, or that do not fit the images, are made anew by `label` and kept.
    """
    content = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    known: dict[str, Any] = content.get("labels", {})
    if content.get("asked") == asked and fits(known):
        return known
    known = label()
    if is_leader():
        write_json(record, {"schema": "featherpress.labels/1", "asked": asked, "labels": known})
    return known


def _is_square(path: Path) -> bool:
    """Read the size in a file's header; what cannot be read is dealt with where images are decoded."""
    try:
        width, height = image_size(path)
    except DataError:
        return False
    return width == height
