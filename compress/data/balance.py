"""Images in an order that gives every root and every event its turn, however many images each has."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

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
