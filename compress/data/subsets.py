"""Data sets made of others: several joined, or some images of one."""

from collections.abc import Sequence

import numpy as np

from featherpress.compress.data.balance import group_by_event, group_by_root, split_evenly
from featherpress.compress.data.samples import FaceDataset, Sample
from featherpress.errors import UsageError


class JoinedFaces:
    """Data sets, one after the other, under one numbering."""

    def __init__(self, *parts: FaceDataset) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, index: int) -> Sample:
        data, row = self.find(index)
        return data[row]

    def name(self, index: int) -> str:
        """Name an image as its own data set does."""
        data, row = self.find(index)
        return data.name(row)

    def find(self, index: int) -> tuple[FaceDataset, int]:
        """Return the data set that an image belongs to, and its number there."""
        for part in self.parts[:-1]:
            if index < len(part):
                return part, index
            index -= len(part)
        return self.parts[-1], index


class SelectedFaces:
    """The images of a data set with these numbers, in this order."""

    def __init__(self, dataset: FaceDataset, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.indices[index]]

    def name(self, index: int) -> str:
        """Name an image as its own data set does."""
        return self.dataset.name(self.indices[index])

    def find(self, index: int) -> tuple[FaceDataset, int]:
        """Return the whole data set, and an image's number there."""
        return self.dataset, self.indices[index]


def hold_out(dataset: FaceDataset, count: int) -> tuple[SelectedFaces, SelectedFaces]:
    """Split a data set into what is trained on and `count` images to choose by, spread evenly over it.

    Errors: `UsageError` when nothing would be left to train on.
    """
    total = len(dataset)
    if not 0 < count < total:
        raise UsageError(f"expected to hold out 1 to {total - 1} of {total} images, got {count}")
    return _split(dataset, [_middle(number, count, total) for number in range(count)])


def hold_out_events(dataset: FaceDataset, count: int) -> tuple[SelectedFaces, SelectedFaces]:
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


def _split(dataset: FaceDataset, held: Sequence[int]) -> tuple[SelectedFaces, SelectedFaces]:
    rest = sorted(set(range(len(dataset))) - set(held))
    return SelectedFaces(dataset, rest), SelectedFaces(dataset, sorted(held))
