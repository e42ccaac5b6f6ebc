"""A recipe's data, opened for the detection of objects, and batches of it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from featherpress.compress.data.examples import Example, ExampleBatch
from featherpress.compress.data.samples import Key
from featherpress.compress.data.sources.labelled import require_objects, require_sound
from featherpress.compress.data.sources.object_examples import ObjectExamples
from featherpress.compress.data.sources.objects import LabelledObjects, find_labels
from featherpress.compress.data.subsets import join, open_part
from featherpress.compress.recipes.files import expand_path
from featherpress.compress.tasks.detection.options import CocoData
from featherpress.errors import DataError

logger = logging.getLogger("featherpress")

_ROWS = ("boxes", "labels", "ignored")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectBatch(ExampleBatch):
    """Images with their objects, padded to M rows; `present` tells objects from padding.

    Shapes: boxes (N, M, 4); labels int64, ignored and present bool (N, M).
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor
    present: Tensor

    @classmethod
    def collate(cls, examples: Sequence[Example], keys: Sequence[Key]) -> Self:
        """Stack examples of one image size."""
        lengths = torch.tensor([len(each.target["boxes"]) for each in examples])
        present = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
        padded = {}
        for name in _ROWS:
            rows = torch.cat([each.target[name] for each in examples])
            padded[name] = rows.new_zeros(*present.shape, *rows.shape[1:])
            padded[name][present] = rows
        images = torch.stack([each.image for each in examples])
        return cls(images=images, keys=torch.tensor(keys, dtype=torch.int64).view(-1, 2), present=present, **padded)

    def separate(self) -> list[Example]:
        """Undo `collate`, without the names."""
        return [
            Example(
                image=self.images[row].clone(),
                target={name: getattr(self, name)[row][self.present[row]] for name in _ROWS},
                name="",
            )
            for row in range(len(self))
        ]

    def targets(self) -> list[dict[str, Tensor]]:
        """Return each image's boxes and labels as torchvision takes them, from 1 on; ignored ones are left out."""
        kept = self.present & ~self.ignored
        return [
            {"boxes": self.boxes[row][kept[row]], "labels": self.labels[row][kept[row]] + 1} for row in range(len(self))
        ]


def find_categories(data: CocoData) -> tuple[str, ...]:
    """Return a recipe's categories, or those of the training labels of its first root."""
    return data.categories or find_labels(expand_path(data.roots[0]), "train").categories


def open_data(data: CocoData, split: str, categories: Sequence[str]) -> Any:
    """Open a split; held-out images are spread evenly over the training images.

    Errors: `DataError` when there is nothing where the recipe says, or a split has other categories.
    """
    return open_part(split, data.holdout, lambda part: _open(data, part, categories))


def check_data(dataset: Any) -> None:
    """Look at the head of every image, and hold its boxes to it; raises DataError for the first that does not fit."""
    for folder in {id(each): each for each, _ in getattr(dataset, "rows", [(dataset, 0)])}.values():
        require_sound(folder.folder)


def _open(data: CocoData, split: str, categories: Sequence[str]) -> Any:
    train = split == "train"
    limit = (data.train_images if train else data.validation_images) or None
    folders = []
    for root in data.roots if train else [data.validation_root or data.roots[0]]:
        labels = find_labels(expand_path(root), split)
        extra = [name for name in labels.categories if name not in categories]
        if extra and not data.categories:
            raise DataError(
                f"{labels.file}: expected the categories of the training labels, got {extra[0]!r} too; give "
                "`data.categories` those that are meant"
            )
        folder = LabelledObjects(labels.choose(categories), limit=limit)
        _say(folder)
        if train:
            require_objects(folder)
        folders.append(ObjectExamples(folder))
    return folders[0] if len(folders) == 1 else join(*folders)


@cache
def _said(text: str) -> None:
    logger.info("%s", text)


def _say(folder: LabelledObjects) -> None:
    """Log what was read and what was left out, once a process."""
    counted = "; ".join(f"{count:,} {what}" for what, count in folder.left_out.items())
    objects = sum(len(row.objects) for row in folder.labelled)
    read = f"{folder.labels}: {len(folder):,} images, {objects:,} boxes, {folder.layout}"
    _said(f"{read}; of the labels: {counted}" if counted else read)
