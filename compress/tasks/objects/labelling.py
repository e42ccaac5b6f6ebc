"""Images without labels, whose objects are those that a teacher finds."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from featherpress.compress.data.examples import Example
from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.object_examples import example_of
from featherpress.compress.data.sources.unlabelled import (
    LabelledPhotographs,
    Photographs,
    kept_labels,
    labels_file,
    open_photographs,
)
from featherpress.compress.data.subsets import join
from featherpress.compress.distillation.taps import evaluating
from featherpress.compress.recipes.data import UnlabelledRecipe
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.progress import Progress
from featherpress.compress.tasks.objects.inference import find_objects
from featherpress.errors import DataError

logger = logging.getLogger("featherpress")

Found = Mapping[str, Sequence[Any]]
"""What was found in one image, as it is saved: boxes, scores and the names of their categories, row by row."""


class FoundObjects:
    """Images of a folder with the objects that a teacher found there, as examples; targets as `ObjectExamples`."""

    def __init__(self, folder: LabelledPhotographs) -> None:
        self.folder = folder
        self.name, self.cache_key = folder.name, folder.cache_key

    def __len__(self) -> int:
        return len(self.folder)

    def __getitem__(self, index: int, /) -> Example:
        """Read one image; raises DataError where it is broken."""
        return example_of(self.folder[index])


def label_images(teacher: nn.Module, recipe: UnlabelledRecipe, categories: Sequence[str], *, out: Path) -> Any:
    """Return a recipe's images without labels with what the teacher finds and scores `positive_threshold` or more.

    Labels are kept in the folder `out`, so that a resumed run has the same; another teacher, threshold or folder is
    asked again. An image that cannot be read has none, and is skipped in training.

    Errors: `DataError` for a folder without images, or in which the teacher finds nothing.
    """
    folders = []
    for number, photographs in enumerate(open_photographs(recipe), start=1):
        record, least = labels_file(out, number), recipe.positive_threshold
        found = _look(teacher, photographs, categories, least=least, record=record)
        counts = Counter(label for each in found for label in each["labels"])
        if not counts:
            raise DataError(
                f"the teacher finds nothing of a score of {least:g} or more in the {len(photographs):,} images of "
                f"{photographs.root}; lower `data.unlabelled.positive_threshold`, or train it for longer"
            )
        listed = ", ".join(f"{counts[name]:,} {name}" for name in categories)
        logger.info("%s: %d images, in which the teacher finds %s", photographs.root, len(photographs), listed)
        folders.append(FoundObjects(LabelledPhotographs(photographs, [_objects(each, categories) for each in found])))
    return join(*folders)


def _look(
    teacher: nn.Module, photographs: Photographs, categories: Sequence[str], *, least: float, record: Path
) -> list[Found]:
    """Read what the teacher found in each image, or let it look."""
    names = [photographs.name(index) for index in range(len(photographs))]
    asked = {"teacher": fingerprint(teacher), "categories": list(categories), "positive_threshold": least}

    def look() -> dict[str, Found]:
        found = {}
        with evaluating(teacher), Progress("labelling images", total=len(names)) as progress:
            for index, name in enumerate(names):
                found[name] = _find(teacher, photographs, index, categories, least)
                progress.advance()
        return found

    return [*kept_labels(record, asked, fits=lambda known: list(known) == names, label=look).values()]


def _find(teacher: nn.Module, photographs: Photographs, index: int, categories: Sequence[str], least: float) -> Found:
    try:
        found = find_objects(teacher, photographs[index].image)
    except DataError:
        return {"boxes": [], "scores": [], "labels": []}
    sure = found["scores"] >= least
    return {
        "boxes": found["boxes"][sure].round(2).tolist(),
        "scores": found["scores"][sure].round(4).tolist(),
        "labels": [categories[number] for number in found["labels"][sure].tolist()],
    }


def _objects(found: Found, categories: Sequence[str]) -> Objects:
    boxes = torch.tensor(found["boxes"], dtype=torch.float32).view(-1, 4)
    labels = torch.tensor([categories.index(name) for name in found["labels"]], dtype=torch.int64)
    return Objects.without_landmarks(boxes, torch.zeros(len(boxes), dtype=torch.bool), labels)
