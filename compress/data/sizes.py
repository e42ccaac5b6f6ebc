"""Batches of several crop sizes: how many crops of each, and how many of them an epoch has."""

from collections.abc import Sequence


def batch_lengths(crops: int, sizes: Sequence[int]) -> list[int]:
    """Return how many crops a batch of each size holds: `crops` of the first, of others as many pixels, one at least.

    What a convolution costs goes with the pixels, so that a step of every size costs about the same.
    """
    return [max(round(crops * (sizes[0] / size) ** 2), 1) for size in sizes] if crops else [0] * len(sizes)


def batches_per_epoch(images: int, crops: int, sizes: Sequence[int]) -> int:
    """Count the batches of an epoch: as many of each size as its images fill."""
    return len(sizes) * (images // sum(batch_lengths(crops, sizes)))
