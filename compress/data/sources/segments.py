"""The box around a segmentation in COCO's format: polygons, or runs of a mask."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from featherpress.errors import DataError


def box_of_segments(segments: Any, where: str) -> list[float] | None:
    """Return the corners of the box around polygons or a run-length mask; None where there is no segmentation.

    Errors: DataError for numbers that are none of either.
    """
    if not segments:
        return None
    try:
        return _around_runs(segments) if isinstance(segments, dict) else _around_polygons(segments)
    except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
        raise DataError(f"{where}: expected polygons or runs as segmentation, got {str(segments)[:60]}") from error


def _around_polygons(polygons: Sequence[Sequence[float]]) -> list[float]:
    values = [float(value) for polygon in polygons for value in polygon]
    if not all(map(math.isfinite, values)) or any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("no polygons")
    xs, ys = values[::2], values[1::2]
    return [min(xs), min(ys), max(xs), max(ys)]


def _around_runs(segments: dict[str, Any]) -> list[float]:
    """Take a mask's runs, of background and object in turns, down its columns one after the other."""
    height, counts = int(segments["size"][0]), segments["counts"]
    lengths = np.array(_decode_runs(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    ends = np.cumsum(lengths)
    first, last = (ends - lengths)[1::2], ends[1::2] - 1
    filled = lengths[1::2] > 0
    first, last = first[filled], last[filled]
    if (lengths < 0).any() or ends[-1] > height * int(segments["size"][1]):
        raise ValueError("no runs")
    left, right = int(first.min()) // height, int(last.max()) // height + 1
    if (first // height != last // height).any():
        return [left, 0, right, height]
    return [left, int((first % height).min()), right, int((last % height).max()) + 1]


def _decode_runs(text: str) -> list[int]:
    """Decode COCO's compressed runs: five bits a character, the lowest first; from the third on, differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) if bits & 16 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs
