"""Labelled pictures: the objects in one image, the image with them, and batches of such samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, Self, TypeAlias

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

Key: TypeAlias = tuple[int, int]
"""(index in the data set, variant of the augmentation)."""

_LEAST_VISIBLE = 0.25

MIRRORED_LANDMARKS = (1, 0, 2, 4, 3)
"""Right eye, left eye, nose, right and left corner of the mouth: "left" stays the image's left after a flip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensors:
    """Tensors that belong together."""

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Change every tensor alike."""
        return replace(self, **{field.name: change(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects(Tensors):
    """The objects in one image, one row each; coordinates are pixels, 0 is the left or upper edge of the first pixel.

    Shapes: boxes (n, 4) float32 as x1, y1, x2, y2; landmarks (n, 10) float32 as x, y of left eye, right eye, nose, left
    and right corner of the mouth (left as seen in the image), zeros where has_landmarks (n,) bool is False;
    ignored (n,) bool marks objects that are neither positive nor negative; labels (n,) int64 are the numbers of their
    categories, 0 for faces.
    """

    boxes: Tensor
    landmarks: Tensor
    has_landmarks: Tensor
    ignored: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def none(cls) -> "Objects":
        """No object at all."""
        return cls.without_landmarks(torch.zeros(0, 4), torch.zeros(0, dtype=torch.bool))

    @classmethod
    def without_landmarks(cls, boxes: Tensor, ignored: Tensor, labels: Tensor | None = None) -> "Objects":
        """Objects without landmarks, of category 0 unless told; shapes: (n, 4) as corners, (n,) bool, (n,) int64."""
        return cls(
            boxes=boxes,
            landmarks=boxes.new_zeros(len(boxes), 10),
            has_landmarks=torch.zeros_like(ignored),
            ignored=ignored,
            labels=torch.zeros_like(ignored, dtype=torch.int64) if labels is None else labels,
        )

    @property
    def sizes(self) -> Tensor:
        """Width and height of every box; shape (n, 2)."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    @property
    def centres(self) -> Tensor:
        """Centre of every box as x, y; shape (n, 2)."""
        return (self.boxes[:, 2:] + self.boxes[:, :2]) / 2

    def select(self, rows: Tensor) -> "Objects":
        """Keep the rows of a mask or the rows named by an index."""
        return self.map(lambda each: each[rows])

    def ignoring(self, rows: Tensor) -> "Objects":
        """Mark more rows as ignored; an object that is ignored stays so."""
        return replace(self, ignored=self.ignored | rows)

    def scaled(self, x: float, y: float) -> "Objects":
        """Stretch the plane by one factor along each axis."""
        return self._moved(torch.tensor([x, y]), torch.zeros(2))

    def flipped(self, width: float) -> "Objects":
        """Mirror left and right in an image of this width, landmarks renamed so that left stays the image's left."""
        boxes = self.boxes.clone()
        boxes[:, [2, 0]] = width - self.boxes[:, [0, 2]]
        points = self.landmarks.view(-1, 5, 2)[:, MIRRORED_LANDMARKS].clone()
        points[..., 0] = width - points[..., 0]
        return replace(self, boxes=boxes, landmarks=self._labelled_only(points.view(-1, 10)))

    def cropped(self, left: float, top: float, width: float, height: float) -> "Objects":
        """Move to the coordinates of a window and cut boxes at its borders.

        An object whose centre lies in the window stays; one whose centre left it stays, ignored, while at least a
        quarter of its area remains, and is dropped below that. An object in the window of which less than
        that remains is ignored too. Landmarks outside the window are kept as they are: where they lie is still true.
        """
        moved, limits = self._moved(torch.ones(2), torch.tensor([-left, -top])), torch.tensor([width, height])
        cut = replace(moved, boxes=moved.boxes.clamp(min=torch.zeros(4), max=limits.repeat(2)))
        area, remaining = moved.sizes.prod(dim=1), cut.sizes.prod(dim=1)
        visible = torch.where(area > 0, remaining / area.clamp(min=1e-6), 0.0)
        inside = ((moved.centres >= 0) & (moved.centres < limits)).all(dim=1)
        enough = visible >= _LEAST_VISIBLE
        return cut.ignoring(~(inside & enough)).select(inside | enough)

    def _moved(self, factors: Tensor, offsets: Tensor) -> "Objects":
        boxes = self.boxes * factors.repeat(2) + offsets.repeat(2)
        landmarks = self.landmarks * factors.repeat(5) + offsets.repeat(5)
        return replace(self, boxes=boxes, landmarks=self._labelled_only(landmarks))

    def _labelled_only(self, landmarks: Tensor) -> Tensor:
        return landmarks * self.has_landmarks[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image with its objects; the image is uint8 RGB of shape (3, H, W)."""

    image: Tensor
    objects: Objects
    name: str

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {"image": self.image} | {each.name: getattr(self.objects, each.name) for each in fields(self.objects)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], name: str) -> "Sample":
        """Undo `tensors`."""
        objects = Objects(**{key: value for key, value in tensors.items() if key != "image"})
        return cls(image=tensors["image"], objects=objects, name=name)

    def flipped(self) -> "Sample":
        """Mirror image and objects."""
        width = self.image.shape[-1]
        return replace(self, image=F.horizontal_flip_image(self.image), objects=self.objects.flipped(width))


class NamedImages(Protocol):
    """Images that can be named without being read."""

    def __len__(self) -> int: ...

    def name(self, index: int, /) -> str:
        """Name one image."""


class ImageDataset(NamedImages, Protocol):
    """Images by number, with whatever is known of them."""

    def __getitem__(self, index: int, /) -> Any: ...


class SampleDataset(NamedImages, Protocol):
    """Samples by number; reading a broken image raises DataError."""

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBatch(Tensors):
    """Images of one size, with all that is known of them.

    Shapes: images uint8 (N, 3, S, S); keys int64 (N, 2) as (index, variant).
    """

    images: Tensor
    keys: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """Copy every tensor to a device."""
        return self.map(lambda each: each.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Pin every tensor, so that copies to a GPU need not wait; DataLoader calls this."""
        return self.map(Tensor.pin_memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(ImageBatch):
    """Samples of one size, their objects padded to M rows; `present` tells objects from padding.

    Shapes: boxes (N, M, 4); landmarks (N, M, 10); present, has_landmarks and ignored (N, M) bool; labels (N, M) int64.
    """

    boxes: Tensor
    landmarks: Tensor
    present: Tensor
    has_landmarks: Tensor
    ignored: Tensor
    labels: Tensor


def separate(batch: Batch) -> list[Sample]:
    """Undo `collate`: copy every row into a sample of its own, without padding and without its name."""
    samples = []
    for row, rows in enumerate(batch.present):
        objects = Objects(**{field.name: getattr(batch, field.name)[row][rows] for field in fields(Objects)})
        samples.append(Sample(image=batch.images[row].clone(), objects=objects, name=""))
    return samples


def collate(samples: Sequence[Sample], keys: Sequence[Key]) -> Batch:
    """Stack samples of one image size."""
    lengths = torch.tensor([len(sample.objects) for sample in samples])
    present = torch.arange(max(int(lengths.max()), 1)) < lengths[:, None]
    padded = {}
    for field in fields(Objects):
        rows = torch.cat([getattr(sample.objects, field.name) for sample in samples])
        padded[field.name] = rows.new_zeros(*present.shape, *rows.shape[1:])
        padded[field.name][present] = rows
    images = torch.stack([sample.image for sample in samples])
    return Batch(images=images, present=present, keys=torch.tensor(keys, dtype=torch.int64).view(-1, 2), **padded)
