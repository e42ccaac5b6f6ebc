"""Priors (anchor boxes), and boxes and landmarks encoded against them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

VARIANCES = (0.1, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorSpec:
    """Square priors of `per_cell` sizes at every cell of each level.

    The sizes of level l are 16 * 4^(l + i / per_cell) pixels: two a cell give (16, 32), (64, 128) and
    (256, 512), evenly spaced on a logarithmic scale, since the base grows fourfold from level to level.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    per_cell: int = 2

    @property
    def sizes(self) -> tuple[tuple[float, ...], ...]:
        """Return the sides of each level's priors, in pixels."""
        bases = [2 * self.strides[0] * 4**level for level in range(len(self.strides))]
        return tuple(tuple(base * 4 ** (i / self.per_cell) for i in range(self.per_cell)) for base in bases)

    def grid(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return (rows, columns) of each level for an image of height x width pixels, rounded up."""
        # Of positive numbers only: exported graphs divide whole numbers towards zero.
        return [((height - 1) // stride + 1, (width - 1) // stride + 1) for stride in self.strides]

    def priors(self, height: int, width: int, *, device: torch.device | str | None = None) -> Tensor:
        """Lay out all priors in level, row, column, size order.

        Shapes: (P, 4) of centre x, centre y, width, height in pixels; P = 16,800 at 640x640.
        Source: Deng et al. 2020, RetinaFace, section 4.2.
        """
        levels = []
        for (rows, columns), stride, sizes in zip(self.grid(height, width), self.strides, self.sizes, strict=True):
            y = (torch.arange(rows, dtype=torch.float32, device=device) + 0.5) * stride
            x = (torch.arange(columns, dtype=torch.float32, device=device) + 0.5) * stride
            side = torch.tensor(sizes, dtype=torch.float32, device=device)
            y, x, side = torch.meshgrid(y, x, side, indexing="ij")
            levels.append(torch.stack([x, y, side, side], dim=-1).flatten(0, 2))
        return torch.cat(levels)


def encode_boxes(boxes: Tensor, priors: Tensor) -> Tensor:
    """Encode corner boxes as deltas to their priors.

    (centre - prior centre) / (0.1 * prior size), log(size / prior size) / 0.2.

    Shapes: boxes (..., 4) x1, y1, x2, y2 in pixels of positive size, priors (..., 4) -> (..., 4).
    Source: Liu et al. 2016, SSD, eq. 2.
    """
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    size = boxes[..., 2:] - boxes[..., :2]
    shift = (centre - priors[..., :2]) / (VARIANCES[0] * priors[..., 2:])
    return torch.cat([shift, torch.log(size / priors[..., 2:]) / VARIANCES[1]], dim=-1)


def decode_boxes(deltas: Tensor, priors: Tensor) -> Tensor:
    """Undo `encode_boxes`.

    Shapes: deltas (..., P, 4), priors (P, 4) -> (..., P, 4) x1, y1, x2, y2 in pixels.
    """
    centre = priors[..., :2] + deltas[..., :2] * VARIANCES[0] * priors[..., 2:]
    half = priors[..., 2:] * torch.exp(deltas[..., 2:] * VARIANCES[1]) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_landmarks(landmarks: Tensor, priors: Tensor) -> Tensor:
    """Encode five points as deltas to their priors: (point - prior centre) / (0.1 * prior size).

    Shapes: landmarks (..., 10) x, y pairs in pixels, priors (..., 4) -> (..., 10).
    Source: Deng et al. 2020, RetinaFace, section 3.2.
    """
    return (landmarks - _centres(priors)) / (VARIANCES[0] * _sizes(priors))


def decode_landmarks(deltas: Tensor, priors: Tensor) -> Tensor:
    """Undo `encode_landmarks`.

    Shapes: deltas (..., P, 10), priors (P, 4) -> (..., P, 10) x, y pairs in pixels.
    """
    return _centres(priors) + deltas * VARIANCES[0] * _sizes(priors)


def describe_decoding(priors: PriorSpec) -> dict[str, Any]:
    """Return in words and numbers all that it takes to decode raw outputs without this code."""
    centre, size = VARIANCES
    return {
        "variances": [centre, size],
        "boxes": f"centre = prior's + {centre} * (x, y) * prior's size; size = prior's * exp({size} * (w, h))",
        "landmarks": f"point = prior's centre + {centre} * (x, y) * prior's size",
        "points": ["left eye", "right eye", "nose", "left corner of the mouth", "right corner of the mouth"],
        "left": "as seen in the image",
        "logits": ["background", "face"],
        "clipped": False,
        "priors": {
            "values": "centre x, centre y, width, height in pixels, (P, 4) without a batch axis",
            "order": ["level", "row", "column", "size"],
            "strides": list(priors.strides),
            "sizes": [list(sizes) for sizes in priors.sizes],
            "cells": "image's side / stride, rounded up; centres at (number + 0.5) * stride",
        },
    }


def _centres(priors: Tensor) -> Tensor:
    return torch.cat([priors[..., :2]] * 5, dim=-1)


def _sizes(priors: Tensor) -> Tensor:
    return torch.cat([priors[..., 2:]] * 5, dim=-1)
