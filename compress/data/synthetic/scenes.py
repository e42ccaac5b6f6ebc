"""Synthetic scenes: backgrounds without faces, light and camera."""

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from featherpress.compress.data.synthetic.drawing import Array, Frame, Shape, muted


def paint_scene(random: np.random.Generator, height: int, width: int) -> Frame:
    """Paint a scene without faces: noise of several scales, stripes, and blocks, posts and blobs.

    Shapes: the frame's pixels are (3, height, width), about 0 to 1; its centre and unit are those of the picture.
    """
    pixels = muted(random)[:, None, None] + _noise(random, 3, 4, height, width) * np.float32(random.uniform(0, 0.08))
    for cells in (3, 8, 24, 64):
        pixels += _noise(random, 1, cells, height, width) * np.float32(random.uniform(0, 0.12))
    if random.random() < 0.4:
        pixels += _stripes(random, height, width)
    owner = np.zeros((height, width), dtype=np.int16)
    frame = Frame(pixels=pixels, owner=owner, centre=(width / 2, height / 2), scale=max(height, width) / 2)
    for _ in range(random.integers(0, 12)):
        size, power = math.exp(random.uniform(math.log(0.03), math.log(0.6))), int(random.choice([2, 8]))
        (x, y), angle = random.uniform(-1, 1, 2).tolist(), random.uniform(0, math.pi)
        frame.paint(Shape(x, y, size, size * random.uniform(0.15, 1), angle, power), muted(random), 0.9)
    return frame


def develop(random: np.random.Generator, picture: Array) -> torch.Tensor:
    """Light a scene from one side, then blur it, add noise and a cast, as a camera would.

    Shapes: (3, H, W) float32 -> (3, H, W) uint8.
    """
    _, height, width = picture.shape
    slope_x, slope_y = random.uniform(-0.4, 0.4, 2).astype(np.float32)
    cast = (random.uniform(0.75, 1.15) * random.uniform(0.9, 1.1, 3)).astype(np.float32)
    across, down = (np.linspace(-1, 1, side, dtype=np.float32) for side in (width, height))
    lit = torch.from_numpy(picture * (1 + slope_x * across + slope_y * down[:, None]) * cast[:, None, None])
    if random.random() < 0.06:
        lit = lit.mean(dim=0, keepdim=True).expand(3, -1, -1)
    if random.random() < 0.5:
        lit = lit.lerp(F.avg_pool2d(lit, 3, stride=1, padding=1, count_include_pad=False), random.random())
    grain = random.standard_normal((height, width), dtype=np.float32) * np.float32(random.uniform(0, 0.04))
    return ((lit + torch.from_numpy(grain)) * 255).round().clamp(0, 255).to(torch.uint8)


def _noise(random: np.random.Generator, channels: int, cells: int, height: int, width: int) -> Array:
    """Enlarge a small grid of noise; shape (channels, height, width), about -1 to 1."""
    # In double: the last digits of a product depend on NumPy's number of threads, and in single a pixel would.
    grid = random.uniform(-1, 1, (channels, cells, cells))
    smooth: Array = np.matmul(np.matmul(_weights(height, cells), grid), _weights(width, cells).T).astype(np.float32)
    return smooth


@cache
def _weights(length: int, cells: int) -> Any:
    """Weight every cell at every pixel of a line, by cubic interpolation; shape (length, cells), double."""
    each = torch.eye(cells, dtype=torch.float64)[None, :, None]
    return F.interpolate(each, (1, length), mode="bicubic", align_corners=True)[0, :, 0].T.numpy()


def _stripes(random: np.random.Generator, height: int, width: int) -> Array:
    angle, period = random.uniform(0, math.pi), random.uniform(6, 80)
    down, across = np.arange(height)[:, None], np.arange(width)[None]
    phase = (across * math.cos(angle) + down * math.sin(angle)) * (2 * math.pi / period)
    wave = np.clip(np.sin(phase) * random.uniform(1, 8), -1, 1).astype(np.float32)
    stripes: Array = wave * (muted(random)[:, None, None] - np.float32(0.5)) * np.float32(0.3)
    return stripes
