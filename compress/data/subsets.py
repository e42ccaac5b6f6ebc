"""Data sets made of others: several joined, some images of one, and the groups that images come in."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from featherpress.compress.data.samples import ImageDataset
from featherpress.errors import UsageError


class SelectedSamples:
    """Images of other data sets, each named by its data set and its number there, in this order."""

    def __init__(self, rows: Iterable[tuple[ImageDataset, int]]) -> None:
        self.rows: list[tuple[ImageDataset, int]] = [origin(*row) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        dataset, row = self.rows[index]
        return dataset[row]

    def name(self, index: int) -> str:
        """Name an image as its own data set does."""
        dataset, row = self.rows[index]
        return dataset.name(row)

    def check(self, index: int) -> None:
        """Look at an image and its labels as its own data set does, if it can."""
        dataset, row = self.rows[index]
        getattr(dataset, "check", lambda _row: None)(row)


def origin(dataset: Any, index: int) -> tuple[Any, int]:
    """Return the data set that reads an image, and its number there."""
    return dataset.rows[index] if isinstance(dataset, SelectedSamples) else (dataset, index)


def cache_key(dataset: Any, index: int) -> str:
    """Return a text that changes with an image's file and its labels; empty where both are drawn."""
    base, number = origin(dataset, index)
    return str(base.cache_key(number)) if hasattr(base, "cache_key") else ""


def left_out(*datasets: Any) -> dict[str, int]:
    """Return how much data sets found and do not use, by what it is, as each counts it in `left_out`."""
    origins = (origin(each, index)[0] for each in datasets for index in range(len(each)))
    bases = {id(base): base for base in (*datasets, *origins)}
    counts: dict[str, int] = {}
    for base in bases.values():
        for what, count in getattr(base, "left_out", {}).items():
            counts[what] = counts.get(what, 0) + count
    return {what: count for what, count in counts.items() if count}


def join(*datasets: ImageDataset) -> SelectedSamples:
    """Put data sets one after the other, under one numbering."""
    return SelectedSamples((dataset, index) for dataset in datasets for index in range(len(dataset)))


def select(dataset: ImageDataset, indices: Iterable[int]) -> SelectedSamples:
    """Return the images of a data set with these numbers, in this order."""
    return SelectedSamples((dataset, index) for index in indices)


def group_by_root(dataset: ImageDataset) -> list[list[int]]:
    """Sort the images of a data set by the one that reads them."""
    return _group(range(len(dataset)), lambda index: id(origin(dataset, index)[0]))


def group_by_event(dataset: ImageDataset, indices: Sequence[int]) -> list[list[int]]:
    """Sort some images of a data set by their event, which is their folder: `0--Parade` of `0--Parade/1.jpg`."""
    return _group(indices, lambda index: dataset.name(index).rpartition("/")[0])


def _group(indices: Sequence[int], key: Callable[[int], Hashable]) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = {}
    for index in indices:
        groups.setdefault(key(index), []).append(index)
    return list(groups.values())


def split_evenly(total: int, shares: Sequence[float]) -> list[int]:
    """Split a number into whole parts by shares, off by less than one each."""
    ends = np.rint(np.cumsum(shares) / sum(shares) * total).astype(int)
    return [int(part) for part in np.diff(ends, prepend=0)]


def hold_out(dataset: ImageDataset, count: int) -> tuple[SelectedSamples, SelectedSamples]:
    """Split a data set into what is trained on and `count` images to choose by, spread evenly over it.

    Errors: `UsageError` when nothing would be left to train on.
    """
    total = len(dataset)
    if not 0 < count < total:
        raise UsageError(f"expected to hold out 1 to {total - 1} of {total} images, got {count}")
    return _split(dataset, spread(total, count))


def spread(total: int, count: int) -> list[int]:
    """Return `count` of the numbers below `total`, or all of them, evenly spread."""
    return [_middle(number, count, total) for number in range(count)] if count < total else list(range(total))


def open_part(
    split: str,
    count: int,
    opened: Callable[[Literal["train", "val"]], Any],
    *,
    hold: Callable[[Any, int], tuple[Any, Any]] = hold_out,
) -> Any:
    """Open a split; `holdout` is what is held out of `train`, `count` images, or without them `val`.

    `opened` opens `train` or `val` as they lie there.
    """
    if split == "val" or not count:
        return opened("train" if split == "train" else "val")
    training, held_out = hold(opened("train"), count)
    return training if split == "train" else held_out


def hold_out_events(dataset: ImageDataset, count: int) -> tuple[SelectedSamples, SelectedSamples]:
    """Split a data set into what is trained on and at most `count` images to choose by, whole events of each root.

    Every root gives the same number, or up to one event fewer; one that has no events gives images spread evenly over
    it. Which events they are does not depend on a recipe's seeds.

    Errors: `UsageError` when nothing would be left to train on, or nothing to choose by.
    """
    roots = group_by_root(dataset)
    held: list[int] = []
    for root, share in zip(roots, split_evenly(count, [1] * len(roots)), strict=True):
        events = group_by_event(dataset, root)
        if len(events) == 1:
            held += [root[_middle(number, share, len(root))] for number in range(min(share, len(root) - 1))]
        else:
            held += _whole_events(events, share)
    if not 0 < len(held) < len(dataset):
        raise UsageError(f"no events of {len(dataset)} images fit into the {count} that are to be held out")
    return _split(dataset, held)


def _whole_events(events: list[list[int]], most: int) -> list[int]:
    """Take events in a fixed shuffled order while they fit."""
    held: list[int] = []
    for number in np.random.default_rng(0).permutation(len(events)).tolist():
        if len(held) + len(events[number]) <= most:
            held += events[number]
    return held


def _middle(number: int, parts: int, total: int) -> int:
    return (2 * number + 1) * total // (2 * parts)


def _split(dataset: ImageDataset, held: Sequence[int]) -> tuple[SelectedSamples, SelectedSamples]:
    rest = sorted(set(range(len(dataset))) - set(held))
    return select(dataset, rest), select(dataset, sorted(held))
