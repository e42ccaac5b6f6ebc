"""Synthetic backgrounds, light and camera: all that is in a picture besides faces."""

import math
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from featherpress.compress.data.synthetic.drawing import Array, Frame, Shape, muted, tone


def paint_background(random: np.random.Generator, height: int, width: int) -> Array:
    """Draw a scene without faces: a gradient or noise, texture, and clutter of stripes, blocks and blobs.

    Shapes: -> (3, height, width) float32, about 0 to 1.
    """
    base = muted(random)[:, None, None]
    noise = _octaves(random, height, width, coarsest=int(random.integers(2, 6)), octaves=int(random.integers(2, 6)))
    hues = _smooth(random.uniform(-1, 1, (3, 4, 4)), height, width) * np.float32(random.uniform(0, 0.08))
    picture: Array = base + hues + noise * np.float32(random.uniform(0.02, 0.2))
    if random.random() < 0.4:
        picture += _stripes(random, height, width)
    owner = np.zeros((height, width), dtype=np.int16)
    frame = Frame(picture, owner, centre=(width / 2, height / 2), scale=max(height, width) / 2)
    if random.random() < 0.5:
        floor = Shape(x=0, y=random.uniform(1.1, 2.2), rx=4, ry=1.5, angle=random.normal(0, 0.05), power=8)
        frame.paint(floor, muted(random), random.uniform(0.5, 1))
    for _ in range(random.integers(0, 10)):
        _paint_clutter(frame, random)
    if random.random() < 0.5:
        fine = _octaves(random, height, width, coarsest=32, octaves=2)
        picture += fine * np.float32(random.uniform(0.02, 0.12))
    return np.clip(picture, 0, 1)


def paint_object(frame: Frame, random: np.random.Generator) -> None:
    """Paint something round that is no face: a ball, a clock, or two dots on a blob."""
    kind = random.choice(["ball", "clock", "dots"])
    colour, ink = muted(random), muted(random)
    body = Shape(x=0, y=0, rx=random.uniform(0.7, 1), ry=random.uniform(0.8, 1), power=int(random.choice([2, 4])))
    if kind != "dots":
        body = Shape(x=0, y=0, rx=0.95, ry=0.95)
    frame.paint(body, colour, shading=(0.35, 0.15, -0.2), owner=0)
    if kind == "ball":
        for _ in range(random.integers(1, 4)):
            seam = Shape(x=0, y=random.uniform(-0.6, 0.6), rx=1, ry=0.07, angle=random.uniform(0, 3), bend=0.5)
            frame.paint(seam, ink, within=body)
    elif kind == "clock":
        _paint_dial(frame, random, body)
    else:
        for x in (-0.33, 0.33):
            frame.paint(Shape(x=x, y=random.uniform(-0.4, 0.4), rx=0.12, ry=0.12), ink)


def develop(random: np.random.Generator, picture: Array) -> torch.Tensor:
    """Light a scene from one side, then blur it, add noise and cast as a camera would.

    Shapes: (3, H, W) float32 -> (3, H, W) uint8.
    """
    _, height, width = picture.shape
    angle, strength = random.uniform(0, 2 * math.pi), random.uniform(0, 0.45)
    across = np.linspace(-1, 1, width, dtype=np.float32) * np.float32(math.cos(angle) * strength)
    down = np.linspace(-1, 1, height, dtype=np.float32) * np.float32(math.sin(angle) * strength)
    cast = (random.uniform(0.75, 1.15) * random.uniform(0.9, 1.1, 3)).astype(np.float32)
    picture = picture * (1 + across[None, None, :] + down[None, :, None]) * cast[:, None, None]
    if random.random() < 0.06:
        picture = np.broadcast_to(picture.mean(axis=0, keepdims=True), picture.shape)
    if random.random() < 0.4:
        picture = _blurred(picture, random.uniform(0.2, 1.0))
    if random.random() < 0.6:
        grain = random.standard_normal((height, width), dtype=np.float32)
        grain *= np.float32(random.uniform(0.005, 0.05))
        picture = picture + grain
    picture = picture * np.float32(255)
    picture += np.float32(0.5)
    np.minimum(picture, 255, out=picture)
    np.maximum(picture, 0, out=picture)
    return torch.from_numpy(picture.astype(np.uint8))


def _octaves(random: np.random.Generator, height: int, width: int, *, coarsest: int, octaves: int) -> Array:
    """Sum noise of doubling detail and halving strength; shape (1, height, width), about -1 to 1."""
    total = np.zeros((1, height, width), dtype=np.float32)
    for octave in range(octaves):
        cells = min(coarsest << octave, max(height, width) // 2)
        total += _smooth(random.uniform(-1, 1, (1, cells, cells)), height, width) * np.float32(0.6**octave)
    strength = math.sqrt(sum(0.36**octave for octave in range(octaves)))
    normed: Array = total / np.float32(strength)
    return normed


def _smooth(grid: npt.NDArray[np.float64], height: int, width: int) -> Array:
    """Enlarge a square grid by cubic B-splines, which leave no trace of its cells."""
    cells = grid.shape[-1]
    enlarged: Array = _spline(height, cells) @ grid.astype(np.float32) @ _spline(width, cells).T
    return enlarged


@cache
def _spline(length: int, cells: int) -> Array:
    """Weights of every cell at every pixel; shape (length, cells)."""
    offset = np.abs(np.linspace(0, cells - 1, length)[:, None] - np.arange(cells)[None, :])
    near, far = 2 / 3 - offset**2 + offset**3 / 2, np.maximum(2 - offset, 0) ** 3 / 6
    weights = np.where(offset < 1, near, far)
    # Twice, because blending neighbours halves how far noise strays from zero.
    spread: Array = (2 * weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return spread


def _stripes(random: np.random.Generator, height: int, width: int) -> Array:
    angle, period = random.uniform(0, math.pi), random.uniform(6, 80)
    across = np.arange(width, dtype=np.float32) * np.float32(2 * math.pi * math.cos(angle) / period)
    down = np.arange(height, dtype=np.float32) * np.float32(2 * math.pi * math.sin(angle) / period)
    wave = np.clip(np.sin(across[None, :] + down[:, None]) * np.float32(random.uniform(1, 8)), -1, 1)
    colour = (muted(random)[:, None, None] - np.float32(0.5)) * np.float32(random.uniform(0.1, 0.4))
    stripes: Array = wave[None] * colour
    return stripes


def _paint_clutter(frame: Frame, random: np.random.Generator) -> None:
    """Paint one block, post or blob."""
    x, y = random.uniform(-1, 1, 2)
    size, ratio = math.exp(random.uniform(math.log(0.03), math.log(0.5))), random.uniform(0.15, 1)
    shape = Shape(
        x=x, y=y, rx=size, ry=size * ratio, angle=random.uniform(0, math.pi), power=int(random.choice([2, 8, 8]))
    )
    colour = muted(random)
    frame.paint(shape, colour, random.uniform(0.6, 1), shading=(random.uniform(0, 0.3), *random.uniform(-0.3, 0.3, 2)))


def _paint_dial(frame: Frame, random: np.random.Generator, body: Shape) -> None:
    dial = Shape(x=0, y=0, rx=0.8, ry=0.8)
    pale = np.full(3, random.uniform(0.7, 1), dtype=np.float32)
    frame.paint(dial, pale)
    for hour in range(12):
        angle = hour * math.pi / 6
        tick = Shape(x=0.66 * math.cos(angle), y=0.66 * math.sin(angle), rx=0.08, ry=0.025, angle=angle)
        frame.paint(tick, tone(pale, 0.15), within=body)
    for length in (0.3, 0.22):
        angle = random.uniform(0, 2 * math.pi)
        hand = Shape(x=length * math.cos(angle), y=length * math.sin(angle), rx=length, ry=0.03, angle=angle)
        frame.paint(hand, tone(pale, 0.1))


def _blurred(picture: Array, strength: float) -> Array:
    """Blend each pixel with its neighbours, across and down; 1 is the kernel 1-1-1."""
    side = np.float32(strength / (1 + 2 * strength))
    for axis in (1, 2):
        padded = np.pad(picture, [(0, 0) if a != axis else (1, 1) for a in range(3)], mode="edge")
        before, after = (padded[:, :-2], padded[:, 2:]) if axis == 1 else (padded[:, :, :-2], padded[:, :, 2:])
        picture = picture * (1 - 2 * side) + (before + after) * side
    return picture
