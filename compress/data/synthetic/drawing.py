"""Soft-edged shapes, painted onto pictures in the coordinates of a head."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]


def muted(random: np.random.Generator) -> Array:
    """Draw a colour of any lightness that is seldom vivid; shape (3,), 0 to 1."""
    grey, share = random.beta(2, 2), random.uniform(0.05, 1) ** 1.5
    colour: Array = (grey + (random.random(3) - grey) * share).astype(np.float32)
    return colour


@dataclass(frozen=True, slots=True)
class Shape:
    """A superellipse in a frame's units: `power` 2 is an ellipse, 8 a rounded rectangle.

    `bend` lowers its ends by so many times its half height: an arch; below 0, a smile.
    """

    x: float
    y: float
    rx: float
    ry: float
    angle: float = 0.0
    power: int = 2
    bend: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """A picture seen from a head: the origin is its centre, y runs to the chin, 1 is half its height.

    Shapes: pixels (3, H, W) float32, changed in place; owner (H, W) int16, the face that is seen there, 0 for none.
    """

    pixels: Array
    owner: npt.NDArray[np.int16]
    centre: tuple[float, float]
    scale: float
    roll: float = 0.0

    def to_pixels(self, points: npt.ArrayLike) -> Array:
        """Turn, scale and move points of the frame; shapes: (n, 2) -> (n, 2)."""
        cos, sin = math.cos(self.roll), math.sin(self.roll)
        turned = np.asarray(points) @ np.array([[cos, sin], [-sin, cos]])
        moved: Array = (turned * self.scale + self.centre).astype(np.float32)
        return moved

    def paint(self, shape: Shape, colour: Array, opacity: float = 1.0, *, owner: int | None = None) -> None:
        """Blend a colour over a shape; with `owner`, what it covers belongs to that face."""
        (x, y), angle = self.to_pixels([[shape.x, shape.y]])[0].tolist(), self.roll + shape.angle
        cos, sin, rx, ry = math.cos(angle), math.sin(angle), shape.rx * self.scale, shape.ry * self.scale
        high = ry * (1 + abs(shape.bend))
        rows = _span(y, abs(rx * sin) + abs(high * cos), self.owner.shape[0])
        columns = _span(x, abs(rx * cos) + abs(high * sin), self.owner.shape[1])
        down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5 - y)
        across = np.arange(columns.start, columns.stop, dtype=np.float32)[None] + np.float32(0.5 - x)
        along = across * np.float32(cos / rx) + down * np.float32(sin / rx)
        aside = down * np.float32(cos / ry) - across * np.float32(sin / ry) - np.float32(shape.bend) * along**2
        distance = (along**shape.power + aside**shape.power) ** np.float32(1 / shape.power)
        # The edge is a pixel wide, and what is smaller than a pixel covers only a part of it.
        mask = np.clip((1 - distance) * np.float32(min(rx, ry)) + np.float32(0.5), 0, 1)
        if owner is not None:
            self.owner[rows, columns][mask > 0.5] = owner
        area = self.pixels[:, rows, columns]
        area += (colour[:, None, None] - area) * (mask * np.float32(opacity * min(4 * rx * ry, 1)))


def _span(middle: float, reach: float, length: int) -> slice:
    """Return the pixels of a row or column that a shape can touch."""
    start = min(max(math.floor(middle - reach) - 1, 0), length)
    return slice(start, max(min(math.ceil(middle + reach) + 1, length), start))
