"""One image with what is known of it, for any task, and batches of such."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, Self

import torch
from torch import Tensor

from featherpress.compress.data.samples import ImageBatch, Key, NamedImages
from featherpress.compress.runtime.progress import Progress
from featherpress.errors import DataError

logger = logging.getLogger("featherpress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One image, and its target by name, as a batch calls it: `labels`, `masks`, `boxes`, or anything of one's own.

    Shapes: image uint8 RGB (3, H, W); a class label (); masks (H, W); boxes (n, 4) as corners in pixels, and whatever
    else has a row for each box.
    """

    image: Tensor
    target: Mapping[str, Tensor]
    name: str

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {"image": self.image, **self.target}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str) -> Self:
        """Undo `tensors`."""
        return cls(image=tensors["image"], target={k: v for k, v in tensors.items() if k != "image"}, name=name)


class ExampleDataset(NamedImages, Protocol):
    """Examples by number; reading a broken image raises DataError."""

    def __getitem__(self, index: int, /) -> Example: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExampleBatch(ImageBatch):
    """Examples of one size, each field of a subclass stacked from the targets of that name.

    Where targets differ in shape, a subclass pads them, and undoes that.
    """

    @classmethod
    def collate(cls, examples: Sequence[Example], keys: Sequence[Key]) -> Self:
        """Stack examples of one image size."""
        names = [field.name for field in fields(cls) if field.name not in {"images", "keys"}]
        return cls(
            images=torch.stack([each.image for each in examples]),
            keys=torch.tensor(keys, dtype=torch.int64).view(-1, 2),
            **{name: torch.stack([each.target[name] for each in examples]) for name in names},
        )

    def separate(self) -> list[Example]:
        """Undo `collate`: copy every row into an example of its own, without its name."""
        names = [field.name for field in fields(self) if field.name not in {"images", "keys"}]
        return [
            Example(
                image=self.images[row].clone(),
                target={name: getattr(self, name)[row].clone() for name in names},
                name="",
            )
            for row in range(len(self))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBatch(ExampleBatch):
    """Images with a label each; shapes: labels int64 (N,)."""

    labels: Tensor


def readable(dataset: ExampleDataset, chosen: Sequence[int], *, label: str) -> Iterator[tuple[int, Example]]:
    """Read images one by one, with their numbers and a bar; those that are broken are left out with a warning.

    Errors: `DataError` where no image can be read.
    """
    read = 0
    with Progress(label, total=len(chosen)) as progress:
        for index in chosen:
            progress.advance()
            try:
                example = dataset[index]
            except DataError as error:
                logger.warning("left out of the evaluation: %s", error)
                continue
            read += 1
            yield index, example
    if not read:
        raise DataError(f"expected an image that can be read, but all {len(chosen)} are broken")
