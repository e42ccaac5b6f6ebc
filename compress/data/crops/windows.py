"""Square windows cut from labelled images, moved, scaled, mirrored and recoloured by chance."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from featherpress.compress.data.crops.photometric import distort, draw_colours
from featherpress.compress.data.samples import Objects, Sample
from featherpress.compress.recipes.data import CropsRecipe

_PADDING_RGB = (123, 117, 104)
"""The mean that models subtract: before colours are distorted, padding is zero to them."""
_ASPECT = 1.2
"""The largest ratio of a window's sides."""
_FREE = 0.1
"""How often a window need not hold an object."""
_FLIPPED = 0.5
_SMALLEST = 4.0
"""Objects whose short side ends below so many pixels become ignored."""


class Window(NamedTuple):
    """A rectangle of whole pixels; it may reach beyond the image."""

    left: int
    top: int
    width: int
    height: int


def cut_crop(random: np.random.Generator, sample: Sample, ranges: CropsRecipe, *, size: int) -> Sample:
    """Draw a window, a flip and colours, and cut the crop; shapes: the image is (3, size, size)."""
    height, width = sample.image.shape[1:]
    window = draw_window(random, sample.objects, width, height, ranges, size=size)
    mirrored = random.random() < _FLIPPED
    image = distort(cut_window(sample.image, window, size), *draw_colours(random))
    objects = sample.objects.cropped(*window)
    objects = objects.scaled(size / window.width, size / window.height)
    objects = objects.ignoring(objects.sizes.amin(dim=1) < _SMALLEST)
    crop = Sample(image=image, objects=objects, name=sample.name)
    return crop.flipped() if mirrored else crop


def draw_window(
    random: np.random.Generator, objects: Objects, width: int, height: int, ranges: CropsRecipe, *, size: int
) -> Window:
    """Draw a window for a crop of `size` pixels that holds the centre of one of the objects, if any count.

    It is no smaller than that object.
    """
    chance = random.random()
    if chance < ranges.zoom_out_probability:
        side = max(width, height) * random.uniform(*ranges.zoom_out)
    elif chance < ranges.zoom_out_probability + ranges.native_probability:
        side = size * random.uniform(*ranges.native)
    else:
        side = min(width, height) * random.uniform(*ranges.zoom_in)
    aimed, choice = random.random() >= _FREE, random.random()
    candidates = (~objects.ignored).nonzero().flatten()
    target: tuple[float, float] | tuple[None, None] = (None, None)
    if aimed and len(candidates):
        chosen = int(candidates[int(choice * len(candidates))])
        side = max(side, float(objects.sizes[chosen].max()))  # or a part of one would be taught as a whole
        target = tuple(objects.centres[chosen].tolist())
    stretch = math.exp(random.uniform(-0.5, 0.5) * math.log(_ASPECT))
    wide, high = max(round(side * stretch), 1), max(round(side / stretch), 1)
    return Window(_place(random, wide, width, target[0]), _place(random, high, height, target[1]), wide, high)


def cut_window(image: Tensor, window: Window, size: int) -> Tensor:
    """Resize a window to size x size; what lies beyond the image is filled with the mean colour."""
    height, width = image.shape[1:]
    left, top = max(window.left, 0), max(window.top, 0)
    right, bottom = min(window.left + window.width, width), min(window.top + window.height, height)
    part = image[:, top:bottom, left:right]
    if part.shape[1:] != (window.height, window.width):
        canvas = torch.tensor(_PADDING_RGB, dtype=torch.uint8)[:, None, None].repeat(1, window.height, window.width)
        canvas[:, top - window.top : bottom - window.top, left - window.left : right - window.left] = part
        part = canvas
    resized: Tensor = F.resize_image(part, [size, size], antialias=True)
    return resized.contiguous()


def _place(random: np.random.Generator, window: int, extent: int, centre: float | None) -> int:
    """Draw where a window starts along one axis: inside the image (or around it), and holding the centre."""
    low, high = min(0, extent - window), max(0, extent - window)
    if centre is not None:
        inside = min(max(centre, 0.0), extent)
        high = min(high, math.floor(inside))
        low = min(max(low, math.floor(inside - window) + 1), high)
    return int(random.integers(low, high + 1))
