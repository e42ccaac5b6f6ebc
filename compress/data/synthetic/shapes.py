"""Drawn shapes to classify: learnable in a minute, and not about faces."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featherpress.compress.data.examples import Example

SHAPE_NAMES = ("disc", "square", "triangle", "cross", "ring", "bar")

Plane = NDArray[np.float64]

_NOISE = 12.0
_MIN_CONTRAST = 90.0


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

    def __getitem__(self, index: int, /) -> Example:
        """Draw one image, with its class."""
        labels = torch.tensor(self.label(index))
        return Example(image=self.image(index), target={"labels": labels}, name=self.name(index))

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
