"""Drawn shapes to classify: learnable in a minute, and not about faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featherpress.compress.data.cache import DEFAULT_CACHE_BYTES, Cache
from featherpress.compress.data.crops.base import Crops
from featherpress.compress.data.crops.sampling import CROP_STREAM, Sampler, draw_from
from featherpress.compress.data.samples import ImageBatch, Key

SHAPE_NAMES = ("disc", "square", "triangle", "cross", "ring", "bar")

Plane = NDArray[np.float64]

_NOISE = 12.0
_MIN_CONTRAST = 90.0
_SHIFT = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledBatch(ImageBatch):
    """Images with a label each; shapes: labels int64 (N,)."""

    labels: Tensor


class Shapes:
    """A set of images, each with one shape somewhere, turned and coloured by chance, on a noisy background.

    An image is a pure function of (seed, index); `classes` of `SHAPE_NAMES` come in turn.
    """

    def __init__(self, *, length: int, seed: int, size: int, classes: int) -> None:
        self.length, self.seed, self.size, self.classes = length, seed, size, classes

    def __len__(self) -> int:
        return self.length

    def name(self, index: int, /) -> str:
        """Name one image."""
        return f"{SHAPE_NAMES[self.label(index)]}-{index:05d}"

    def label(self, index: int, /) -> int:
        """Return the class of one image."""
        return index % self.classes

    def image(self, index: int, /) -> Tensor:
        """Draw one image, uint8 (3, S, S)."""
        random = np.random.default_rng([self.seed, index])
        grid = (np.arange(self.size) + 0.5) / self.size * 2 - 1
        y, x = np.meshgrid(grid - random.uniform(-0.3, 0.3), grid - random.uniform(-0.3, 0.3), indexing="ij")
        angle, scale = random.uniform(-0.4, 0.4), random.uniform(0.45, 0.75)
        turned_x = (np.cos(angle) * x + np.sin(angle) * y) / scale
        turned_y = (np.cos(angle) * y - np.sin(angle) * x) / scale
        inside = _inside(SHAPE_NAMES[self.label(index)], turned_x, turned_y)
        back, front = _colours(random)
        drawn = np.where(inside, front[:, None, None], back[:, None, None])
        noisy = drawn + random.normal(0, _NOISE, drawn.shape)
        return torch.from_numpy(np.clip(noisy, 0, 255).astype(np.uint8))


class ShapeCrops(Crops[LabelledBatch]):
    """Training images of shapes, mirrored, shifted and dimmed by chance; drawn once while they fit into memory."""

    def __init__(
        self, dataset: Shapes, *, seed: int, variants: int = 0, cache_bytes: int = DEFAULT_CACHE_BYTES
    ) -> None:
        super().__init__(dataset, Sampler(len(dataset), sizes=(dataset.size,), seed=seed, variants=variants))
        self.shapes = dataset
        self.cache: Cache[Tensor] = Cache(cache_bytes)

    def preload(self, threads: int = 1) -> None:
        """Draw images while they fit, so that forked workers share them."""
        for index in range(len(self.shapes)):
            self._image(index)

    def batch(self, keys: Sequence[Key]) -> LabelledBatch:
        """Cut the images of some keys, each a pure function of (seed, index, variant)."""
        return LabelledBatch(
            images=torch.stack([self._vary(*key) for key in keys]),
            labels=torch.tensor([self.shapes.label(index) for index, _ in keys]),
            keys=torch.tensor(keys, dtype=torch.int64),
        )

    def _vary(self, index: int, variant: int) -> Tensor:
        random = draw_from(self.sampler.seed, CROP_STREAM, index, variant)
        image = self._image(index)
        if random.random() < 0.5:
            image = image.flip(-1)
        most = max(round(_SHIFT * self.shapes.size), 1)
        image = image.roll([int(n) for n in random.integers(-most, most + 1, 2)], dims=(1, 2))
        return (image.float() * float(random.uniform(0.7, 1.0))).to(torch.uint8)

    def _image(self, index: int) -> Tensor:
        image = self.cache.get(index)
        if image is None:
            image = self.shapes.image(index)
            self.cache.keep(index, image)
        return image


def _inside(name: str, x: Plane, y: Plane) -> NDArray[np.bool_]:
    """Mark the places inside a shape of about unit size around the origin."""
    radius = np.hypot(x, y)
    square = np.maximum(abs(x), abs(y))
    shapes: dict[str, NDArray[np.bool_]] = {
        "disc": radius < 0.9,
        "square": square < 0.8,
        "triangle": (y > -0.6) & (y + np.sqrt(3) * abs(x) < 1.2),
        "cross": (np.minimum(abs(x), abs(y)) < 0.3) & (square < 0.95),
        "ring": (radius > 0.55) & (radius < 1.0),
        "bar": (abs(y) < 0.35) & (abs(x) < 1.1),
    }
    return shapes[name]


def _colours(random: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Draw a colour for the background, and a brighter one."""
    back = random.uniform(0, 255 - _MIN_CONTRAST, 3)
    return back, random.uniform(back + _MIN_CONTRAST, 255)
