"""Soft-edged shapes painted onto float pictures, in the coordinates of a turned and scaled frame."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Colour = Array
"""Red, green and blue from 0 to 1; shape (3,)."""


def muted(random: np.random.Generator, most: float = 1.0) -> Colour:
    """Draw a colour of any lightness that is seldom vivid, as most things are."""
    colour = random.random(3, dtype=np.float32)
    grey = np.float32(random.beta(2, 2))
    share = np.float32(random.uniform(0.05, most) ** 1.5)
    mixed: Colour = grey + (colour - grey) * share
    return mixed


def tone(colour: Colour, factor: float) -> Colour:
    """Make a colour darker (below 1) or lighter."""
    toned: Colour = np.minimum(colour * np.float32(factor), 1)
    return toned


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A superellipse in a frame's units, the head being 2 high.

    `power` 2 is an ellipse, 4 and 8 are rounded rectangles; `taper` narrows it downwards, `bend` lowers its ends (an
    arch; below 0, a smile), `feather` is the width of its edge.
    """

    x: float
    y: float
    rx: float
    ry: float
    angle: float = 0.0
    power: int = 2
    taper: float = 0.0
    bend: float = 0.0
    feather: float = 0.0

    def outline(self, count: int = 64) -> Array:
        """Follow the edge of an unbent ellipse; shape (count, 2)."""
        turn = np.linspace(0, 2 * math.pi, count, endpoint=False, dtype=np.float32)
        across, down = np.cos(turn), np.sin(turn)
        across = across * (1 - self.taper * down)
        return np.stack([self.x + self.rx * across, self.y + self.ry * down], axis=1)


class Frame:
    """A picture seen from a head: origin at its centre, y to the chin, 1 = half the head's height.

    Shapes: pixels (3, H, W) float32, changed in place; owner (H, W) int16 says which face is seen where, 0 none.
    Shapes of less than about `finest` square pixels are left out.
    """

    def __init__(
        self,
        pixels: Array,
        owner: npt.NDArray[np.int16],
        *,
        centre: tuple[float, float],
        scale: float,
        roll: float = 0.0,
        finest: float = 0.2,
    ) -> None:
        self.pixels, self.owner = pixels, owner
        self.centre, self.scale, self.finest = centre, scale, finest
        self._masks: dict[Shape, Array] = {}
        self.cos, self.sin = math.cos(roll), math.sin(roll)
        height, width = owner.shape
        self._across = ((np.arange(width, dtype=np.float32) + 0.5) - np.float32(centre[0])) / np.float32(scale)
        self._down = ((np.arange(height, dtype=np.float32) + 0.5) - np.float32(centre[1])) / np.float32(scale)

    def to_pixels(self, points: Array) -> Array:
        """Turn, scale and move points of the frame; shapes: (n, 2) -> (n, 2)."""
        turn = np.array([[self.cos, self.sin], [-self.sin, self.cos]], dtype=np.float32)
        moved: Array = (points @ turn) * np.float32(self.scale) + np.asarray(self.centre, dtype=np.float32)
        return moved

    def paint(
        self,
        shape: Shape,
        colour: Colour,
        opacity: float = 1.0,
        *,
        within: Shape | None = None,
        hole: Shape | None = None,
        shading: tuple[float, float, float] | None = None,
        owner: int | None = None,
    ) -> None:
        """Blend a colour over the shape, or over what of it lies within another one and outside a hole.

        `shading` darkens the rim and lights one side: (rim, x, y). With `owner`, what is covered belongs to that face.
        """
        window = self._window(shape)
        if window is None:
            return
        rows, columns = window
        x, y, distance = self._distance(shape, rows, columns)
        mask = self._mask(shape, distance)
        if within is not None:
            mask *= self._whole_mask(within)[rows, columns]
        if hole is not None:
            mask *= 1 - self._mask(hole, self._distance(hole, rows, columns)[2])
        if owner is not None:
            self.owner[rows, columns][mask > 0.5] = owner
        if opacity < 1:
            mask *= np.float32(opacity)
        light = None if shading is None else _light(x, y, distance, shading)
        area, ink = self.pixels[:, rows, columns], colour[:, None, None]
        change = (ink if light is None else ink * light) - area
        change *= mask
        area += change

    def _window(self, shape: Shape) -> tuple[slice, slice] | None:
        """Rows and columns that a shape can touch, or None where it is too small or too far away to be seen."""
        if shape.rx * shape.ry * self.scale * self.scale < self.finest:
            return None
        rx = shape.rx * (1 + abs(shape.taper)) + shape.feather
        ry = shape.ry + shape.feather + abs(shape.bend) * rx * rx
        cos, sin = abs(self.cos), abs(self.sin)
        if shape.angle:
            turn = math.atan2(self.sin, self.cos) + shape.angle
            cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
        reach_x, reach_y = (rx * cos + ry * sin) * self.scale + 2, (rx * sin + ry * cos) * self.scale + 2
        x = (shape.x * self.cos - shape.y * self.sin) * self.scale + self.centre[0]
        y = (shape.x * self.sin + shape.y * self.cos) * self.scale + self.centre[1]
        height, width = self.owner.shape
        top, bottom = max(math.floor(y - reach_y), 0), min(math.ceil(y + reach_y), height)
        left, right = max(math.floor(x - reach_x), 0), min(math.ceil(x + reach_x), width)
        return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None

    def _distance(self, shape: Shape, rows: slice, columns: slice) -> tuple[Array, Array, Array]:
        """Position relative to the shape, and 1 on its edge, less inside, more outside."""
        # Turning by the frame's roll and by the shape's angle is one rotation.
        cos, sin = math.cos(shape.angle), math.sin(shape.angle)
        along, aside = self.cos * cos - self.sin * sin, self.sin * cos + self.cos * sin
        start_x, start_y = shape.x * cos + shape.y * sin, shape.y * cos - shape.x * sin
        across, down = self._across[columns], self._down[rows, None]
        x = (across * along - start_x) + down * aside
        y = (down * along - start_y) - across * aside
        if shape.bend:
            y -= x * x * shape.bend
        x *= 1 / shape.rx
        y *= 1 / shape.ry
        wide = x / (1 - shape.taper * np.minimum(np.maximum(y, -1), 1)) if shape.taper else x
        horizontal, vertical = wide * wide, y * y
        for _ in range(shape.power.bit_length() - 2):
            horizontal, vertical = horizontal * horizontal, vertical * vertical
        distance = horizontal + vertical
        for _ in range(shape.power.bit_length() - 1):
            distance = np.sqrt(distance)
        return x, y, distance

    def _mask(self, shape: Shape, distance: Array) -> Array:
        steepness = min(shape.rx, shape.ry) / max(shape.feather, 1 / self.scale)
        mask: Array = (steepness + 0.5) - distance * np.float32(steepness)
        np.minimum(mask, 1, out=mask)
        np.maximum(mask, 0, out=mask)
        return mask

    def _whole_mask(self, shape: Shape) -> Array:
        """Mask of a shape over the whole picture, kept because many parts are painted within one head."""
        mask = self._masks.get(shape)
        if mask is None:
            mask = np.zeros(self.owner.shape, dtype=np.float32)
            if (window := self._window(shape)) is not None:
                mask[window] = self._mask(shape, self._distance(shape, *window)[2])
            self._masks[shape] = mask
        return mask


def _light(x: Array, y: Array, distance: Array, shading: tuple[float, float, float]) -> Array:
    rim, light_x, light_y = shading
    light: Array = x * light_x
    light += y * light_y
    light -= distance * distance * distance * rim
    light += 1
    return light
