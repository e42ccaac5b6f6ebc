"""Images in an order that gives every root and every event its turn, however many images each has."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from featherpress.compress.data.caching import origin
from featherpress.compress.data.samples import FaceDataset

__all__ = ["Group", "Rota", "event_of", "group_by_event", "group_by_root", "split_evenly"]

Group: TypeAlias = "Sequence[int | Group]"
"""Numbers of images, or groups of them."""


class Rota:
    """An endless order of images: the members of a group take turns, and each gives the next of its own.

    `random` gives a generator for the numbers that name a group and a round of it. Every round goes through a group
    in a new order. What comes at a place does not depend on what was asked before.
    """

    def __init__(self, group: Group, random: Callable[..., np.random.Generator]) -> None:
        self.group, self.random = group, random
        self._orders: dict[tuple[int, ...], tuple[int, list[int]]] = {}

    def pick(self, place: int) -> tuple[int, int]:
        """Return the image at a place, and how often it has come before."""
        chosen = self.group
        path: tuple[int, ...] = ()
        while True:
            turn, slot = divmod(place, len(chosen))
            member = self._order(path, turn, len(chosen))[slot]
            inner = chosen[member]
            if isinstance(inner, int):
                return inner, turn
            chosen, path, place = inner, (*path, member), turn

    def _order(self, path: tuple[int, ...], turn: int, members: int) -> list[int]:
        kept = self._orders.get(path)
        if kept is None or kept[0] != turn:
            kept = self._orders[path] = (turn, self.random(turn, *path).permutation(members).tolist())
        return kept[1]


def event_of(name: str) -> str:
    """Name the event of an image, which is its folder: `0--Parade` of `0--Parade/0_Parade_1.jpg`."""
    return name.rpartition("/")[0]


def group_by_root(dataset: FaceDataset) -> list[list[int]]:
    """Sort the images of a data set by the one that reads them."""
    groups: dict[int, list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(id(origin(dataset, index)[0]), []).append(index)
    return list(groups.values())


def group_by_event(dataset: FaceDataset, indices: Sequence[int]) -> list[list[int]]:
    """Sort some images of a data set by their event."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(event_of(dataset.name(index)), []).append(index)
    return list(groups.values())


def split_evenly(total: int, shares: Sequence[float]) -> list[int]:
    """Split a number into whole parts by shares, off by less than one each."""
    return list(_differences(np.rint(np.cumsum(shares) / sum(shares) * total).astype(int).tolist()))


def _differences(ends: Sequence[int]) -> Iterator[int]:
    before = 0
    for end in ends:
        yield end - before
        before = end
