"""What a reader of labels gives: the images it found, their boxes, the categories, and what it left out."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from featherpress.compress.data.samples import Objects
from featherpress.compress.data.sources.labelled import LabelledImage
from featherpress.errors import DataError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names under which tools write a split."""


@dataclass(slots=True, kw_only=True)
class Box:
    """One labelled box, as corners in pixels; `place` is its number in its file, `points` ten numbers or none."""

    corners: Sequence[float]
    label: int
    place: int
    ignored: bool = False
    points: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """Labelled images in one layout; `file` is the label file, or the folder of them.

    `left_out` counts what was ignored or not taken, by what it is; `places` are the words for a label's place in its
    file: of an image, and of a box.
    """

    layout: str
    file: Path
    images: Path
    rows: list[LabelledImage]
    categories: tuple[str, ...]
    places: tuple[str, str]
    left_out: Counter[str] = field(default_factory=Counter)

    def choose(self, names: Sequence[str]) -> "Labels":
        """Keep the boxes of these categories, numbered in this order; the others are counted.

        Errors: DataError for a name that no category, or more than one, has.
        """
        chosen = [self._find(name) for name in names]
        if len(set(chosen)) < len(chosen):
            raise DataError(f"{self.file}: expected every category once, got {', '.join(map(repr, names))}")
        if chosen == list(range(len(self.categories))):
            return self
        numbers = torch.full((len(self.categories),), -1)
        numbers[chosen] = torch.arange(len(chosen))
        left_out, rows = self.left_out.copy(), []
        for row in self.rows:
            left_out.update(f"boxes of {self.categories[n]!r}" for n in row.objects.labels.tolist() if numbers[n] < 0)
            rows.append(_renumbered(row, numbers[row.objects.labels]))
        return replace(self, rows=rows, categories=tuple(self.categories[n] for n in chosen), left_out=left_out)

    def _find(self, name: str) -> int:
        same = [n for n, each in enumerate(self.categories) if each == name]
        same = same or [n for n, each in enumerate(self.categories) if each.casefold() == name.casefold()]
        if len(same) != 1:
            raise DataError(f"{self.file}: expected one category {name!r}, got {self.listed}")
        return same[0]

    @property
    def listed(self) -> str:
        """The categories, as a sentence names them."""
        more = f" and {len(self.categories) - 10} more" if len(self.categories) > 10 else ""
        return (", ".join(map(repr, self.categories[:10])) or "none") + more


def _renumbered(row: LabelledImage, numbers: torch.Tensor) -> LabelledImage:
    kept = numbers >= 0
    objects = replace(row.objects, labels=numbers).select(kept)
    places = tuple(place for place, keep in zip(row.object_places, kept.tolist(), strict=True) if keep)
    return replace(row, objects=objects, object_places=places)


def labelled_image(
    name: str,
    boxes: Iterable[Box],
    left_out: Counter[str],
    *,
    place: int,
    file: Path | None = None,
    size: tuple[int, int] | None = None,
) -> LabelledImage:
    """Put the boxes of one image together; those without an area are ignored, and counted."""
    boxes = [*boxes]
    corners = torch.tensor([box.corners for box in boxes], dtype=torch.float32).view(-1, 4)
    empty = (corners[:, 2:] <= corners[:, :2]).any(dim=1)
    left_out["boxes without an area, ignored"] += int(empty.sum())
    objects = Objects(
        boxes=corners,
        landmarks=torch.tensor([box.points or [0.0] * 10 for box in boxes], dtype=torch.float32).view(-1, 10),
        has_landmarks=torch.tensor([bool(box.points) for box in boxes], dtype=torch.bool),
        ignored=torch.tensor([box.ignored for box in boxes], dtype=torch.bool) | empty,
        labels=torch.tensor([box.label for box in boxes], dtype=torch.int64),
    )
    places = tuple(box.place for box in boxes)
    return LabelledImage(name=name, objects=objects, place=place, object_places=places, file=file, size=size)


def require_new_names(names: Iterable[str], file: Path) -> tuple[str, ...]:
    """Return the names of categories.

    Errors: DataError for one that comes twice, or has no letters.
    """
    listed = tuple(names)
    wrong = next((name for name in listed if not name.strip() or listed.count(name) > 1), None)
    if wrong is not None:
        raise DataError(f"{file}: expected every category to have a name of its own, got {wrong!r}")
    return listed
